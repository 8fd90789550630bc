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

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scanline import paper, shape, sheet
from scanline.contract import COLUMNS, ROWS
from scanline.decode import MAX_PIXELS, decode
from scanline.geometry import Pixels, box, grown
from scanline.levels import otsu, variance
from scanline.prediction import RejectReason
from scanline.strokes import inside, of_the_digit, thickened

BOX: Final = 20
CENTRE: Final = 14
# A channel is looked at instead of the luminance where it tells ink from paper this much better: yellow ink on white.
BETTER_CHANNEL: Final = 1.5
# Smaller pictures are enlarged first, so that the edge of the ink is found between their pixels.
SMALL: Final = 96
# More pixels than this along the border that are dark, on light paper, may be what the paper lies on.
MOST_DARK_AT_BORDER: Final = 0.02
# More ink than this along the border is doubted: it may be shadow. Then little of it, this share at most, is ink, and
# the shadow covers this much of the picture.
MOST_AT_BORDER: Final = 0.08
OF_SHADOW: Final = 0.2
SMALLEST_SHADOW: Final = 0.2
# Ink differs from the paper by at least this many of 255 levels; a scanner's noise does not.
MIN_CONTRAST: Final = 20
# The ink's own level: enough of a stroke's pixels reach it, even where most of them are edge.
INK_PERCENTILE: Final = 75
# A pixel belongs to the shape that is judged if it is at least this dark of 255.
INK_LEVEL: Final = 128
# A pixel belongs to the ink box if it is at least this dark of 255.
BOX_LEVEL: Final = 64


@dataclass(frozen=True, slots=True)
class Steps:
    """A picture on its way to the network, uint8 throughout.

    Attributes:
        picture: [height, width], grey, upright, as it was decoded.
        ink: [height, width], 255 for the digit's ink, 0 for everything else. A small picture's is larger; where a sheet
            was found on something darker, it is the sheet's, without what surrounds it.
        rows: [28, 28], what the network sees, 0 background to 255 ink.
        reason: why the picture shows no single digit, or None.
    """

    picture: Pixels
    ink: Pixels
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
        return Steps(picture, picture, picture.copy(), None)  # as raw pixels: the network sees all there is to see
    strokes = ink(picture)
    return Steps(picture, strokes, normalise(strokes), shape.reason(strokes >= INK_LEVEL))


def in_normal_form(picture: Pixels) -> bool:
    """Tell whether a grey picture, uint8 [height, width], is in MNIST's form.

    That is: 28x28, light on black, the longest side of the ink at most 20, the centre of mass within 0.5 of (14, 14) in
    rows and in columns. All but 2 of MNIST's 70,000 images are.
    """
    if picture.shape != (ROWS, COLUMNS) or np.count_nonzero(_edge(picture)) >= ROWS + COLUMNS - 2 or not picture.any():
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


def ink(picture: Pixels) -> Pixels:
    """Take the paper away: 0 where a grey picture, uint8 [height, width], shows paper, 255 where it shows ink.

    The border tells the paper: dark or light, and how its brightness changes across the picture (scanline.paper).
    Otsu's threshold (scanline.levels) tells strokes from paper; their edges stay grey. Where the border shows what a
    sheet of paper lies on, only the sheet is looked at (scanline.sheet). All zeros where nothing stands out from the
    paper. A small picture comes back enlarged, one of a sheet without its surroundings.
    """
    scale = -(-SMALL // max(picture.shape))
    if scale > 1:
        height, width = picture.shape
        picture = np.asarray(Image.fromarray(picture).resize((width * scale, height * scale), Image.Resampling.BICUBIC))
    middle = (int(picture.min()) + int(picture.max())) / 2
    light = paper.level(picture) > middle
    surrounded = not light or (_edge(picture) <= middle).mean() > MOST_DARK_AT_BORDER
    on_sheet = _ink_on_sheet(picture) if surrounded else None
    if on_sheet is not None and on_sheet.any():
        return on_sheet
    found = _ink_on(picture, paper.plane, light=light)
    if _at_border(found) > MOST_AT_BORDER:
        for other in (_ink_on(picture, paper.opened, light=light), _ink_on(picture, paper.opened, light=not light)):
            if 0 < np.count_nonzero(other) < OF_SHADOW * np.count_nonzero(found):
                return other
        if on_sheet is not None:
            return on_sheet  # nothing is written on it, and what was found is what it lies on
    return found


def _ink_on(picture: Pixels, model: Callable[[Pixels], NDArray[Any]], *, light: bool) -> Pixels:
    """Give the ink on light or dark paper, by a model of the paper; none where the model does not hold."""
    brightness = 255 - picture if light else picture
    ground = model(brightness)
    difference: NDArray[Any] = brightness - ground.astype(np.float64, copy=False)
    if light and model is paper.opened:  # ink in a shadow has as much less light as the paper there
        difference = difference * (255 - ground.min()) / np.maximum(255 - ground.astype(np.float64), 1)
    contrast = np.clip(np.rint(difference, out=difference), 0, 255, out=difference).astype(np.uint8)
    if contrast.max() < MIN_CONTRAST:
        return np.zeros_like(contrast)
    strokes = of_the_digit(contrast > otsu(contrast))
    if model is paper.opened:
        strokes = inside(strokes)  # slivers are left where a shadow's edge meets the picture's
        if not _is_shadow(ground, np.median(brightness[strokes])):
            return np.zeros_like(contrast)
    levels = np.minimum(np.arange(256) / np.percentile(contrast[strokes], INK_PERCENTILE), 1) * 255
    return np.where(grown(strokes), np.rint(levels).astype(np.uint8)[contrast], np.uint8(0))


def _ink_on_sheet(picture: Pixels) -> Pixels | None:
    """Give the ink on a light sheet in front of something darker, or None where there is no such sheet.

    Where ink runs on beyond its edge, that is no sheet's, but a shadow's.
    """
    cut = sheet.cut_out(picture)
    if cut is None:
        return None
    found = _ink_on(cut.picture, paper.plane, light=True)
    return None if (found[cut.rim] >= INK_LEVEL).any() else found


def _is_shadow(ground: Pixels, ink_level: float) -> bool:
    """Tell whether paper is partly in shadow: two levels of it, both lighter than the ink, of which it is large."""
    darkest, lightest = int(ground.max()), int(ground.min())
    if darkest - lightest < MIN_CONTRAST or ink_level < darkest + MIN_CONTRAST:
        return False
    return bool((ground > (darkest + lightest) / 2).mean() >= SMALLEST_SHADOW)


def _at_border(found: Pixels) -> float:
    return float((_edge(found) >= INK_LEVEL).mean())


def _edge(picture: Pixels) -> Pixels:
    """Give the outermost pixels of a picture in one row."""
    return np.concatenate([picture[0], picture[-1], picture[1:-1, 0], picture[1:-1, -1]])


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
