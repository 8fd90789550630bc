"""One run at a time: what a run writes stays its own until it ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from scanline.errors import UsageError


@contextmanager
def held(lock: IO[str], output: Path) -> Iterator[None]:
    """Keep other runs out of an output until the block ends. The system lets go of the lock of a process that dies.

    Args:
        lock: a file for nothing else, open to be written, which network file systems ask for. It is closed at the end.
        output: what the lock stands for.

    Raises:
        UsageError: another run holds the lock, or has removed it at its end since it was opened.
    """
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # who ends removes the file: to lock the one that was opened before that would keep nobody out
            is_there = os.path.samestat(os.fstat(lock.fileno()), Path(lock.name).stat())
        except (BlockingIOError, FileNotFoundError):
            is_there = False
        if not is_there:
            raise UsageError(f"another run is writing {output}")
        yield
