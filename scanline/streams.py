"""The process's standard streams, as commands want them: open, good for any name, and no trouble at the end."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from typing import TextIO


def prepare() -> None:
    """Let standard input be empty and output go nowhere where they were closed, and let any text be printed.

    A file that is opened later would get a closed stream's number, and what a library prints there would land in it.
    """
    for name, mode in {"stdin": "r", "stdout": "w", "stderr": "w"}.items():  # in the order of their numbers
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))
    if isinstance(sys.stdout, TextIOWrapper):  # a file's name may have letters that a terminal's encoding lacks
        sys.stdout.reconfigure(errors="backslashreplace")


def drop(stream: TextIO) -> None:
    """Let what could not be printed go nowhere: Python tries again at the end, and would say so in words of its own."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def settle_errors() -> None:
    """Print what is left for stderr, or drop it: Python itself would end with 120, whatever the exit code was to be."""
    try:
        sys.stderr.flush()
    except OSError:
        drop(sys.stderr)
