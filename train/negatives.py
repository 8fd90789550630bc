"""Made-up images of no digit, from which a network learns to say so (Hendrycks et al. 2019, arXiv:1812.04606).

What cameras, forms and people give besides digits: noise, textures, blots, lines, scribbles, letters, several digits at
once, and digits whose quarters have changed places, which have a digit's strokes and none of its shape. Half of them
are brought to MNIST's form, as an image file would be, the rest are as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from scanline.contract import COLUMNS, ROWS
from scanline.preprocess import BOX_LEVEL, normalise

Pixels = NDArray[np.uint8]

CANVAS: Final = 84  # pixels a side of what is drawn, reduced to 28 in the end
# matplotlib's fonts. DejaVu's stay unused: their letters are what the reject option is measured on.
FONTS: Final = ("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "cmb10", "cmr10", "cmss10", "cmti10", "cmtt10")
LETTERS: Final = "ACEFHKMNPRTUVWXYacdefhkmnprtuvwxy"  # without those that are drawn like a digit
UPRIGHT: Final = 35  # degrees: a line closer to the vertical is a one


def draw(count: int, digits: Pixels, seed: int) -> Pixels:
    """Draw negatives of all kinds in equal parts.

    Args:
        count: how many.
        digits: uint8 [n, 28, 28], of which some are made.
        seed: the same seed gives the same images.

    Returns:
        uint8 [count, 28, 28], 0 for background to 255 for ink.
    """
    generator = np.random.default_rng(seed)
    images = np.empty((count, ROWS, COLUMNS), np.uint8)
    for index in range(count):
        image = KINDS[index % len(KINDS)](generator, digits)
        as_file = generator.random() < 0.5 and image.max() >= BOX_LEVEL
        images[index] = normalise(image) if as_file else _reduced(image)
    return images


def kind_of(index: int) -> str:
    """Name the kind of the image of that number, such as ``scribble``."""
    return KINDS[index % len(KINDS)].__name__


def noise(generator: Generator, _: Pixels) -> Pixels:
    """Independent values on a grid of 3 to 28 cells a side, dense or sparse, grey or black and white."""
    cells = int(generator.integers(3, ROWS + 1))
    values = generator.random((cells, cells)) ** generator.choice([0.3, 1, 3, 10])
    if generator.random() < 0.3:
        values = (values > generator.uniform(0.1, 0.9)).astype(float)
    smooth = generator.choice([Image.Resampling.NEAREST, Image.Resampling.BICUBIC])
    return np.asarray(Image.fromarray(_levels(values)).resize((ROWS, ROWS), smooth))


def texture(generator: Generator, _: Pixels) -> Pixels:
    """One plane wave or the product of two: stripes, checks, slow changes of brightness."""
    y, x = np.mgrid[-1 : 1 : ROWS * 1j, -1 : 1 : COLUMNS * 1j]
    waves = np.ones((ROWS, COLUMNS))
    for _wave in range(generator.integers(1, 3)):
        angle, periods = generator.uniform(0, np.pi), generator.uniform(0.2, 7)
        waves *= np.sin(np.pi * periods * (x * np.cos(angle) + y * np.sin(angle)) + generator.uniform(0, 2 * np.pi))
    if generator.random() < 0.5:
        waves = np.sign(waves)
    low, high = np.sort(generator.random(2))
    return _levels(low + (high - low) * (waves + 1) / 2)


def blot(generator: Generator, _: Pixels) -> Pixels:
    """A filled shape, up to all of the image; one in eight is blank."""
    if generator.random() < 1 / 8:
        return np.zeros((ROWS, COLUMNS), np.uint8)
    image, pencil = _canvas()
    ink = int(generator.integers(60, 256))
    corners = generator.uniform(-0.3, 1.3, (2, 2)) * CANVAS
    (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    match generator.integers(3):
        case 0:
            pencil.rectangle((left, top, right, bottom), fill=ink)
        case 1:
            pencil.ellipse((left, top, right, bottom), fill=ink)
        case _:
            pencil.polygon([tuple(corner) for corner in (generator.uniform(-0.2, 1.2, (5, 2)) * CANVAS).tolist()], ink)
    return np.asarray(image)


def lines(generator: Generator, _: Pixels) -> Pixels:
    """One to six straight lines; a single one is not upright."""
    image, pencil = _canvas()
    count = int(generator.integers(1, 7))
    for _line in range(count):
        angle = generator.uniform(UPRIGHT, 180 - UPRIGHT) if count == 1 else generator.uniform(0, 180)
        middle, half = generator.uniform(0.2, 0.8, 2) * CANVAS, generator.uniform(0.15, 0.8) * CANVAS
        along = half * np.array([np.sin(np.radians(angle)), np.cos(np.radians(angle))])
        ends = np.concatenate([middle - along, middle + along]).tolist()
        pencil.line(ends, fill=255, width=int(generator.integers(3, 13)))
    return np.asarray(image)


def scribble(generator: Generator, _: Pixels) -> Pixels:
    """One stroke that wanders through many points."""
    image, pencil = _canvas()
    points = generator.uniform(0.1, 0.9, (int(generator.integers(10, 24)), 2)) * CANVAS
    times = np.linspace(0, len(points) - 1, 12 * len(points))
    path = np.stack([np.interp(times, np.arange(len(points)), points[:, axis]) for axis in (0, 1)], axis=1)
    window = np.hanning(13) / np.hanning(13).sum()
    smooth = np.stack([np.convolve(path[:, axis], window, "valid") for axis in (0, 1)], axis=1)
    pencil.line(smooth.flatten().tolist(), fill=255, width=int(generator.integers(4, 11)), joint="curve")
    return np.asarray(image)


def letter(generator: Generator, _: Pixels) -> Pixels:
    """A letter in one of matplotlib's fonts, with strokes up to a marker's."""
    image, pencil = _canvas()
    font = _font(str(generator.choice(FONTS)))
    middle, pen = (CANVAS // 2, CANVAS // 2), int(generator.integers(0, 5))
    pencil.text(middle, str(generator.choice(list(LETTERS))), 255, font, anchor="mm", stroke_width=pen)
    return np.asarray(image)


def several(generator: Generator, digits: Pixels) -> Pixels:
    """Two or three digits beside each other, apart or touching."""
    chosen = digits[generator.integers(len(digits), size=generator.choice([2, 2, 3]))]
    beside = np.zeros((ROWS + 6, len(chosen) * (COLUMNS + 8)), np.uint8)
    right = 0
    for digit in chosen:
        ink = digit[:, digit.any(axis=0)]
        top, left = int(generator.integers(0, 7)), max(0, right + int(generator.integers(-4, 7)))
        place = beside[top : top + ROWS, left : left + ink.shape[1]]
        np.maximum(place, ink, out=place)
        right = left + ink.shape[1]
    return beside[:, : max(right, 1)]  # where all of them are blank, blank too, but an image


def shuffled(generator: Generator, digits: Pixels) -> Pixels:
    """A digit whose quarters have changed places."""
    digit = digits[generator.integers(len(digits))]
    half = ROWS // 2
    quarters = [digit[y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
    turn = int(generator.integers(1, len(quarters)))
    a, b, c, d = quarters[turn:] + quarters[:turn]
    return np.block([[a, b], [c, d]])


KINDS: Final[tuple[Callable[[Generator, Pixels], Pixels], ...]] = (
    noise, texture, blot, lines, scribble, letter, letter, several, several, shuffled,
)  # fmt: skip


def _reduced(image: Pixels) -> Pixels:
    if image.shape == (ROWS, COLUMNS):
        return image
    return np.asarray(Image.fromarray(image).resize((COLUMNS, ROWS), Image.Resampling.BOX))


def _levels(shares: NDArray[np.floating[Any]]) -> Pixels:
    levels: Pixels = np.rint(shares * 255).astype(np.uint8)
    return levels


def _canvas() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("L", (CANVAS, CANVAS))
    return image, ImageDraw.Draw(image)


@cache
def _font(name: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf", CANVAS * 2 // 3)
