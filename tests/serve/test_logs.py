"""What the log looks like where it is written to a file."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

FAILS = """
import structlog
from serve import logs

def fail(pixels):
    raise ValueError("no such digit")

logs.configure("info", {form!r})
try:
    fail("a caller's own")
except ValueError:
    structlog.get_logger("test").exception("failed", call=7)
"""


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_file_gets_neither_colours_nor_what_callers_sent(tmp_path: Path, form: str) -> None:
    file = tmp_path / "log"
    with file.open("wb") as stderr:
        subprocess.run([sys.executable, "-c", FAILS.format(form=form)], stderr=stderr, check=True)
    text = file.read_text()
    assert "\x1b" not in text
    assert "no such digit" in text
    assert "in fail" in text or '"name": "fail"' in text
    assert "a caller's own" not in text


@pytest.mark.parametrize(("wish", "coloured"), [("", True), ("1", False)])
def test_a_terminal_gets_colours_unless_they_are_not_wanted(wish: str, coloured: bool) -> None:
    ours, theirs = pty.openpty()
    try:
        environment = {**os.environ, "NO_COLOR": wish}
        subprocess.run([sys.executable, "-c", FAILS.format(form="auto")], stderr=theirs, check=True, env=environment)
        shown = os.read(ours, 4096).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "failed" in shown
    assert ("\x1b" in shown) == coloured
