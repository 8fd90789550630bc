"""Folders of versions for the tests, published as a deployment does: written under another name, then renamed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from scanline import manifest
from scanline.model import SHIPPED, STEP_FILE
from scanline.verify import GOLDEN

INT8: Final = ("digits.int8.onnx", STEP_FILE)
FLOAT32: Final = ("digits.onnx",)


def publish(
    folder: Path, number: int, names: Sequence[str] = INT8, spoil: Callable[[Path], object] = lambda _: None
) -> Path:
    """Publish some of the shipped files as a version, in the place of the one that may be there; give its folder."""
    making, old, place = folder / f".{number}", folder / f".{number}.old", folder / str(number)
    shutil.rmtree(old, ignore_errors=True)
    making.mkdir(parents=True)
    for name in (*names, GOLDEN):
        shutil.copy(SHIPPED / name, making)
    manifest.write(making, "test", [*names, GOLDEN])
    spoil(making)
    if place.exists():
        place.rename(old)
    making.rename(place)
    return place
