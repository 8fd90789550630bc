"""Pictures of no single digit, drawn to measure the reject option with.

They differ in kind from those that training makes up (train/negatives.py): other curves, other noises, other fonts,
drawn at a scanner's resolution. A picture is dark on light, uint8 [height, width], of the size asked for; as a file it
may be turned light on dark, with a camera's noise; as raw pixels it is drawn at 28x28 and inverted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Final

import matplotlib as mpl
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from scanline.preprocess import normalise

Pixels = NDArray[np.uint8]
Size = tuple[int, int]  # height, width

FONTS: Final = ("DejaVuSans", "DejaVuSansMono", "DejaVuSerif")
# Without those that look like digits: b B D g G i I j J l L o O q Q s S z Z.
LETTERS: Final = "ACEFHKMNPRTUVWXYacdefhkmnprtuvwxy"
UPRIGHT: Final = 50  # degrees: a line that ends in the picture and is closer to the vertical is a one
OVERSAMPLING: Final = 4


def blank(chance: Generator, size: Size, _: Pixels) -> Pixels:
    """Paper of any brightness, unevenly lit, with a scanner's noise."""
    rows, columns = np.mgrid[-0.5 : 0.5 : size[0] * 1j, -0.5 : 0.5 : size[1] * 1j]
    down, across = chance.uniform(-40, 40, 2) if min(size) > 28 else (0, 0)
    paper = chance.uniform(120, 255) if min(size) > 28 else 255
    return _levels(paper + down * rows + across * columns + chance.normal(0, chance.uniform(0, 3), size))


def white(_: Generator, size: Size, __: Pixels) -> Pixels:
    """Nothing but 255."""
    return np.full(size, 255, np.uint8)


def black(_: Generator, size: Size, __: Pixels) -> Pixels:
    """Nothing but 0."""
    return np.zeros(size, np.uint8)


def noise(chance: Generator, size: Size, _: Pixels) -> Pixels:
    """Normal noise, salt and pepper, or clouds, whose strength falls with their frequency."""
    match chance.integers(3):
        case 0:
            return _levels(chance.uniform(60, 200) + chance.normal(0, chance.uniform(20, 90), size))
        case 1:
            flipped = chance.random(size) < chance.uniform(0.05, 0.5)
            return np.where(flipped, np.uint8(0), np.uint8(255))
        case _:
            frequencies = np.hypot(*np.meshgrid(*(np.fft.fftfreq(side) * side for side in size), indexing="ij"))
            spectrum = np.fft.fft2(chance.normal(size=size)) / np.maximum(frequencies, 1) ** chance.uniform(0.5, 1.5)
            clouds = np.fft.ifft2(spectrum).real
            return _levels(128 + chance.uniform(30, 60) * (clouds - clouds.mean()) / clouds.std())


def texture(chance: Generator, size: Size, _: Pixels) -> Pixels:
    """Dots of a halftone, bricks, rings, hatching, or wood."""
    height, width = size
    rows, columns = np.mgrid[0:height, 0:width] / min(size)
    turn, period = chance.uniform(0, np.pi), chance.uniform(0.08, 0.3)
    along = (columns * np.cos(turn) + rows * np.sin(turn)) / period
    beside = (rows * np.cos(turn) - columns * np.sin(turn)) / period
    share = chance.uniform(0.25, 0.6)
    match chance.integers(5):
        case 0:
            dark = np.hypot(along % 1 - 0.5, beside % 1 - 0.5) < share * 0.7
        case 1:
            row = np.floor(rows / period)
            dark = (rows / period % 1 < share / 2) | ((columns / period / 2 + row % 2 / 2) % 1 < share / 4)
        case 2:
            dark = np.hypot(rows - chance.random(), columns - chance.random()) / period % 1 < share
        case 3:
            dark = (along % 1 < share / 2) | (beside % 1 < share / 2)
        case _:
            dark = (along + 0.3 * np.sin(beside * chance.uniform(0.5, 2))) % 1 < share
    low, high = chance.uniform(0, 80), chance.uniform(150, 255)
    return _levels(np.where(dark, low, high))


def line(chance: Generator, size: Size, _: Pixels) -> Pixels:
    """A line that no one would write as a one: from edge to edge, or lying; or two to five parallel ones."""
    kind = int(chance.integers(3))
    angle = np.radians(chance.uniform(UPRIGHT, 180 - UPRIGHT) if kind == 1 else chance.uniform(0, 180))
    direction = np.array([np.sin(angle), np.cos(angle)])  # x, y
    half = chance.uniform(0.2, 0.45) if kind == 1 else 6.0
    width, grey = chance.uniform(0.02, 0.12), int(chance.integers(0, 120))
    count = int(chance.integers(2, 6)) if kind == 2 else 1
    strokes = []
    for number in range(count):
        middle = np.array([0, 0]) if count > 1 else chance.uniform(-0.15, 0.15, 2)
        middle = middle + direction[::-1] * [1, -1] * (number - (count - 1) / 2) / count
        ends = np.array([middle - half * direction, middle + half * direction])
        strokes.append(0.5 + ends * min(size) / np.array(size[::-1]))
    return _drawn(size, strokes, width if count == 1 else min(width, 0.06), grey)


