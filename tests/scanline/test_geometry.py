"""What is counted over pixels, against the plain way of counting it."""

from __future__ import annotations

import numpy as np
import pytest

from scanline import geometry, paper

CHANCE = np.random.default_rng(0)


def test_moments_are_sums_of_whole_numbers() -> None:
    weights = CHANCE.integers(0, 255, (40, 50))
    rows, columns = np.mgrid[:40, :50]
    assert geometry.moments(weights) == (
        weights.sum(),
        (weights * rows).sum(),
        (weights * columns).sum(),
        (weights * rows**2).sum(),
        (weights * rows * columns).sum(),
        (weights * columns**2).sum(),
    )


def test_a_box_holds_the_mask_and_nothing_more() -> None:
    mask = np.zeros((20, 30), bool)
    mask[3, 7] = mask[9, 21] = True
    assert geometry.box(mask) == (slice(3, 10), slice(7, 22))


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (9, 9)])
def test_the_plane_of_lit_paper_is_found_though_ink_touches_the_border(shape: tuple[int, int]) -> None:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    lit = 40 + 0.5 * rows + 0.25 * columns
    brightness = np.rint(lit).astype(np.uint8)
    brightness[: shape[0] // 3, shape[1] // 2] = 250
    assert np.abs(paper.plane(brightness) - lit).max() < 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1)])
def test_the_plane_of_a_single_line_is_level(shape: tuple[int, int]) -> None:
    assert np.array_equal(paper.plane(np.full(shape, 7, np.uint8)), np.full(shape, 7.0))


@pytest.mark.parametrize(("levels", "median"), [([3], 3), ([3, 4], 3.5), ([0, 0, 9], 0), ([1, 2, 200, 255], 101)])
def test_the_paper_s_level_is_the_median_of_the_border(levels: list[int], median: float) -> None:
    assert paper.level(np.array([levels], np.uint8)) == median


@pytest.mark.parametrize("shape", [(1, 1), (4, 50), (37, 23), (40, 64)])
def test_opening_is_the_largest_of_the_smallest_of_each_window(shape: tuple[int, int]) -> None:
    brightness = CHANCE.integers(0, 256, shape).astype(np.uint8)
    half = round(min(shape) * paper.WIDEST_STROKE / 2)
    windows = {
        extreme: np.full((shape[0] + 2 * half, shape[1] + 2 * half), outside, np.uint8)
        for extreme, outside in ((np.min, 255), (np.max, 0))
    }
    found = brightness
    for extreme, padded in windows.items():
        padded[half : half + shape[0], half : half + shape[1]] = found
        around = np.lib.stride_tricks.sliding_window_view(padded, (2 * half + 1, 2 * half + 1))
        found = extreme(around, axis=(2, 3))
    assert np.array_equal(paper.opened(brightness), found)
