"""Digits of one's own: a folder with one folder of image files for each digit."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scanline import console, preprocess
from scanline.contract import COLUMNS, LABELS, ROWS
from scanline.decode import FORMATS
from scanline.errors import InputError, UsageError
from scanline.images import labelled

SHOWN_FAILURES: Final = 5
UNREAD: Final = {".gif": "GIF", ".heic": "HEIC", ".heif": "HEIC", ".avif": "AVIF"}  # images that scanline doesn't take


def read(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read the image files in PATH/0 to PATH/9 and bring each image to the network's world (scanline.preprocess).

    Args:
        path: holds folders named 0 to 9; other folders beside or in them are refused, so that no digits are left out
            unseen.

    Returns:
        The images, uint8 [n, 28, 28], and their labels, int64 [n], in the order of the labels and file names.

    Raises:
        UsageError: the folder is missing, or is not laid out as it should be.
        InputError: image files can't be read, are blank or of a kind that is not read; it counts them and names the
            first.
    """
    if not path.is_dir():
        raise UsageError(f"--data folder:{path}: there is no such folder")
    strangers = [folder.name for folder in _folders(path) if folder.name not in set(LABELS)]
    if strangers:
        raise UsageError(f"--data folder:{path}: its folders should be named 0 to 9, not {', '.join(strangers)}")
    nested = next((inner for folder in _folders(path) for inner in _folders(folder)), None)
    if nested is not None:
        raise UsageError(f"--data folder:{path}: {nested} is a folder; images are looked for in {nested.parent} itself")
    files = labelled(path)
    if not files:
        raise UsageError(
            f"--data folder:{path}: there is no image; {path / '0'} to {path / '9'} should hold {FORMATS} files"
        )

    unread = _unread(path)
    images, failures = [], [f"{file}: {kind} can't be read; expected {FORMATS}" for file, kind in unread]
    with console.progress("images") as bar:
        for file, _ in bar.track(files, description=f"reading {path.name}"):
            try:
                rows = preprocess.to_rows(file)
            except InputError as error:
                failures.append(f"{file}: {error}")
            else:
                images.append(rows)
                if not rows.any():  # no digit, whatever folder it lies in
                    failures.append(f"{file}: it is blank")
    if failures:
        shown = "; ".join(failures[:SHOWN_FAILURES])
        raise InputError(
            f"{len(failures)} of {len(files) + len(unread)} images in {path} can't be used, repair or remove them: "
            f"{shown}"
        )
    return np.stack(images).reshape(-1, ROWS, COLUMNS), np.array([label for _, label in files], np.int64)


def _unread(path: Path) -> list[tuple[Path, str]]:
    """Give the images in PATH/0 to PATH/9 that would be left out unseen, with their kinds, but for hidden files."""
    files = (file for label in LABELS if (path / label).is_dir() for file in sorted((path / label).iterdir()))
    kinds = ((file, UNREAD.get(file.suffix.lower())) for file in files if not file.name.startswith("."))
    return [(file, kind) for file, kind in kinds if kind is not None]


def _folders(path: Path) -> list[Path]:
    """Give the folders in a folder, but for hidden ones: they are some program's."""
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
