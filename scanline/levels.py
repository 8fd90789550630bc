"""What the levels of a picture's pixels tell, wherever they lie."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scanline.geometry import Pixels

LEVELS: Final = np.arange(256)
# Ink differs from the paper by at least this many of 255 levels; a scanner's noise does not.
MIN_CONTRAST: Final = 20


def histogram(levels: Pixels) -> NDArray[np.int64]:
    """Count how often each level, uint8 [n], is there: [256]."""
    return np.bincount(levels, minlength=256)


def median(values: NDArray[Any], counts: NDArray[np.int64]) -> float:
    """Give the median of values of which there are so many each."""
    order = values.argsort()
    ends = counts[order].cumsum()
    middle = ((ends[-1] - 1) // 2, ends[-1] // 2)  # the same one twice where their number is odd
    return float(values[order[np.searchsorted(ends, middle, side="right")]].mean())


def variance(counts: NDArray[np.int64]) -> float:
    """Give the variance of levels that are there so often, [256]."""
    number, total, squares = (int(counts @ LEVELS**power) for power in range(3))
    return (number * squares - total**2) / number**2


def otsu(values: Pixels) -> int:
    """Give the level that two kinds of pixels, uint8 [height, width], are told apart by best: above it, and not above.

    After Otsu, A threshold selection method from gray-level histograms, 1979.
    """
    counts = np.array(Image.fromarray(values).histogram(), np.float64)  # bincount turns every pixel into 8 bytes first
    below, mass = counts.cumsum(), (counts * LEVELS).cumsum()
    above = below[-1] - below
    possible = (below > 0) & (above > 0)
    between = np.zeros(256)
    between[possible] = (mass[-1] * below[possible] / below[-1] - mass[possible]) ** 2 / (below * above)[possible]
    return int(between.argmax())
