"""What the tests of entries share: their names, and what is read of each."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from scanline import samples
from scanline.decode import page
from scanline.errors import InputError
from scanline.images import Image, Page
from scanline.scoring.entry import Entry
from scanline.scoring.inputs import count, find

PNG = samples.files()[0].read_bytes()


def names(folder: Path, *paths: str | Path) -> list[str]:
    found = [os.path.relpath(entry.name, folder) for entry in find(map(str, paths))]
    assert count([str(path) for path in paths]) == len(found)
    return found


def loaded(entries: Iterable[Entry]) -> dict[str, Image | str]:
    """Give what is to be read of each entry, or the error, by the last part of its name."""
    result: dict[str, Image | str] = {}
    for entry in entries:
        try:
            image = entry.load() if entry.load else entry.name
            result[Path(entry.name).name] = page(image.path, image.number) if isinstance(image, Page) else image
        except InputError as error:
            result[Path(entry.name).name] = f"error: {error}"
    return result
