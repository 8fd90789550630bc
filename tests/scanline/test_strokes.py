"""Ruled lines, frames, specks and hairlines, through the files that show them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from scanline.samples.draw import draw
from scanline.strokes import label
from tests.scanline.pictures import SAME, Pixels, difference, rows_of

SIZE = (150, 120)


def page(digit: int, pen: float = 0.1) -> Pixels:
    """A digit in black on white, uint8 [120, 150]."""
    return 255 - np.asarray(draw(digit, SIZE, height=0.5, pen=pen, at=(0.45, 0.5)))


def with_frame(picture: Pixels) -> Pixels:
    return np.pad(picture, 4)


def with_a_form_s_box(picture: Pixels) -> Pixels:
    sheet = Image.fromarray(picture)
    corners = [(20, 12), (118, 15), (116, 110), (18, 107)]  # a slanted one
    ImageDraw.Draw(sheet).line([*corners, corners[0]], fill=0, width=2)
    return np.asarray(sheet)


def with_a_thick_frame_and_a_margin(picture: Pixels) -> Pixels:
    """As a photograph's on a white page, beside whose ink the digit's is a speck."""
    return np.pad(np.pad(picture, 45), 45, constant_values=255)


def with_an_edge_on_one_side(picture: Pixels) -> Pixels:
    return np.pad(picture, ((0, 0), (0, 5)))


def with_ruled_lines(picture: Pixels) -> Pixels:
    picture = picture.copy()
    for row in (12, 40, 69, 98):  # two of them cross the digit
        picture[row : row + 2] = np.minimum(picture[row : row + 2], 90)
    return picture


def with_squared_paper(picture: Pixels) -> Pixels:
    picture = picture.copy()
    picture[5::23] = np.minimum(picture[5::23], 110)
    picture[:, 7::23] = np.minimum(picture[:, 7::23], 110)
    return picture


def with_specks(picture: Pixels) -> Pixels:
    picture = picture.copy()
    for row, column in ((3, 3), (110, 140), (8, 130), (100, 10)):
        picture[row : row + 3, column : column + 3] = 0
    return picture


@pytest.mark.parametrize("digit", range(10))
@pytest.mark.parametrize(
    "spoiled",
    [
        with_frame,
        with_a_form_s_box,
        with_a_thick_frame_and_a_margin,
        with_an_edge_on_one_side,
        with_ruled_lines,
        with_squared_paper,
        with_specks,
    ],
    ids=lambda function: function.__name__.removeprefix("with_"),
)
def test_what_is_not_the_digit_s_is_taken_out(digit: int, spoiled: object) -> None:
    assert callable(spoiled)
    # left in, any of them would make the ink box the whole page and the digit half as large
    assert difference(rows_of(spoiled(page(digit))), rows_of(page(digit))) < SAME


@pytest.mark.parametrize("digit", [2, 4, 5, 7])
def test_a_digit_s_own_bar_stays(digit: int) -> None:
    picture = Image.fromarray(255 - page(digit))
    tight = 255 - np.asarray(picture.crop(picture.getbbox()))
    assert difference(rows_of(tight), rows_of(page(digit))) < SAME


def test_a_picture_of_a_line_alone_keeps_it() -> None:
    picture = np.full((60, 60), 255, np.uint8)
    picture[28:31] = 0
    assert rows_of(picture).any()


def test_a_zero_with_a_speck_inside_is_not_a_frame() -> None:
    picture = page(0)
    picture[55:63, 65:73] = 0
    assert difference(rows_of(picture), rows_of(page(0))) < SAME


def test_both_parts_of_a_broken_digit_stay() -> None:
    picture = page(5)
    whole = rows_of(picture)
    picture[60:64] = 255
    assert difference(rows_of(picture), whole) < SAME


@pytest.mark.parametrize("digit", range(10))
def test_a_hairline_reads_as_a_pen_s_stroke(digit: int) -> None:
    thin = 255 - np.asarray(draw(digit, (400, 300), height=0.8, pen=0.012))
    wide = 255 - np.asarray(draw(digit, (400, 300), height=0.8, pen=0.11))
    rows, usual = rows_of(thin), rows_of(wide)
    assert 0.6 < rows.sum() / usual.sum() < 1.1
    assert difference(rows, usual) < SAME


def test_a_usual_pen_is_left_as_it_is() -> None:
    thin, wide = (rows_of(page(8, pen)) for pen in (0.12, 0.2))
    assert thin.sum() < 0.8 * wide.sum()


@settings(deadline=None)  # how long it takes is the machine's affair
@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_parts_are_what_a_walk_reaches(mask: NDArray[np.bool_]) -> None:
    labels = label(mask)
    assert np.array_equal(labels > 0, mask)
    left = set(zip(*(places.tolist() for places in np.nonzero(mask)), strict=True))
    found = 0
    while left:
        found += 1
        first = left.pop()
        reached, edge = {first}, [first]
        while edge:
            row, column = edge.pop()
            near = {(row + down, column + across) for down in (-1, 0, 1) for across in (-1, 0, 1)} & left
            left -= near
            reached |= near
            edge += near
        assert len({int(labels[place]) for place in reached}) == 1
        assert np.count_nonzero(labels == labels[first]) == len(reached)
    assert labels.max(initial=0) == found
