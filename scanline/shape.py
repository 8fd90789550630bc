"""What the shape of a picture's ink tells before any network sees it: one digit, several, or something else.

The bounds were chosen on the 5,000 last of MNIST's training images, drawn into files in the ways of
benchmarks/images.py, and on made-up pictures (benchmarks/reject); docs/reject.md has what they cost and catch.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from scanline.prediction import RejectReason
from scanline.strokes import Mask, label, on_grid, outline

# A part with less than this share of the largest part's ink is a bit of a broken stroke; a digit has few others.
CRUMB: Final = 0.05
MOST_PARTS: Final = 8
# The two largest parts are digits of their own if both are this high, in shares of the whole, and have this share of
# its ink. The halves of a broken 4 or 0 of MNIST's are not.
COMPARABLE_HEIGHT: Final = 0.62
COMPARABLE_INK: Final = 0.15
# A digit's strokes, end to end, are not longer than this: in shares of its longest side, and of its height.
LONGEST_STROKES: Final = 4.0
MOST_STROKES: Final = 3.6
# A straight line is this much narrower than long (the ratio of its deviations). Leaning farther from the vertical it is
# no one, in degrees; nor is one that leaves the picture twice and has room beside it, this share of its length.
STRAIGHT: Final = 0.15
LYING: Final = 50.0
ROOM_BESIDE: Final = 0.15


def reason(ink: Mask) -> RejectReason | None:
    """Say why ink, bool [height, width], is not that of one digit; None where its shape does not tell.

    A stroke's length is half its outline.
    """
    if not ink.any():
        return RejectReason.BLANK
    rows, columns = np.nonzero(ink)
    box = ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    height, width = box.shape
    strokes = outline(box) / 2
    if strokes > LONGEST_STROKES * max(box.shape):
        return RejectReason.NOT_A_DIGIT
    parts = _parts(box)
    if len(parts) > MOST_PARTS or _is_line(ink, box):
        return RejectReason.NOT_A_DIGIT
    if _are_comparable(parts):
        return RejectReason.SEVERAL
    if strokes > MOST_STROKES * height:
        return RejectReason.SEVERAL if width > height else RejectReason.NOT_A_DIGIT
    return None


def _parts(box: Mask) -> list[Mask]:
    """Give the parts of the ink but for crumbs, each as bool [rows, columns] of one grid, the largest first."""
    labels = label(on_grid(box))
    areas = np.bincount(labels[labels > 0])[1:]
    return [labels == part + 1 for part in np.argsort(-areas, kind="stable") if areas[part] >= CRUMB * areas.max()]


def _are_comparable(parts: list[Mask]) -> bool:
    if len(parts) < 2:
        return False
    heights = [int(np.ptp(np.nonzero(part)[0])) + 1 for part in parts[:2]]
    areas = [int(np.count_nonzero(part)) for part in parts]
    return min(heights) >= COMPARABLE_HEIGHT * len(parts[0]) and areas[1] >= COMPARABLE_INK * sum(areas)


def _is_line(ink: Mask, box: Mask) -> bool:
    """Tell a straight line that is no one, by the principal axes of its pixels."""
    (down, both), (_, across) = np.cov(np.nonzero(box), bias=True).tolist()
    middle, reach = (down + across) / 2, math.hypot((down - across) / 2, both)
    if middle - reach > STRAIGHT**2 * (middle + reach):
        return False
    lean = abs(math.degrees(math.atan2(2 * both, down - across))) / 2
    leaves = sum(bool(side.any()) for side in (ink[0], ink[-1], ink[:, 0], ink[:, -1]))
    room = max(whole - side for side, whole in zip(box.shape, ink.shape, strict=True))
    return lean > LYING or (leaves >= 2 and room > ROOM_BESIDE * max(box.shape))
