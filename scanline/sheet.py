"""The sheet of paper in a picture that shows some of what it lies on, such as a darker table."""

from __future__ import annotations

from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from scanline import paper
from scanline.geometry import Mask, Pixels, box, grown
from scanline.levels import otsu
from scanline.strokes import GRID, label

# A sheet covers at least this share of the picture.
SMALLEST: Final = 0.12
# Around it there is no more that is as light, in shares of its own area: strips of a ruled page are no sheets.
MOST_LIGHT_AROUND: Final = 0.1
# It is a polygon of so few corners, four of its own and four where the picture cuts them off, but for this share of its
# area. A round shape, such as a bold 0 in chalk, has more.
MOST_CORNERS: Final = 8
ROUNDED: Final = 0.02
# This share of it is paper in one piece. A digit's loops hold more, which counts where nearly all along the outline is
# paper: then half of it all is enough. A digit in chalk may be as light within its outline, but not along it.
LEAST_PAPER: Final = 0.75
LEAST_WITH_LOOPS: Final = 0.5
LEAST_ALONG_OUTLINE: Final = 0.9

Point = tuple[int, int]


class Sheet(NamedTuple):
    """A sheet cut out of a picture.

    Attributes:
        picture: uint8 [height, width], with paper where the sheet does not reach.
        rim: bool [height, width], what lies along the sheet's edge, but not along the picture's.
    """

    picture: Pixels
    rim: Mask


def cut_out(picture: Pixels) -> Sheet | None:
    """Cut a sheet that is lighter than what it lies on out of a grey picture, uint8 [height, width].

    It is sought on a grid, and cut two cells inside its outline, which may be blurred or cast a shadow. Where it lies
    askew, what is left of its surroundings gets the paper's brightness (scanline.paper).

    Returns:
        None where no light part of the picture is a polygon, or the picture shows nothing else.
    """
    factor = -(-max(picture.shape) // GRID)
    within = _shrunk(_shrunk(_found(np.asarray(Image.fromarray(picture).reduce(factor)))))
    rim = within & ~_shrunk(within)
    within[[0, -1]] = within[:, [0, -1]] = False  # where a sliver of the table may be too small to be seen on the grid
    if not within.any() or not rim.any():
        return None
    rows, columns = (slice(side.start * factor, side.stop * factor) for side in box(within))
    cut = picture[rows, columns]
    known, edge = (
        cells.repeat(factor, axis=0).repeat(factor, axis=1)[rows, columns][: cut.shape[0], : cut.shape[1]]
        for cells in (within, rim)
    )
    ground = np.rint(paper.fitted(cut, known)).clip(0, 255).astype(np.uint8)
    return Sheet(np.where(known, cut, ground), edge)


def _found(picture: Pixels) -> Mask:
    """Give the sheet in a small picture, the ink on it included; nothing where there is none."""
    light = picture > otsu(picture)
    none = np.zeros_like(light)
    if np.count_nonzero(light) < SMALLEST * light.size:
        return none
    parts = label(light)
    seen = parts == np.bincount(parts[light]).argmax()
    corners = _hull(seen)
    if len(corners) < 3 or not _are_few(corners):
        return none
    drawn = Image.new("1", (light.shape[1], light.shape[0]))
    ImageDraw.Draw(drawn).polygon(corners, fill=1)
    whole: Mask = np.asarray(drawn)
    area = np.count_nonzero(whole)
    second = _shrunk(whole)  # a slanting edge is half table
    along = light[second & ~_shrunk(second)]
    outlined = np.count_nonzero(along) >= LEAST_ALONG_OUTLINE * along.size
    with_loops = outlined and np.count_nonzero(light & whole) >= LEAST_WITH_LOOPS * area
    alone = np.count_nonzero(light & ~whole) <= MOST_LIGHT_AROUND * area
    return whole if alone and (with_loops or np.count_nonzero(seen) >= LEAST_PAPER * area) else none


def _shrunk(mask: Mask) -> Mask:
    """Take away the pixels at the mask's edge; the picture's own edge is none."""
    return ~grown(~mask)


def _hull(mask: Mask) -> list[Point]:
    """Give the corners of a mask's convex hull, as (column, row), clockwise as one sees it (Andrew 1979)."""
    rows = np.flatnonzero(mask.any(axis=1))
    first = mask[rows].argmax(axis=1)
    last = mask.shape[1] - 1 - mask[rows, ::-1].argmax(axis=1)
    right = _turning(list(zip(last.tolist(), rows.tolist(), strict=True)))
    left = _turning(list(zip(first.tolist(), rows.tolist(), strict=True))[::-1])
    return list(dict.fromkeys(right + left))


def _turning(points: list[Point]) -> list[Point]:
    """Keep of a line of points those at which it turns right."""
    kept: list[Point] = []
    for point in points:
        while len(kept) > 1 and _doubled(kept[-2], kept[-1], point) <= 0:
            kept.pop()
        kept.append(point)
    return kept


def _are_few(corners: list[Point]) -> bool:
    """Tell whether MOST_CORNERS make the same shape, but for a share of ROUNDED.

    Those whose triangles are smallest are left out first (Visvalingam and Whyatt 1993).
    """
    spare = ROUNDED * sum(_doubled(corners[0], *pair) for pair in pairwise(corners))
    while len(corners) > MOST_CORNERS and spare >= 0:
        areas = [_doubled(corners[k - 1], corners[k], corners[(k + 1) % len(corners)]) for k in range(len(corners))]
        least = int(np.argmin(areas))
        spare -= areas[least]
        corners = corners[:least] + corners[least + 1 :]
    return spare >= 0


def _doubled(one: Point, two: Point, three: Point) -> int:
    """Give twice the area of a triangle, more than 0 where its corners turn right as one sees them."""
    return (two[0] - one[0]) * (three[1] - two[1]) - (two[1] - one[1]) * (three[0] - two[0])
