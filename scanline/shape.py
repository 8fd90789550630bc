"""What the shape of a picture's ink tells before any network sees it: one digit, several, or something else.

The bounds were chosen on the 5,000 last of MNIST's training images, drawn into files in the ways of
benchmarks/images.py, and on made-up pictures (benchmarks/reject); docs/reject.md has what they cost and catch.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from scanline import geometry
from scanline.geometry import Mask
from scanline.prediction import RejectReason
from scanline.strokes import label, on_grid

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
# A row of its ink meets no more of them, on average: two, those of a 0 or a 4, and a little of others.
MOST_IN_ROW: Final = 2.15
# A bar is this much narrower than long (the ratio of its deviations); leaning farther from the vertical than this many
# degrees it is no one.
BAR: Final = 0.25
LYING: Final = 50.0
# Nor is a straight line, narrower still, that leaves the picture twice: with room beside it, this share of its length;
# or with little, if the picture's edge cuts its ends straight off, so that its ink is as wide there as this share of
# its pen. A one that was cut out along its outline has round ends, or no room at all.
STRAIGHT: Final = 0.15
ROOM_BESIDE: Final = 0.15
LITTLE_ROOM: Final = 0.01
CUT_OFF: Final = 0.88


def reason(ink: Mask) -> RejectReason | None:
    """Say why ink, bool [height, width], is not that of one digit; None where its shape does not tell.

    A stroke's length is half its outline.
    """
    if not ink.any():
        return RejectReason.BLANK
    box = ink[geometry.box(ink)]
    height, width = box.shape
    strokes = geometry.outline(box) / 2
    if strokes > LONGEST_STROKES * max(box.shape):
        return RejectReason.NOT_A_DIGIT
    parts = _parts(box)
    if len(parts) > MOST_PARTS or _is_line(ink, box):
        return RejectReason.NOT_A_DIGIT
    if _are_comparable(parts):
        return RejectReason.SEVERAL
    begun = np.count_nonzero(box[:, 0]) + np.count_nonzero(box[:, 1:] > box[:, :-1])
    if strokes > MOST_STROKES * height or begun > MOST_IN_ROW * height:
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
    n, y, x, yy, yx, xx = geometry.moments(box)
    down, across, both = ((n * square - product) / n**2 for square, product in ((yy, y * y), (xx, x * x), (yx, y * x)))
    middle, reach = (down + across) / 2, math.hypot((down - across) / 2, both)
    lean = abs(math.degrees(math.atan2(2 * both, down - across))) / 2
    if middle - reach > (BAR if lean > LYING else STRAIGHT) ** 2 * (middle + reach):
        return False
    if lean > LYING:
        return True
    room = max(whole - side for side, whole in zip(box.shape, ink.shape, strict=True)) / max(box.shape)
    leaves = sum(bool(side.any()) for side in (ink[0], ink[-1], ink[:, 0], ink[:, -1]))
    pen = math.sqrt(12 * max(middle - reach, 0))  # the width of a bar of that deviation
    cut_off = room > LITTLE_ROOM and _exits(ink, math.radians(lean), CUT_OFF * pen) >= 2
    return cut_off or (room > ROOM_BESIDE and leaves >= 2)


def _exits(ink: Mask, lean: float, width: float) -> int:
    """Count the runs of ink along the picture's edge, around its corners, where a stroke of that width goes on outside.

    The stroke leans by `lean` radians from the vertical, so that the edges cut it aslant.
    """
    edges = (ink[0, :-1], ink[:-1, -1], ink[-1, :0:-1], ink[:0:-1, 0])
    ring = np.concatenate(edges)
    across = np.concatenate(
        [np.full(len(edge), turn) for edge, turn in zip(edges, [math.cos(lean), math.sin(lean)] * 2, strict=True)]
    )
    start = int(ring.argmin())  # so that no run goes over the end
    runs = label(np.roll(ring, -start)[np.newaxis])[0]
    return int(np.count_nonzero(np.bincount(runs, np.roll(across, -start))[1:] >= width))
