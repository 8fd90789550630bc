"""The ink in a picture: what stands out from its paper, or from a sheet that lies in it."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scanline import paper, sheet
from scanline.geometry import Mask, Pixels, edge, grown
from scanline.levels import MIN_CONTRAST, otsu
from scanline.strokes import inside, of_the_digit

# Smaller pictures are enlarged first, so that the edge of the ink is found between their pixels.
SMALL: Final = 96
# More pixels than this along the border that are dark, on light paper, may be what the paper lies on.
MOST_DARK_AT_BORDER: Final = 0.02
# More ink than this along the border is doubted: it may be shadow. Then little of it, this share at most, is ink, and
# the shadow covers this much of the picture.
MOST_AT_BORDER: Final = 0.08
OF_SHADOW: Final = 0.2
SMALLEST_SHADOW: Final = 0.2
# The ink's own level: enough of a stroke's pixels reach it, even where most of them are edge.
PERCENTILE: Final = 75
# A pixel belongs to the ink if it is at least this dark of 255; what is lighter is its edge.
LEVEL: Final = 128


class Ink(NamedTuple):
    """What is written in a picture.

    Attributes:
        strokes: uint8 [height, width], 255 for ink, 0 for everything else; all zeros where nothing stands out from the
            paper. A small picture's is larger, a sheet's lacks what surrounds it.
        on_sheet: whether it is that of a sheet.
    """

    strokes: Pixels
    on_sheet: bool


def find(picture: Pixels) -> Ink:
    """Take the paper out of a grey picture, uint8 [height, width].

    The border tells the paper: dark or light, and how its brightness changes across the picture (scanline.paper).
    Otsu's threshold (scanline.levels) tells strokes from paper; their edges stay grey. Where the border shows what a
    sheet of paper lies on, only the sheet is looked at (scanline.sheet).
    """
    scale = -(-SMALL // max(picture.shape))
    if scale > 1:
        height, width = picture.shape
        picture = np.asarray(Image.fromarray(picture).resize((width * scale, height * scale), Image.Resampling.BICUBIC))
    middle = (int(picture.min()) + int(picture.max())) / 2
    light = paper.level(picture) > middle
    surrounded = not light or (edge(picture) <= middle).mean() > MOST_DARK_AT_BORDER
    on_sheet = _on_sheet(picture) if surrounded else None
    if on_sheet is not None and on_sheet.any():
        return Ink(on_sheet, on_sheet=True)
    found = _on_even_paper(picture, light=light)
    if _at_border(found) <= MOST_AT_BORDER:
        return Ink(found, on_sheet=False)  # what seemed to be a blank sheet is a bold digit, in chalk
    for other in (_in_shadow(picture, light=light), _in_shadow(picture, light=not light)):
        if 0 < np.count_nonzero(other) < OF_SHADOW * np.count_nonzero(found):
            return Ink(other, on_sheet=False)
    # where there is a blank sheet, what was found is what it lies on
    return Ink(found, on_sheet=False) if on_sheet is None else Ink(on_sheet, on_sheet=True)


def _on_even_paper(picture: Pixels, *, light: bool) -> Pixels:
    """Give the ink on light or dark paper whose light changes slowly."""
    brightness = 255 - picture if light else picture
    contrast = _contrast(brightness - paper.plane(brightness))
    return _drawn(contrast, _strokes(contrast))


def _in_shadow(picture: Pixels, *, light: bool) -> Pixels:
    """Give the ink on light or dark paper that is partly in shadow; none where it is not."""
    brightness = 255 - picture if light else picture
    ground = paper.opened(brightness)
    difference: NDArray[Any] = brightness - ground.astype(np.float64)
    if light:  # ink in a shadow has as much less light as the paper there
        difference = difference * (255 - ground.min()) / np.maximum(255 - ground.astype(np.float64), 1)
    contrast = _contrast(difference)
    strokes = _strokes(contrast)
    if strokes.any():
        strokes = inside(strokes)  # slivers are left where a shadow's edge meets the picture's
        if _is_shadow(ground, np.median(brightness[strokes])):
            return _drawn(contrast, strokes)
    return np.zeros_like(contrast)


def _on_sheet(picture: Pixels) -> Pixels | None:
    """Give the ink on a light sheet in front of something darker, or None where there is no such sheet.

    Where ink runs on beyond its edge, that is no sheet's, but a shadow's.
    """
    cut = sheet.cut_out(picture)
    if cut is None:
        return None
    found = _on_even_paper(cut.picture, light=True)
    return None if (found[cut.rim] >= LEVEL).any() else found


def _contrast(difference: NDArray[Any]) -> Pixels:
    """Round how much darker pixels are than their paper, float64 [height, width], which is used up."""
    return np.clip(np.rint(difference, out=difference), 0, 255, out=difference).astype(np.uint8)


def _strokes(contrast: Pixels) -> Mask:
    """Give the pixels of the digit; none where nothing stands out."""
    return of_the_digit(contrast > otsu(contrast)) if contrast.max() >= MIN_CONTRAST else np.zeros_like(contrast, bool)


def _drawn(contrast: Pixels, strokes: Mask) -> Pixels:
    """Give strokes and their grey edges, the ink's own level as 255."""
    if not strokes.any():
        return np.zeros_like(contrast)
    levels = np.minimum(np.arange(256) / np.percentile(contrast[strokes], PERCENTILE), 1) * 255
    return np.where(grown(strokes), np.rint(levels).astype(np.uint8)[contrast], np.uint8(0))


def _is_shadow(ground: Pixels, ink_level: float) -> bool:
    """Tell whether paper is partly in shadow: two levels of it, both lighter than the ink, of which it is large."""
    darkest, lightest = int(ground.max()), int(ground.min())
    if darkest - lightest < MIN_CONTRAST or ink_level < darkest + MIN_CONTRAST:
        return False
    return bool((ground > (darkest + lightest) / 2).mean() >= SMALLEST_SHADOW)


def _at_border(found: Pixels) -> float:
    return float((edge(found) >= LEVEL).mean())
