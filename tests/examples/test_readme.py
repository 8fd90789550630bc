"""The README's examples, run from its own text: what it shows is what its readers get."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the examples read."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "scanline" / "samples", folder / "scanline" / "samples")
    shutil.copytree(ROOT / "docs", folder / "docs")
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
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        shown = lines[start + 1 : end]
        done = run(checkout, "bash", "-c", lines[start].removeprefix("$ "))
        assert done.returncode == 0, (lines[start], done.stderr)
        if shown:
            assert done.stdout.splitlines() == shown, lines[start]


def test_the_python_example_reads_digits(checkout: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    done = run(checkout, sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["6", "2"]
