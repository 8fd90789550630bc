"""The README's examples, run from its own text: what it shows is what its readers get."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serve.conftest import serving

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the examples read."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "scanline" / "samples", folder / "scanline" / "samples")
    shutil.copytree(ROOT / "docs", folder / "docs")
    shutil.copytree(ROOT / "examples" / "python", folder / "examples" / "python")
    return folder


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SCANLINE_")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = kept | {"PATH": path, "COLUMNS": "80"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_commands_print_what_is_shown(checkout: Path) -> None:
    sessions = re.findall(r"(?:^    .*\n)+", README, re.MULTILINE)
    lines = [line[4:] for session in sessions if session.startswith("    $ ") for line in session.splitlines()]
    starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
    assert starts
    with serving() as server:
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
            command, shown = lines[start].removeprefix("$ "), lines[start + 1 : end]
            if "examples/python" in command:  # the server that runs here has another port than the reader's
                command += f" --server {server.address}"
            done = run(checkout, "bash", "-c", command)
            assert done.returncode == 0, (command, done.stderr)
            if shown:
                assert done.stdout.splitlines() == shown, command


def test_the_python_example_reads_digits(checkout: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    done = run(checkout, sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["6", "2"]
