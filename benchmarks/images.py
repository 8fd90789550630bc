"""How much is lost between a picture of a digit and the network: `python benchmarks/images.py [--model PATH]`.

Every picture is encoded as a file and read back through scanline.Reader, as a user's would be. What changes from line
to line is how it was drawn on its page; the first line of MNIST is its own pixels, with no file in between. MNIST's
test images are had as `scanline train` has them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from rich.table import Table
from sklearn.datasets import load_digits

from benchmarks.ending import end_with
from scanline import Reader, console
from train.data import load
from train.settings import Settings

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]
# Draws ink, uint8 [height, width] with 255 for ink, into a file; takes a source of chance as well.
Case = Callable[[Pixels, np.random.Generator], bytes]

PAGE: Final = (190, 240)


def main() -> None:
    """Measure what the command line asks for and print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", type=Path, help="model file, folder, or edge or accurate; by default edge")
    options.add_argument("--images", type=int, help="how many of MNIST's test images to take; all by default")
    given = options.parse_args()
    console.out.print(measure(given.model, given.images))


def measure(model: Path | None, count: int | None) -> Table:
    """Measure a model in every case, on so many of MNIST's images or all of them."""
    mnist = load(["mnist"], Settings(out=Path()).data_dir)  # first: it may not be there
    table = Table("data", "drawn as", "files", "right", "rejected", "ms a file")
    with Reader(model) as reader:
        digits = load_digits()
        images = np.rint(digits.images * 255 / 16).astype(np.uint8)
        for row in _measure(reader, images, digits.target, UCI):
            table.add_row("scikit-learn's digits", *row)
        images, labels = mnist.test_images[:count], mnist.test_labels[:count]
        for row in [_read(reader, "pixels, no file", images, labels), *_measure(reader, images, labels, MNIST)]:
            table.add_row("MNIST's test set", *row)
    return table


def _measure(reader: Reader, images: Pixels, labels: Labels, cases: dict[str, Case]) -> Iterator[tuple[str, ...]]:
    for name, draw in cases.items():
        chance = np.random.default_rng(0)
        yield _read(reader, name, [draw(image, chance) for image in images], labels)


def _read(reader: Reader, name: str, images: Sequence[bytes] | Pixels, labels: Labels) -> tuple[str, ...]:
    started = time.perf_counter()
    answers = reader.classify(images)
    took = (time.perf_counter() - started) / len(images)
    right = np.mean([answer.digit == label for answer, label in zip(answers, labels, strict=True)])
    rejected = np.mean([answer.rejected for answer in answers])
    return name, f"{len(images):,}", f"{right:.2%}", f"{rejected:.2%}", f"{took * 1000:.2f}"


def _saved(picture: NDArray[np.float64] | Pixels, form: str = "PNG") -> bytes:
    buffer = BytesIO()
    Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(buffer, form, quality=60)
    return buffer.getvalue()


def _scaled(ink: Pixels, factor: int) -> Pixels:
    height, width = ink.shape
    return np.asarray(Image.fromarray(ink).resize((width * factor, height * factor), Image.Resampling.BICUBIC))