def scribble(chance: Generator, size: Size, _: Pixels) -> Pixels:
    """A pen that crosses itself: a sum of waves, a hatched patch, or several loose curves."""
    times = np.linspace(0, 1, 400)
    match chance.integers(3):
        case 0:
            angles = np.pi * np.outer(np.arange(2, 8), times)
            sines, cosines = chance.normal(size=(2, 2, len(angles))) / np.arange(2, 8) ** 0.5
            curves = [(sines @ np.sin(angles) + cosines @ np.cos(angles)).T]
        case 1:
            passes = int(chance.integers(6, 12))
            zigzag = np.abs((times * passes) % 2 - 1) * 2 - 1
            turn = chance.uniform(0, np.pi)
            x, y = zigzag + chance.normal(0, 0.04, 400).cumsum() / 6, times * 2 - 1
            curves = [np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], axis=1)]
        case _:
            curves = [
                np.stack([np.polyval(chance.normal(size=4), times * 2 - 1) for _axis in range(2)], axis=1)
                for _curve in range(chance.integers(4, 8))
            ]
    points = np.concatenate(curves)
    low, high = points.min(axis=0), points.max(axis=0)
    curves = [0.1 + 0.8 * (curve - low) / (high - low) for curve in curves]
    return _drawn(size, curves, chance.uniform(0.025, 0.07), int(chance.integers(0, 100)))


def letter(chance: Generator, size: Size, _: Pixels) -> Pixels:
    """A letter of DejaVu Sans, Sans Mono or Serif."""
    sign, name = str(chance.choice(list(LETTERS))), str(chance.choice(FONTS))
    height, width = (side * OVERSAMPLING for side in size)
    picture = Image.new("L", (width, height), 255)
    font = _font(name, round(min(height, width) * chance.uniform(0.5, 0.8)))
    ImageDraw.Draw(picture).text((width / 2, height / 2), sign, int(chance.integers(0, 100)), font, anchor="mm")
    return _reduced(picture, size)


def two_apart(chance: Generator, size: Size, digits: Pixels) -> Pixels:
    """Two digits beside each other with 1 to 14 of MNIST's pixels between them."""
    return _two(chance, size, digits, int(chance.integers(1, 15)))


def two_touching(chance: Generator, size: Size, digits: Pixels) -> Pixels:
    """Two digits beside each other whose boxes touch or overlap by up to 2 of MNIST's pixels."""
    return _two(chance, size, digits, int(chance.integers(-2, 1)))


Kind = Callable[[Generator, Size, Pixels], Pixels]
KINDS: Final[tuple[Kind, ...]] = (
    blank, white, black, noise, texture, line, scribble, two_apart, two_touching, letter,
)  # fmt: skip
# Those that fill a picture: brought to 28x28 they are drawn anew. The others are brought to MNIST's form.
FILLING: Final[tuple[Kind, ...]] = (blank, white, black, noise, texture)


def raw(kind: Kind, chance: Generator, digits: Pixels) -> Pixels:
    """Draw an image in the network's form, uint8 [28, 28], 255 for ink."""
    if kind in FILLING:
        return 255 - kind(chance, (28, 28), digits)
    return normalise(255 - kind(chance, (112, 112), digits))


def file(kind: Kind, chance: Generator, digits: Pixels) -> bytes:
    """Draw an image file: 32 to 400 pixels high, half to twice as wide, PNG or JPEG, a fifth of them light on dark."""
    height = int(chance.integers(32, 400))
    picture = kind(chance, (height, int(height * chance.uniform(0.5, 2))), digits).astype(np.float64)
    if kind not in {white, black}:
        picture = 255 - picture if chance.random() < 0.2 else picture
        picture = 20 + picture * chance.uniform(0.7, 0.9) + chance.normal(0, chance.uniform(0, 4), picture.shape)
    buffer = BytesIO()
    Image.fromarray(_levels(picture)).save(buffer, str(chance.choice(["PNG", "JPEG"])), quality=75)
    return buffer.getvalue()


def _two(chance: Generator, size: Size, digits: Pixels, gap: int) -> Pixels:
    first, second = (_cut(digits[chance.integers(len(digits))]) for _digit in range(2))
    page = np.zeros((32, 32 + first.shape[1] + second.shape[1]), np.uint8)
    left = 8
    for digit in (first, second):
        top = 6 + int(chance.integers(-2, 3))
        place = page[top : top + digit.shape[0], left : left + digit.shape[1]]
        np.maximum(place, digit, out=place)
        left += digit.shape[1] + gap
    page = page[:, : left - gap + 8]
    scale = max(1, min(size) // 40)
    shape = page.shape[1] * scale, page.shape[0] * scale
    return 255 - np.asarray(Image.fromarray(page).resize(shape, Image.Resampling.BICUBIC))


def _cut(digit: Pixels) -> Pixels:
    rows, columns = np.nonzero(digit >= 64)
    return digit[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def _drawn(size: Size, curves: list[NDArray[np.float64]], width: float, grey: int) -> Pixels:
    """Draw curves, float [n, 2] each: x and y in shares of the picture, the pen's width of its shorter side."""
    height_px, width_px = (side * OVERSAMPLING for side in size)
    picture = Image.new("L", (width_px, height_px), 255)
    pen = max(OVERSAMPLING, round(width * min(height_px, width_px)))
    for curve in curves:
        points = (curve * (width_px, height_px)).flatten().tolist()
        ImageDraw.Draw(picture).line(points, fill=grey, width=pen, joint="curve")
    return _reduced(picture, size)


def _reduced(picture: Image.Image, size: Size) -> Pixels:
    return np.asarray(picture.resize(size[::-1], Image.Resampling.BOX))


def _levels(picture: NDArray[np.float64]) -> Pixels:
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


@cache
def _font(name: str, pixels: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf", pixels)
