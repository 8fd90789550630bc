"""Brings any picture of a digit to the network's world, by the procedure that made MNIST.

"The original black and white (bilevel) images from NIST were size normalized to fit in a 20x20 pixel box while
preserving their aspect ratio. The resulting images contain grey levels as a result of the anti-aliasing technique used
by the normalization algorithm. The images were centered in a 28x28 image by computing the center of mass of the
pixels, and translating the image so as to position this point at the center of the 28x28 field." (LeCun, Cortes and
Burges, The MNIST database; LeCun et al., Gradient-based learning applied to document recognition, 1998.)

Measured on its 70,000 images: the longest side of the ink is 19 or 20 pixels, and the centre of mass is spread evenly
within half a pixel of (14, 14), the first pixel lying at 0: the translation was by whole pixels. So it is here.

The same decoded pixels give the same result on every machine: resizing is Pillow's bicubic and box filters, fixed-point
arithmetic on 8-bit pixels, and what is computed in floating point is rounded to whole numbers in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from PIL import Image

from scanline import ink, shape
from scanline.contract import COLUMNS, ROWS
from scanline.decode import MAX_PIXELS, decode
from scanline.geometry import Pixels, box, edge
from scanline.levels import variance
from scanline.prediction import RejectReason
from scanline.strokes import thickened

BOX: Final = 20
CENTRE: Final = 14
# A channel is looked at instead of the luminance where it tells ink from paper this much better: yellow ink on white.
BETTER_CHANNEL: Final = 1.5
# A pixel belongs to the ink box if it is at least this dark of 255.
BOX_LEVEL: Final = 64


@dataclass(frozen=True, slots=True)
class Steps:
    """A picture on its way to the network, uint8 throughout.

    Attributes:
        picture: [height, width], grey, upright, as it was decoded.
        ink: [height, width], 255 for the digit's ink, 0 for everything else. A small picture's is larger.
        on_sheet: whether a sheet of paper was found on something darker; then `ink` is the sheet's, without what
            surrounds it.
        rows: [28, 28], what the network sees, 0 background to 255 ink.
        reason: why the picture shows no single digit, or None.
    """

    picture: Pixels
    ink: Pixels
    on_sheet: bool
    rows: Pixels
    reason: RejectReason | None


def to_rows(source: bytes | str | Path | BinaryIO | Image.Image, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Give what the network sees of an image file: uint8 [28, 28], 0 background to 255 ink.

    A 28x28 picture already in MNIST's form (`in_normal_form`) passes through unchanged. One without ink gives zeros.

    Args:
        source: the bytes of a PNG, JPEG, BMP, TIFF or WebP file, its path, the file opened in binary mode, or a Pillow
            image.
        max_pixels: the most pixels that a picture may have.

    Raises:
        InputError: the file can't be read or decoded, is of another format, or has too many pixels.
    """
    return steps(source, max_pixels).rows


def steps(source: bytes | str | Path | BinaryIO | Image.Image, max_pixels: int = MAX_PIXELS) -> Steps:
    """Do as `to_rows`, and keep what is on the way."""
    picture = grey(decode(source, max_pixels))
    if in_normal_form(picture):
        # as raw pixels: the network sees all there is to see
        return Steps(picture, picture, on_sheet=False, rows=picture.copy(), reason=None)
    strokes, on_sheet = ink.find(picture)
    reason = shape.reason(strokes >= ink.LEVEL)
    return Steps(picture, strokes, on_sheet=on_sheet, rows=normalise(strokes), reason=reason)


def in_normal_form(picture: Pixels) -> bool:
    """Tell whether a grey picture, uint8 [height, width], is in MNIST's form.

    That is: 28x28, light on black, the longest side of the ink at most 20, the centre of mass within 0.5 of (14, 14) in
    rows and in columns. All but 2 of MNIST's 70,000 images are.
    """
    if picture.shape != (ROWS, COLUMNS) or np.count_nonzero(edge(picture)) >= ROWS + COLUMNS - 2 or not picture.any():
        return False
    if max(picture[box(picture > 0)].shape) > BOX:
        return False
    return all(abs(centre - CENTRE) <= 0.5 for centre in _centre_of_mass(picture))


def grey(picture: Image.Image) -> Pixels:
    """Give a picture of mode "L" or "RGB" as uint8 [height, width].

    It is the luminance (ITU-R BT.601), or the one of the three channels that varies far more than it.
    """
    if picture.mode == "L":
        return np.asarray(picture)
    luminance = picture.convert("L")
    spreads = [variance(counts) for counts in np.reshape(picture.histogram(), (3, 256))]
    best = int(np.argmax(spreads))
    if spreads[best] > BETTER_CHANNEL**2 * variance(np.array(luminance.histogram())):
        return np.asarray(picture.getchannel(best))
    return np.asarray(luminance)


def normalise(strokes: Pixels) -> Pixels:
    """Bring ink, uint8 [height, width] with 255 for ink, to 28x28: longest side 20, centre of mass at (14, 14).

    Averaging over the area of each new pixel (a box filter) gives grey levels like MNIST's anti-aliasing; the
    strongest pixel becomes 255. Ink is never moved out of the picture, however far off its centre of mass is. No ink
    gives zeros.
    """
    if not strokes.any():
        return np.zeros((ROWS, COLUMNS), np.uint8)
    crop = strokes[box(strokes >= BOX_LEVEL)]
    crop = thickened(crop, crop >= BOX_LEVEL)
    longest = max(crop.shape)
    height, width = (max(1, round(side * BOX / longest)) for side in crop.shape)
    resampling = Image.Resampling.BOX if longest > BOX else Image.Resampling.BICUBIC
    digit = np.asarray(Image.fromarray(crop).resize((width, height), resampling))
    digit = np.rint(digit * (255 / digit.max())).astype(np.uint8)
    row, column = (
        min(max(round(CENTRE - centre), 0), whole - part)
        for centre, whole, part in zip(_centre_of_mass(digit), (ROWS, COLUMNS), digit.shape, strict=True)
    )
    result = np.zeros((ROWS, COLUMNS), np.uint8)
    result[row : row + digit.shape[0], column : column + digit.shape[1]] = digit
    return result


def _centre_of_mass(picture: Pixels) -> tuple[float, float]:
    weights = picture.astype(np.int64)  # two of its moments, in a fifth of the time that all six take at 28x28
    total = int(weights.sum())
    rows, columns = np.arange(picture.shape[0]), np.arange(picture.shape[1])
    return int(weights.sum(axis=1) @ rows) / total, int(weights.sum(axis=0) @ columns) / total
