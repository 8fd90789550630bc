"""Draws the sample images: `python -m scanline.samples.draw FOLDER`.

Each digit is a few strokes of a round pen through hand-placed points; each file shows another kind of picture that the
project reads. The samples are drawn so that they can be given away: they hold nobody's handwriting and no data set.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from scanline.samples import NAMES

Point = tuple[float, float]
Colour = tuple[int, int, int]

# Points (x, y) of each stroke, y downwards, in a box of 100 x 100; the pen follows a Catmull-Rom spline through them.
STROKES: Final[tuple[tuple[tuple[Point, ...], ...], ...]] = (
    (((52, 6), (33, 16), (24, 44), (28, 76), (48, 93), (68, 82), (77, 52), (70, 20), (50, 6)),),
    (((40, 24), (55, 8), (53, 50), (49, 94)),),
    (((25, 26), (38, 9), (62, 10), (71, 28), (58, 54), (24, 90)), ((24, 90), (50, 88), (79, 91))),
    (((26, 14), (50, 6), (70, 20), (62, 38), (42, 46), (66, 52), (76, 70), (58, 91), (24, 87)),),
    (((40, 8), (33, 32), (23, 56)), ((23, 56), (50, 57), (82, 53)), ((66, 10), (62, 50), (59, 94))),
    (((36, 10), (32, 28), (28, 45)), ((28, 45), (52, 40), (73, 56), (66, 82), (44, 92), (22, 84)), ((36, 10), (74, 8))),
    (((66, 8), (44, 24), (29, 54), (30, 82), (50, 94), (69, 80), (66, 60), (48, 54), (31, 70)),),
    (((22, 14), (48, 13), (78, 10)), ((78, 10), (62, 42), (46, 94))),
    (((68, 20), (50, 6), (31, 20), (42, 42), (62, 58), (70, 78), (50, 94), (30, 78), (40, 58), (60, 40), (68, 20)),),
    (((68, 26), (52, 8), (32, 20), (34, 42), (52, 46), (67, 30), (69, 20)), ((69, 22), (66, 60), (58, 94))),
)
OVERSAMPLING: Final = 4
BLACK: Final = (20, 20, 24)
WHITE: Final = (255, 255, 255)


def draw(digit: int, size: tuple[int, int], *, height: float, pen: float, at: Point = (0.5, 0.5)) -> Image.Image:
    """Draw a digit's ink, mode "L", 255 for ink.

    Args:
        digit: 0 to 9.
        size: width and height of the picture, in pixels.
        height: the digit's share of the picture's height.
        pen: the stroke's share of the digit's height.
        at: the middle of the digit, in shares of width and height.
    """
    width_px, height_px = (side * OVERSAMPLING for side in size)
    picture = Image.new("L", (width_px, height_px))
    pencil = ImageDraw.Draw(picture)
    scale, radius = height * height_px / 100, pen * height * height_px / 2
    left, top = at[0] * width_px - 50 * scale, at[1] * height_px - 50 * scale
    for points in STROKES[digit]:
        for x, y in _spline(np.array(points, dtype=np.float64)) * scale + (left, top):
            pencil.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return picture.resize(size, Image.Resampling.BOX)


def _spline(points: NDArray[np.float64]) -> NDArray[np.float64]:
    padded = np.concatenate([points[:1], points, points[-1:]])
    t = np.linspace(0, 1, 60, endpoint=False)[:, None]
    parts = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False)
    ]
    return np.concatenate([*parts, points[-1:]])


def _painted(ink: Image.Image, colour: Colour, paper: Colour) -> Image.Image:
    return Image.composite(Image.new("RGB", ink.size, colour), Image.new("RGB", ink.size, paper), ink)


def _photographed(picture: Image.Image, seed: int) -> Image.Image:
    """Darken towards one corner, tint as a lamp does, and add a sensor's noise."""
    noise = np.random.default_rng(seed).normal(0, 4, (picture.height, picture.width, 1))
    light = np.linspace(1, 0.72, picture.width)[None, :, None] * np.linspace(1, 0.8, picture.height)[:, None, None]
    lamp = np.array([1.0, 0.95, 0.86])
    return Image.fromarray(np.clip(np.asarray(picture) * light * lamp + noise, 0, 255).astype(np.uint8))


def samples() -> dict[str, Image.Image]:
    """Give every sample under its file name."""
    two = Image.new("RGBA", (90, 120), (*BLACK, 0))
    two.putalpha(draw(2, two.size, height=0.8, pen=0.1))
    return {
        "zero-dark-on-light.png": Image.eval(draw(0, (96, 128), height=0.8, pen=0.1), lambda ink: 255 - ink),
        "one-light-on-dark.png": draw(1, (60, 60), height=0.7, pen=0.12),
        "two-transparent.png": two,
        "two-chalk.jpg": _photographed(_painted(draw(2, (200, 160), height=0.7, pen=0.09), WHITE, (40, 70, 55)), 1),
        "three-photo.jpg": _photographed(
            _painted(draw(3, (360, 270), height=0.6, pen=0.09, at=(0.45, 0.55)), BLACK, (235, 232, 225)), 2
        ),
        "four-thick.bmp": _painted(draw(4, (64, 64), height=0.8, pen=0.17), BLACK, WHITE),
        "five-blue-ink.jpg": _painted(draw(5, (140, 180), height=0.6, pen=0.09), (40, 70, 190), (250, 249, 244)),
        "six-tiny.png": Image.eval(draw(6, (12, 16), height=0.9, pen=0.14), lambda ink: 255 - ink),
        "seven-palette.png": _painted(
            draw(7, (100, 100), height=0.7, pen=0.1), (150, 30, 40), (255, 250, 220)
        ).quantize(16),
        "seven-bits.png": draw(7, (70, 90), height=0.7, pen=0.1).point(lambda ink: 255 * (ink < 128), mode="1"),
        "eight-grey-paper.bmp": draw(8, (80, 100), height=0.8, pen=0.1).point(lambda ink: 190 - ink // 2),
        "nine-off-centre.png": Image.eval(
            draw(9, (400, 300), height=0.25, pen=0.1, at=(0.8, 0.3)), lambda ink: 255 - ink
        ),
    }


def main(folder: Path) -> None:
    """Write every sample into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in samples().items():
        assert name.partition("-")[0] in NAMES
        picture.save(folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
