"""The ink of a picture made the digit's: ruled lines, frames and specks taken out, hairlines drawn with a wider pen."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scanline.geometry import Mask, Pixels, Value, box, framed, outline

# A ruled line or a frame's side runs through this share of the picture, and is no thicker than that share of it. A
# digit's bar would have to be cut off at both its ends and thin besides.
LINE_LENGTH: Final = 0.95
LINE_THICKNESS: Final = 0.06
# A part with less than this share of the largest part's ink is a speck. Broken strokes are larger.
SPECK: Final = 0.05
# A frame runs along its box's sides no farther inside than this share of the longer one, the slant of a form's box
# included, and what it holds is at least this share of its height. Less is a speck in a box-shaped digit.
FRAME_DEPTH: Final = 0.05
SMALLEST_IN_FRAME: Final = 0.25
# Parts are found on a grid of at most this many cells a side, which also joins parts that all but touch.
GRID: Final = 128
# The width of the thinnest pen, as a share of the digit's longest side. A twentieth of MNIST's are thinner.
THINNEST_PEN: Final = 0.11


def of_the_digit(mask: Mask) -> Mask:
    """Give the part of the ink, bool [height, width], that is the digit's.

    A line is taken out only if ink is left without it: a picture of nothing but a bar keeps it.
    """
    rest: Mask = _without_lines(mask) & _without_lines(mask.T).T
    if rest.any():
        mask = rest
    labels = label(on_grid(mask))
    wide = _widened(labels, mask)
    areas = np.bincount(wide[mask])
    largest = int(areas.argmax())
    others = np.delete(areas, largest)
    # asked first: beside a thick frame, what it holds is no more than a speck
    if others.any() and _is_frame(labels == largest, (areas >= SPECK * others.max())[labels]):
        areas[largest] = 0
    kept: Mask = areas >= SPECK * areas.max()
    for part in np.flatnonzero(kept).tolist():
        if _is_frame(labels == part, kept[labels]):
            kept[part] = False
    return mask & _widened(kept[labels], mask)


def inside(mask: Mask) -> Mask:
    """Take out the parts that touch the picture's edge, if there are others."""
    wide = _widened(label(on_grid(mask)), mask)
    rest = mask & ~np.isin(wide, np.concatenate([wide[0], wide[-1], wide[:, 0], wide[:, -1]]))
    return rest if rest.any() else mask


def _widened(cells: NDArray[Value], mask: Mask) -> NDArray[Value]:
    """Give the values that the cells of a grid have to the pixels of the mask that it was made from."""
    factor = _cell(mask)
    return cells.repeat(factor, axis=1).repeat(factor, axis=0)[: mask.shape[0], : mask.shape[1]]


def on_grid(mask: Mask) -> Mask:
    """Reduce a mask, bool [height, width], to at most GRID cells a side: those that hold any of it."""
    factor = _cell(mask)
    height, width = (-(-side // factor) for side in mask.shape)
    cells = np.zeros((height * factor, width * factor), bool)
    cells[: mask.shape[0], : mask.shape[1]] = mask
    tall = cells.reshape(height, factor, -1).any(axis=1)
    return np.asarray(tall.reshape(height, width, factor).any(axis=2))


def _cell(mask: Mask) -> int:
    return -(-int(max(mask.shape)) // GRID)


def label(mask: Mask) -> NDArray[np.int64]:
    """Number the parts of a mask, 1 and up, pixels that touch on a side or a corner being of one part; 0 elsewhere.

    Runs of each row are joined to those of the row above with union-find (Rosenfeld and Pfaltz, Sequential operations
    in digital picture processing, 1966).
    """
    edges = np.diff(framed(mask)[1:-1].astype(np.int8), axis=1)
    starts, ends = (np.flatnonzero(edges == step) for step in (1, -1))
    first = np.searchsorted(ends, starts - edges.shape[1], side="left")  # of the runs in the row above that it touches
    after = np.searchsorted(starts, ends - edges.shape[1], side="right")
    parents = list(range(len(starts)))

    def root(run: int) -> int:
        while parents[run] != run:
            parents[run] = run = parents[parents[run]]
        return run

    for run, touched in enumerate(zip(first.tolist(), after.tolist(), strict=True)):
        for other in range(*touched):
            parents[root(other)] = run
    numbers = np.unique([root(run) for run in range(len(parents))], return_inverse=True)[1] + 1
    labels = np.zeros(mask.shape, np.int64)
    labels[mask] = numbers.repeat(ends - starts)
    return labels


def _is_frame(part: Mask, ink: Mask) -> bool:
    """Tell whether a part runs along all four sides of its own box and holds the rest of the ink inside."""
    own, rest = box(part), ink & ~part
    if not rest.any() or rest[own].sum() < rest.sum():
        return False
    inside = part[own]
    depth = math.ceil(FRAME_DEPTH * max(inside.shape))
    sides = [turned[:depth].any(axis=0).mean() for turned in (inside, inside[::-1], inside.T, inside.T[::-1])]
    return min(sides) >= LINE_LENGTH and bool(np.ptp(np.nonzero(rest)[0]) >= SMALLEST_IN_FRAME * inside.shape[0])


def thickened(ink: Pixels, mask: Mask) -> Pixels:
    """Widen strokes too thin to survive the reduction to 20 pixels, on all sides alike.

    Args:
        ink: uint8 [height, width], 255 for ink, with nothing around it.
        mask: which of its pixels are ink; the width of a stroke is twice its area over its outline.

    Returns:
        The ink, larger by the same margin on each side where its strokes were widened.
    """
    width = 2 * np.count_nonzero(mask) / outline(mask)
    margin = max(0, round((THINNEST_PEN * max(mask.shape) - width) / 2))
    ink = framed(ink, margin)
    for _ in range(margin):
        around = framed(ink)
        sides = (around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:])
        ink = np.maximum.reduce([ink, *sides])
    return ink


def _without_lines(mask: Mask) -> Mask:
    """Take out the rows that are ink from edge to edge, but for where a stroke crosses them."""
    result = mask.copy()
    height = mask.shape[0]
    full = np.flatnonzero(mask.mean(axis=1) >= LINE_LENGTH)
    for group in np.split(full, np.flatnonzero(np.diff(full) > 1) + 1):
        if 0 < len(group) <= LINE_THICKNESS * height:
            above, below = group[0] - 1, group[-1] + 1
            crossed = mask[above] & mask[below] if above >= 0 and below < height else np.zeros(mask.shape[1], bool)
            result[group] &= crossed
    return result
