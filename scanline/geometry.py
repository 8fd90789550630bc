"""Where the pixels of a picture lie: their box, their moments, the length of their outline."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Pixels = NDArray[np.uint8]
Value = TypeVar("Value", bound=np.generic)


def box(mask: Mask) -> tuple[slice, slice]:
    """Give the smallest rows and columns that hold a mask, bool [height, width], which must not be empty."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def edge(values: NDArray[Value]) -> NDArray[Value]:
    """Give the outermost of values [height, width], in one row."""
    return np.concatenate([values[0], values[-1], values[1:-1, 0], values[1:-1, -1]])


def framed(values: NDArray[Value], width: int = 1) -> NDArray[Value]:
    """Put a frame of zeros around values [height, width]; numpy's own `pad` takes ten times as long for small ones."""
    height, breadth = values.shape
    result = np.zeros((height + 2 * width, breadth + 2 * width), values.dtype)
    result[width : width + height, width : width + breadth] = values
    return result


def grown(mask: Mask) -> Mask:
    """Add the pixels that touch the mask, on a side or a corner."""
    padded = framed(mask)
    tall = padded[:-2] | padded[1:-1] | padded[2:]
    return tall[:, :-2] | tall[:, 1:-1] | tall[:, 2:]


class Moments(NamedTuple):
    """Sums over pixels of their weight, times the row y, the column x, or a product of two of them."""

    one: int
    y: int
    x: int
    yy: int
    yx: int
    xx: int


def moments(weights: NDArray[Any]) -> Moments:
    """Give the moments of pixels whose weights are whole numbers: the same on every machine, as nothing is rounded.

    Args:
        weights: [height, width]; no sum may reach 2 ** 53.
    """
    y, x = (np.arange(side, dtype=np.float64) for side in weights.shape)
    down, across = (weights.sum(axis=axis, dtype=np.float64) for axis in (1, 0))
    # einsum and not @, which would have a library for linear algebra start its threads
    products = np.einsum("ij,j->i", weights, x)
    return Moments(*map(int, (down.sum(), down @ y, across @ x, down @ y**2, products @ y, across @ x**2)))


def outline(mask: Mask) -> float:
    """Give the length of a mask's outline, in pixels."""
    padded = framed(mask)
    # pi / 4: an outline that follows the grid is that much longer than the one it follows, over all directions
    return math.pi / 4 * sum(float(np.count_nonzero(np.diff(padded, axis=axis))) for axis in (0, 1))
