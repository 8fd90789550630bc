"""Sample images of single digits, drawn by `python -m scanline.samples.draw`; a file's name begins with its digit."""

from __future__ import annotations

from pathlib import Path
from typing import Final

NAMES: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def files() -> list[Path]:
    """Give the sample files in the order of their digits."""
    folder = Path(__file__).parent
    images = (file for file in folder.iterdir() if file.suffix in {".png", ".jpg", ".bmp"})
    return sorted(images, key=lambda file: (label(file), file.name))


def label(file: Path) -> int:
    """Give the digit that a sample shows, by its name."""
    return NAMES.index(file.name.partition("-")[0])
