"""A digit on a sheet of paper, photographed with some of the darker table that the sheet lies on."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from scanline.prediction import RejectReason
from scanline.preprocess import steps, to_rows
from scanline.samples.draw import draw
from tests.scanline.pictures import SAME, Pixels, difference, inverted, rows_of, saved

PAPER = 225
INK = 40
DRAWN = [draw(digit, (150, 120), height=0.5, pen=0.1) for digit in range(10)]


def photographed(ink: Image.Image, *, table: Pixels, askew: float = 0.0, place: tuple[int, int] = (30, 30)) -> Pixels:
    """A sheet, turned by so many degrees, on a table; its place is that of its box's corner, (column, row)."""
    sheet = Image.eval(ink, lambda level: PAPER - (PAPER - INK) * level // 255)
    whole = Image.new("L", sheet.size, 255)
    turned, shape = (
        part.rotate(askew, Image.Resampling.BICUBIC, expand=True, fillcolor=fill)
        for part, fill in ((sheet, PAPER), (whole, 0))
    )
    picture = Image.fromarray(table)
    picture.paste(turned, place, shape)
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(0.7)))


def plain(level: int) -> Pixels:
    return np.asarray(Image.new("L", (240, 200), level))


def grained() -> Pixels:
    """Planks, each with a grain of its own."""
    rows, columns = np.indices((200, 240))
    planks = 45 + 20 * (columns // 40 % 3)
    return np.asarray(planks + 12 * np.sin(rows / 9 + 6 * np.sin(columns / 30)), np.uint8)


@pytest.mark.parametrize("askew", [-12.0, -3.0, 0.0, 7.0])
@pytest.mark.parametrize("table", [plain(20), plain(100), grained()], ids=["black", "grey", "grained"])
def test_the_table_around_a_sheet_is_no_ink(askew: float, table: Pixels) -> None:
    for ink in DRAWN:
        turned = ink.rotate(askew, Image.Resampling.BICUBIC)
        assert difference(rows_of(photographed(ink, table=table, askew=askew)), rows_of(turned)) < SAME


@pytest.mark.parametrize("place", [(-10, 30), (100, 30), (30, -10), (30, 90), (-10, -10), (100, 90)])
def test_the_sheet_may_reach_out_of_the_picture(place: tuple[int, int]) -> None:
    for ink in DRAWN:
        assert difference(rows_of(photographed(ink, table=plain(60), askew=4, place=place)), rows_of(ink)) < SAME


@pytest.mark.parametrize("digit", [0, 6, 8, 9])
def test_paper_in_the_loops_of_a_bold_digit_is_the_sheet_s(digit: int) -> None:
    """On a sheet not much larger than the digit, where the paper around it is hardly more than half of all."""
    ink = draw(digit, (120, 150), height=0.72, pen=0.16)
    assert difference(rows_of(photographed(ink, table=plain(60), place=(60, 20))), rows_of(ink)) < SAME


def test_an_empty_sheet_is_blank() -> None:
    empty = Image.new("L", (200, 200))
    assert steps(saved(photographed(empty, table=plain(60), place=(60, -5)))).reason is RejectReason.BLANK


def test_a_digit_in_chalk_is_no_sheet() -> None:
    """However bold; the hole of a 0 is no digit on it, nor are the parts of a board that a 1 leaves."""
    for digit in range(10):
        ink = draw(digit, (120, 120), height=0.85, pen=0.3)
        assert difference(rows_of(ink), rows_of(inverted(ink))) < SAME


def test_strips_of_a_ruled_page_are_no_sheets() -> None:
    ink = draw(5, (60, 90), height=0.8, pen=0.1)
    page = Image.new("L", (240, 200), 255)
    page.paste(inverted(ink), (90, 15))
    lines = ImageDraw.Draw(page)
    for row in (20, 60, 100):
        lines.line([(0, row), (240, row)], fill=90, width=3)
    lines.rectangle([50, 150, 54, 154], fill=0)  # a speck, alone in the widest strip
    assert difference(rows_of(page), rows_of(ink)) < SAME


def test_a_box_in_chalk_is_no_sheet() -> None:
    ink = draw(5, (200, 160), height=0.5, pen=0.1)
    board = Image.eval(ink, lambda level: 60 + level * 190 // 255)
    shapes = ImageDraw.Draw(board)
    shapes.rectangle([30, 20, 170, 140], outline=250, width=8)
    shapes.rectangle([50, 60, 56, 90], fill=20)  # where the board is wet
    assert difference(rows_of(board), rows_of(ink)) < SAME


@settings(deadline=None)  # how long it takes is the machine's affair
@given(
    cells=st.lists(st.lists(st.integers(0, 255), min_size=3, max_size=3), min_size=1, max_size=4),
    enlarged=st.integers(1, 60),
)
def test_any_patchwork_gives_rows(cells: list[list[int]], enlarged: int) -> None:
    picture = np.array(cells, np.uint8).repeat(enlarged, axis=0).repeat(enlarged, axis=1)
    assert to_rows(saved(picture)).shape == (28, 28)


def test_a_sheet_gives_the_same_pixels_everywhere() -> None:
    rows = to_rows(saved(photographed(DRAWN[5], table=plain(60)), "TIFF"))
    assert hashlib.sha256(rows.tobytes()).hexdigest()[:16] == "85ecf08f7572d699"
