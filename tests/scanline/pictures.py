"""How the tests of images compare what the network would see."""

from __future__ import annotations

from io import BytesIO
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scanline.preprocess import to_rows

Pixels = NDArray[np.uint8]

# Drawings of different digits differ by more than 19, those of one digit by less than this.
SAME: Final = 14


def saved(picture: Image.Image | Pixels, form: str = "PNG", **options: Any) -> bytes:
    """Give a picture as the bytes of an image file."""
    buffer = BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(buffer, form, **options)
    return buffer.getvalue()


def inverted(picture: Image.Image) -> Image.Image:
    return Image.eval(picture, lambda level: 255 - level)


def rows_of(picture: Image.Image | Pixels) -> Pixels:
    """Give what the network sees of a picture's PNG file."""
    return to_rows(saved(picture))


def difference(one: Pixels, other: Pixels) -> float:
    """Mean difference in levels of 255; the centre of mass may have been rounded to a neighbouring pixel."""
    shifts = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)]
    return min(float(np.abs(np.roll(one, shift, axis=(0, 1)).astype(int) - other).mean()) for shift in shifts)
