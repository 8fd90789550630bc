"""What a picture would show without its ink: paper, lit as it was. Brightness means that of ink: 0 for the paper's own.

Two models. A plane fits paper whose light changes slowly. Opening (Serra, Image analysis and mathematical morphology,
1982) follows shadows with hard edges and lamps too: whatever is wider than a stroke could be is paper.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from scanline.geometry import Mask, Pixels, moments
from scanline.levels import LEVELS, histogram, median

# The paper is what lies along the border, in a band of this share of the shorter side.
BAND: Final = 0.12
# No stroke is as wide as this share of the shorter side, or half as wide where it runs along the border.
WIDEST_STROKE: Final = 0.35


def level(picture: Pixels) -> float:
    """Give the median along the border of a picture, uint8 [height, width]: the paper's level of grey."""
    return median(LEVELS, histogram(picture[_border(picture.shape)]))


def plane(brightness: Pixels) -> NDArray[np.float64]:
    """Fit a plane to the border by least squares, without what is far from the border's median: ink that touches it."""
    return fitted(brightness, _border(brightness.shape))


def fitted(brightness: Pixels, known: Mask) -> NDArray[np.float64]:
    """Fit a plane to some pixels by least squares, without what is far from their median: ink."""
    counts = histogram(brightness[known])
    off = np.abs(LEVELS - median(LEVELS, counts))
    near = off <= max(3.0, 2.5 * 1.4826 * median(off, counts))  # 1.4826 x median: the deviation, for normal noise
    level, down, across = _fit(brightness, known & near[brightness])
    height, width = brightness.shape
    ground: NDArray[np.float64] = level + down * np.arange(height)[:, None] + across * np.arange(width)
    return ground


def opened(brightness: Pixels) -> Pixels:
    """Take away what is brighter than its surroundings and narrower than a square of WIDEST_STROKE."""
    window = 2 * round(min(brightness.shape) * WIDEST_STROKE / 2) + 1
    eroded = _along(_along(brightness, window, np.minimum, 255).T, window, np.minimum, 255).T
    return _along(_along(eroded, window, np.maximum, 0).T, window, np.maximum, 0).T


def _along(values: Pixels, window: int, extreme: np.ufunc, outside: int) -> Pixels:
    """Give the extreme of the window around each pixel of each column.

    Extremes of twice as many pixels are those of two neighbouring halves, so the time grows with the logarithm of the
    window (van den Boomgaard and van Balen, Methods for fast morphological image transforms, 1992).
    """
    found = np.full((len(values) + window - 1, values.shape[1]), outside, np.uint8)
    found[window // 2 : window // 2 + len(values)] = values
    reach = 1
    while 2 * reach <= window:
        found = extreme(found[:-reach], found[reach:])
        reach *= 2
    result: Pixels = extreme(found[: len(values)], found[-len(values) :])
    return result


def _border(shape: tuple[int, ...]) -> Mask:
    width = max(1, round(min(shape) * BAND))
    mask = np.ones(shape, bool)
    mask[width:-width, width:-width] = False
    return mask


def _fit(brightness: Pixels, known: Mask) -> tuple[float, float, float]:
    """Fit level, slope down and slope across to some pixels.

    The normal equations are whole numbers and solved as such, since linear algebra libraries differ in their last bits.
    """
    n, y, x, yy, yx, xx = moments(known)
    left, right = [[n, y, x], [y, yy, yx], [x, yx, xx]], moments(np.where(known, brightness, 0))[:3]
    determinant = _determinant(left)
    if determinant == 0:  # the points are on one line, as in a picture one pixel high
        return float(np.median(brightness[known])), 0.0, 0.0
    replaced = ([[*row[:k], new, *row[k + 1 :]] for row, new in zip(left, right, strict=True)] for k in range(3))
    first, second, third = (_determinant(matrix) / determinant for matrix in replaced)  # Cramer's rule
    return first, second, third


def _determinant(matrix: list[list[int]]) -> int:
    (a, b, c), (d, e, f), (g, h, i) = matrix
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
