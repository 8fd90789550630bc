"""Decoding and preprocessing alone, with no model and no table: `python -m benchmarks.score.alone FOLDER PROCESSES`."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

from scanline.preprocess import steps
from scanline.scoring.engine import BATCH_FILES
from scanline.scoring.inputs import find


def read(name: str) -> None:
    """Decode and preprocess a file."""
    steps(Path(name))


def main() -> None:
    """Read all files of a folder."""
    with multiprocessing.get_context("spawn").Pool(int(sys.argv[2])) as pool:
        for _ in pool.imap(read, (entry.name for entry in find([sys.argv[1]])), chunksize=BATCH_FILES):
            pass


if __name__ == "__main__":
    main()
