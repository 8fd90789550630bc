"""Model files that are damaged, as a bad card or an interrupted copy leaves them."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from scanline.model import MODEL_FILES, SHIPPED, STEP_FILE
from tests.serve.conftest import PATIENCE

# Opens every file of a folder as the server does; an end by a signal, or an error of another kind, is what must not be.
OPEN_ALL = """
import sys
from pathlib import Path
from scanline.errors import ModelError
from scanline.model import STEP_FILE, Model, StepModel
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        (StepModel if path.name.endswith(STEP_FILE) else Model)(path)
        print("opened")
    except ModelError as error:
        assert str(error)
        print("refused")
"""


@pytest.mark.parametrize("name", [*MODEL_FILES, STEP_FILE])
def test_a_damaged_file_is_refused_or_opened_and_never_ends_the_process(tmp_path: Path, name: str) -> None:
    content = (SHIPPED / name).read_bytes()
    chance = random.Random(name)
    for number in range(60):
        damaged = bytearray(content)
        if number % 3 == 0:
            del damaged[chance.randrange(len(content)) :]
        else:
            # half of them where the graph and the card are, which are the ends of the file
            place = chance.randrange(len(content)) if number % 3 == 1 else chance.randrange(-2000, 500)
            damaged[place] ^= 1 << chance.randrange(8)
        (tmp_path / f"{number:02}.{name}").write_bytes(damaged)
    result = subprocess.run(
        [sys.executable, "-c", OPEN_ALL, str(tmp_path)], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert result.returncode == 0, result.stderr
    outcomes = result.stdout.split()
    assert outcomes.count("refused") >= 20  # all that are cut short at least
    assert len(outcomes) == 60


@pytest.mark.parametrize("damaged", [*MODEL_FILES[:1], STEP_FILE])
@pytest.mark.parametrize("share", [0, 0.5, 0.999])
def test_a_server_with_a_file_cut_short_does_not_start(tmp_path: Path, damaged: str, share: float) -> None:
    for name in (MODEL_FILES[0], STEP_FILE):
        content = (SHIPPED / name).read_bytes()
        (tmp_path / name).write_bytes(content[: int(share * len(content))] if name == damaged else content)
    assert str(tmp_path / damaged) in refused_start("--model", str(tmp_path))


def refused_start(*arguments: str) -> str:
    """Start a server that can't start; check the exit code and give its only line."""
    command = [sys.executable, "-m", "scanline", "serve", "--listen", "127.0.0.1:0", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert result.returncode == 3, result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
    return result.stderr
