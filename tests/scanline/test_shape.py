"""What the ink of a picture tells: one digit, several, or something else."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from scanline import Reader, RejectReason, samples
from scanline.preprocess import steps
from scanline.samples.draw import draw
from tests.scanline.pictures import Pixels, inverted, saved

PENS = (0.05, 0.1, 0.16)


def reason(picture: Image.Image | Pixels) -> RejectReason | None:
    return steps(saved(picture)).reason


def page(points: list[tuple[float, float]], width: int) -> Image.Image:
    """Draw one stroke on white paper."""
    picture = Image.new("L", (200, 200), 255)
    ImageDraw.Draw(picture).line(points, fill=0, width=width)
    return picture


@pytest.mark.parametrize("digit", range(10))
@pytest.mark.parametrize("pen", PENS)
@pytest.mark.parametrize("side", [28, 64, 300])
def test_a_digit_is_a_digit(digit: int, pen: float, side: int) -> None:
    assert reason(inverted(draw(digit, (side, side), height=0.7, pen=pen))) is None


def test_the_samples_are_digits() -> None:
    assert [steps(file).reason for file in samples.files()] == [None] * len(samples.files())


@pytest.mark.parametrize("angle", range(-45, 50, 15))
def test_a_slanted_one_is_a_digit(angle: int) -> None:
    picture = draw(1, (200, 200), height=0.6, pen=0.1).rotate(angle)
    assert reason(inverted(picture)) is None


def test_a_one_cut_out_along_its_edges_is_a_digit() -> None:
    picture = Image.new("L", (40, 200))
    ImageDraw.Draw(picture).line((5, 0, 34, 199), fill=255, width=12)
    assert reason(picture) is None


@pytest.mark.parametrize("digit", range(10))
def test_a_digit_in_hairlines_is_a_digit(digit: int) -> None:
    assert reason(inverted(draw(digit, (300, 300), height=0.7, pen=0.02))) is None


@pytest.mark.parametrize("lean", [25, 35, 45])
def test_a_slanted_one_cut_out_along_its_edges_is_a_digit(lean: int) -> None:
    ink = draw(1, (200, 200), height=0.6, pen=0.1).rotate(lean)
    assert reason(inverted(ink.crop(ink.getbbox()))) is None


@pytest.mark.parametrize("first", range(10))
@pytest.mark.parametrize("gap", [4, 40])
def test_two_digits_beside_each_other_are_several(first: int, gap: int) -> None:
    inks = [draw(digit, (100, 140), height=0.7, pen=0.1) for digit in (first, (first + 3) % 10)]
    left, right = (ink.crop(ink.getbbox()) for ink in inks)
    both = Image.new("L", (left.width + right.width + gap + 60, 160))
    both.paste(left, (30, 30))
    both.paste(right, (30 + left.width + gap, 34))
    assert reason(inverted(both)) is RejectReason.SEVERAL


def test_zeros_that_touch_are_several() -> None:
    ink = draw(0, (100, 140), height=0.7, pen=0.1)
    ink = ink.crop(ink.getbbox())
    row = Image.new("L", (3 * ink.width + 40, 160))
    for place in range(3):
        row.paste(ink, (20 + place * (ink.width - 3), 30))
    assert reason(inverted(row)) is RejectReason.SEVERAL


def test_a_broken_stroke_is_one_digit() -> None:
    for digit in (0, 4, 5, 7):
        picture = draw(digit, (200, 200), height=0.7, pen=0.1)
        ImageDraw.Draw(picture).line((0, 100, 200, 100), fill=0, width=3)
        assert reason(inverted(picture)) is None


NOISE = np.random.default_rng(0)
BLACK, WHITE = np.uint8(0), np.uint8(255)
ROW, COLUMN = np.indices((180, 180))


@pytest.mark.parametrize(
    "picture",
    [
        NOISE.integers(0, 256, (150, 150), dtype=np.uint8),
        np.clip(NOISE.normal(128, 40, (90, 120)), 0, 255).astype(np.uint8),
        np.where(NOISE.random((100, 100)) < 0.1, BLACK, WHITE),
        np.where((ROW + COLUMN) % 12 < 6, BLACK, WHITE),
        np.where((ROW // 10 + COLUMN // 10) % 2, BLACK, WHITE),
        np.where((ROW % 14 < 4) & (abs(COLUMN - 90) < 80), BLACK, WHITE),
        np.where((ROW % 20 - 9) ** 2 + (COLUMN % 20 - 9) ** 2 < 25, BLACK, WHITE),
        page([(20 + 150 * (k % 2), 10 + 12 * k) for k in range(15)], 6),
        page([(30, 100), (170, 120)], 9),
        page([(120, 0), (80, 199)], 9),
        page([(220, -10), (0, 210)], 9),
        page([(150, -10), (50, 210)], 30).crop((32, 0, 172, 200)),
        page([(80, 85), (130, 118)], 13),
        page([(70, 160), (80, 40), (120, 160), (130, 40)], 5),
    ],
    ids=[
        "uniform",
        "normal",
        "pepper",
        "stripes",
        "checks",
        "ruled",
        "dots",
        "scribble",
        "dash",
        "line through",
        "diagonal",
        "line through a narrow picture",
        "thick dash",
        "zigzag",
    ],
)
def test_what_no_one_would_write_is_no_digit(picture: Image.Image | Pixels) -> None:
    assert reason(picture) is RejectReason.NOT_A_DIGIT


def test_a_reason_reaches_the_prediction() -> None:
    noise = saved(NOISE.integers(0, 256, (150, 150), dtype=np.uint8))
    answer = Reader().classify(noise)[0]
    assert (answer.status, answer.reason) == ("rejected", RejectReason.NOT_A_DIGIT)