def _on_page(ink: Pixels, chance: np.random.Generator) -> Pixels:
    ink = _scaled(ink, 3)
    page = np.zeros(PAGE, np.uint8)
    top, left = (int(chance.integers(0, room - side + 1)) for room, side in zip(PAGE, ink.shape, strict=True))
    page[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return page


def _on_grey_paper(ink: Pixels, chance: np.random.Generator) -> NDArray[np.float64]:
    """Dark ink on paper whose brightness runs from 110 to 225 in any direction."""
    rows, columns = np.mgrid[-0.5 : 0.5 : ink.shape[0] * 1j, -0.5 : 0.5 : ink.shape[1] * 1j]
    angle = chance.uniform(0, 2 * np.pi)
    paper = 110 + 115 * ((np.cos(angle) * rows + np.sin(angle) * columns) / np.sqrt(2) + 0.5)
    covered = ink / 255
    return np.asarray(paper * (1 - covered) + 30 * covered)


def _in_shadow(ink: Pixels, chance: np.random.Generator) -> NDArray[np.float64]:
    """Dark ink on light paper, a part of which a straight edge keeps the light from: 40 to 75 % of it is left there."""
    rows, columns = np.mgrid[-0.5 : 0.5 : ink.shape[0] * 1j, -0.5 : 0.5 : ink.shape[1] * 1j]
    angle, place = chance.uniform(0, 2 * np.pi), chance.uniform(-0.25, 0.25)
    depth = np.clip((np.cos(angle) * rows + np.sin(angle) * columns - place) / 0.01, 0, 1)  # the edge is 1 % wide
    light = 1 - depth * chance.uniform(0.25, 0.6)
    return np.asarray((225 - 195 * (ink / 255)) * light)


def _under_a_lamp(ink: Pixels, chance: np.random.Generator) -> NDArray[np.float64]:
    """Dark ink on light paper under a lamp that leaves the corners farthest from it with 40 to 70 % of its light."""
    rows, columns = np.mgrid[-0.5 : 0.5 : ink.shape[0] * 1j, -0.5 : 0.5 : ink.shape[1] * 1j]
    distance = np.hypot(rows - chance.uniform(-0.3, 0.3), columns - chance.uniform(-0.3, 0.3))
    light = 1 - chance.uniform(0.3, 0.6) * (distance / distance.max()) ** 2
    return np.asarray((235 - 205 * (ink / 255)) * light)


def _on_a_table(ink: Pixels, chance: np.random.Generator) -> NDArray[np.float64]:
    """Dark ink on a light sheet that lies up to 12 degrees askew on a darker table with a grain."""
    angle = chance.uniform(-12, 12)
    covered, sheet = (
        np.asarray(Image.fromarray(part).rotate(angle, Image.Resampling.BICUBIC, expand=True)) / 255
        for part in (ink, np.full(ink.shape, 255, np.uint8))
    )
    height, width = sheet.shape
    # what is seen beyond the sheet's box, or how much of the box is cut off, up to the ink's own margin
    top, bottom, left, right = chance.integers(-10, 40, 4)
    rows, columns = np.mgrid[-top : height + bottom, -left : width + right]
    grain = np.sin((columns + 20 * np.sin(rows / 30)) * chance.uniform(0.1, 0.5))
    table = chance.uniform(20, 120) + chance.uniform(0, 15) * grain
    reach = ((max(top, 0), max(bottom, 0)), (max(left, 0), max(right, 0)))
    begin, end = (max(-top, 0), max(-left, 0)), (height - max(-bottom, 0), width - max(-right, 0))
    covered, sheet = (np.pad(part[begin[0] : end[0], begin[1] : end[1]], reach) for part in (covered, sheet))
    return np.asarray(table * (1 - sheet) + sheet * (225 - 185 * covered))


def _marked(ink: Pixels, chance: np.random.Generator) -> Pixels:
    """Three ruled lines, a frame and six specks on white paper."""
    page = 255 - ink
    height, width = page.shape
    for row in chance.integers(8, height - 8, 3):
        page[row : row + 2] = np.minimum(page[row : row + 2], 120)
    for row, column in zip(chance.integers(0, height - 3, 6), chance.integers(0, width - 3, 6), strict=True):
        page[row : row + 3, column : column + 3] = 0
    return np.pad(page, 5)


def _boxed(ink: Pixels, chance: np.random.Generator) -> Image.Image:
    """In the slanted box of a form, which the digit does not touch."""
    picture = Image.fromarray(255 - np.pad(_scaled(ink, 3), 30))
    slant = int(chance.integers(-3, 4))
    corners = [(22, 22 + slant), (122 - slant, 22), (122, 122 - slant), (22 + slant, 122)]
    ImageDraw.Draw(picture).line([*corners, corners[0]], fill=40, width=2)
    return picture


def _eroded(ink: Pixels, by: int) -> Image.Image:
    return Image.fromarray(_scaled(ink, 4)).filter(ImageFilter.MinFilter(by))


def _tight(ink: Pixels) -> Pixels:
    rows, columns = np.nonzero(ink)
    return _scaled(ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1], 3)


UCI: Final[dict[str, Case]] = {
    "8x8, dark on light": lambda ink, _: _saved(255 - ink),
    "8x8, light on dark": lambda ink, _: _saved(ink),
    "32x32 (bicubic), JPEG 60": lambda ink, _: _saved(255 - _scaled(ink, 4), "JPEG"),
}
MNIST: Final[dict[str, Case]] = {
    "28x28 as it is": lambda ink, _: _saved(ink),
    "inverted": lambda ink, _: _saved(255 - ink),
    "inverted, 3 times as large, JPEG 60": lambda ink, _: _saved(255 - _scaled(ink, 3), "JPEG"),
    "off-centre on a larger page": lambda ink, chance: _saved(255 - _on_page(ink, chance)),
    "the same on grey paper with a gradient, JPEG 60": lambda ink, chance: _saved(
        _on_grey_paper(_on_page(ink, chance), chance), "JPEG"
    ),
    "the same under a lamp, JPEG 60": lambda ink, chance: _saved(_under_a_lamp(_on_page(ink, chance), chance), "JPEG"),
    "the same in a hard-edged shadow, JPEG 60": lambda ink, chance: _saved(
        _in_shadow(_on_page(ink, chance), chance), "JPEG"
    ),
    "the same on a sheet askew on a table, JPEG 60": lambda ink, chance: _saved(
        _on_a_table(_on_page(ink, chance), chance), "JPEG"
    ),
    "the same on ruled paper with a frame and specks": lambda ink, chance: _saved(
        _marked(_on_page(ink, chance), chance)
    ),
    "in a form's box": lambda ink, chance: _saved(np.asarray(_boxed(ink, chance))),
    "noise (sigma 20 of 255)": lambda ink, chance: _saved(
        255.0 - _on_page(ink, chance) + chance.normal(0, 20, PAGE), "PNG"
    ),
    "cut out along its edges": lambda ink, _: _saved(255 - _tight(ink)),
    "thin pen (1.5 pixels of 28 taken off)": lambda ink, _: _saved(255 - np.asarray(_eroded(ink, 7))),
}


if __name__ == "__main__":
    end_with(main)
