"""From a picture of a digit to what the network sees, by MNIST's own procedure."""

from __future__ import annotations

import gzip
import hashlib
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from scanline.preprocess import in_normal_form, to_rows
from scanline.samples import files
from scanline.samples.draw import draw, samples
from tests.scanline.pictures import SAME, Pixels, difference, inverted, rows_of, saved

DRAWN = [draw(digit, (60, 80), height=0.75, pen=0.1) for digit in range(10)]


def box(rows: Pixels) -> tuple[int, int]:
    """Height and width of the ink."""
    return tuple(int(np.ptp(places)) + 1 for places in np.nonzero(rows))  # type: ignore[return-value] # two axes


def centre(rows: Pixels) -> tuple[float, float]:
    weights = rows / rows.sum()
    return float(weights.sum(axis=1) @ np.arange(28)), float(weights.sum(axis=0) @ np.arange(28))


@settings(deadline=None)  # how long it takes is the machine's affair
@example(digit=7, width=96, height=30, share=0.75, pen=0.0625, light=False)
@given(
    digit=st.integers(0, 9),
    width=st.integers(30, 200),
    height=st.integers(30, 200),
    share=st.floats(0.3, 0.9),
    pen=st.floats(0.06, 0.2),
    light=st.booleans(),
)
def test_the_result_is_in_mnist_s_form_and_stays_as_it_is(
    digit: int, width: int, height: int, share: float, pen: float, light: bool
) -> None:
    ink = draw(digit, (width, height), height=share * min(width, height) / height, pen=pen)
    rows = rows_of(ink if light else inverted(ink))
    assert rows.shape == (28, 28)
    assert rows.dtype == np.uint8
    assert max(box(rows)) == 20
    assert rows.max() == 255
    if rows[[0, -1]].any() or rows[:, [0, -1]].any():
        return  # so top-heavy that its centre of mass could come to (14, 14) only outside the picture
    assert all(abs(place - 14) <= 0.5 for place in centre(rows))
    assert in_normal_form(rows)
    assert np.array_equal(rows_of(rows), rows)


def test_dark_on_light_and_light_on_dark_are_the_same() -> None:
    for ink in DRAWN:
        assert difference(rows_of(inverted(ink)), rows_of(ink)) < SAME


@pytest.mark.parametrize("scale", [0.4, 3, 10])
def test_the_size_of_the_picture_does_not_matter(scale: float) -> None:
    for digit, ink in enumerate(DRAWN):
        size = round(60 * scale), round(80 * scale)
        rows = rows_of(inverted(draw(digit, size, height=0.75, pen=0.1)))
        assert difference(rows, rows_of(ink)) < SAME


def test_the_place_on_the_page_does_not_matter() -> None:
    for digit, ink in enumerate(DRAWN):
        page = draw(digit, (300, 240), height=0.25, pen=0.1, at=(0.8, 0.7))
        assert difference(rows_of(inverted(page)), rows_of(ink)) < SAME


def test_the_aspect_is_kept() -> None:
    height, width = box(rows_of(DRAWN[1]))
    assert height == 20
    assert width < 10
    height, width = box(rows_of(DRAWN[1].rotate(90, expand=True)))
    assert width == 20
    assert height < 10


def test_strokes_keep_their_grey_edges() -> None:
    rows = rows_of(inverted(DRAWN[8]))
    assert 0.2 < ((rows > 0) & (rows < 255)).sum() / (rows > 0).sum() < 0.9


def test_uneven_paper_is_taken_away() -> None:
    for digit, ink in enumerate(DRAWN):
        covered = np.asarray(draw(digit, (200, 160), height=0.5, pen=0.1)) / 255
        paper = np.linspace(110, 225, 200)[None, :] - np.linspace(0, 40, 160)[:, None]
        photo = Image.fromarray((paper * (1 - covered) + 30 * covered).astype(np.uint8))
        assert difference(rows_of(photo), rows_of(ink)) < SAME


def shadowed(ink: Image.Image, angle: float, left: float = 0.5) -> Image.Image:
    """Dark ink on light paper, half of which lies in a shadow with a hard edge where `left` of the light is left."""
    covered = np.asarray(ink) / 255
    rows, columns = np.indices(covered.shape)
    beyond = np.cos(angle) * (rows - ink.height / 2) + np.sin(angle) * (columns - ink.width / 2) > 4
    return Image.fromarray(((225 - 195 * covered) * np.where(beyond, left, 1.0)).astype(np.uint8))


@pytest.mark.parametrize("angle", [0.0, 0.7, 2.0, 3.1, 4.2, 5.5])
@pytest.mark.parametrize("left", [0.55, 0.7])
def test_a_hard_edged_shadow_is_no_ink(angle: float, left: float) -> None:
    for digit, ink in enumerate(DRAWN):
        picture = shadowed(draw(digit, (200, 160), height=0.5, pen=0.1), angle, left)
        assert difference(rows_of(picture), rows_of(ink)) < SAME


def test_a_lamp_s_light_is_taken_away() -> None:
    for digit, ink in enumerate(DRAWN):
        covered = np.asarray(draw(digit, (200, 160), height=0.5, pen=0.1)) / 255
        rows, columns = np.indices(covered.shape)
        light = 1 - 0.5 * ((rows - 60) ** 2 + (columns - 130) ** 2) / 140**2 / 2
        photo = Image.fromarray(((235 - 205 * covered) * light).astype(np.uint8))
        assert difference(rows_of(photo), rows_of(ink)) < SAME


@pytest.mark.parametrize(
    ("ink", "paper"),
    [((40, 60, 200), (250, 250, 245)), ((255, 240, 0), (255, 255, 255)), ((220, 60, 60), (60, 150, 60))],
    ids=["blue on white", "yellow on white", "red on green"],
)
def test_coloured_ink_is_seen(ink: tuple[int, int, int], paper: tuple[int, int, int]) -> None:
    for drawn in DRAWN:
        picture = Image.composite(Image.new("RGB", drawn.size, ink), Image.new("RGB", drawn.size, paper), drawn)
        assert difference(rows_of(picture), rows_of(drawn)) < 2


def test_a_digit_may_touch_the_frame() -> None:
    for ink in DRAWN:
        tight = ink.crop(ink.getbbox())
        assert difference(rows_of(inverted(tight)), rows_of(ink)) < SAME


def test_noise_and_weak_contrast_do_no_harm() -> None:
    noise = np.random.default_rng(0).normal(0, 5, (80, 60))
    for ink in DRAWN:
        weak = Image.fromarray(np.clip(200 - np.asarray(ink) * 0.25 + noise, 0, 255).astype(np.uint8))
        assert difference(rows_of(weak), rows_of(ink)) < SAME


@pytest.mark.parametrize("level", [0, 17, 128, 255])
@pytest.mark.parametrize("size", [(28, 28), (1, 1), (1, 300), (300, 1), (640, 480)])
def test_a_blank_picture_is_no_error(level: int, size: tuple[int, int]) -> None:
    assert not rows_of(Image.new("L", size, level)).any()
    assert not rows_of(Image.new("RGBA", size, (level, level, level, 0))).any()


def test_a_scanner_s_noise_is_blank() -> None:
    paper = np.random.default_rng(0).integers(240, 255, (100, 100)).astype(np.uint8)
    assert not rows_of(paper).any()


@pytest.mark.parametrize("size", [(1, 9), (9, 1), (2, 2), (3, 700), (700, 3)])
def test_odd_shapes_are_no_trouble(size: tuple[int, int]) -> None:
    picture = Image.new("L", size, 255)
    picture.putpixel((size[0] // 2, size[1] // 2), 0)
    assert rows_of(picture).shape == (28, 28)


def normal(shift: tuple[int, int] = (0, 0), size: int = 20) -> Pixels:
    """A cross whose centre of mass is (14, 14) where its size is odd."""
    rows = np.zeros((28, 28), np.uint8)
    top, left = 14 - size // 2 + shift[0], 14 - size // 2 + shift[1]
    rows[top : top + size, 14 + shift[1]] = 200
    rows[14 + shift[0], left : left + size] = 200
    return rows


def test_mnist_s_form_passes_through_unchanged() -> None:
    assert in_normal_form(normal())
    assert np.array_equal(rows_of(normal()), normal())
    coloured = Image.fromarray(normal()).convert("RGB")
    assert np.array_equal(rows_of(coloured), normal())


@pytest.mark.parametrize(
    "other",
    [255 - normal(), normal(size=21), normal(shift=(1, 0)), normal(shift=(0, -1)), np.pad(normal(), 1)],
    ids=["dark on light", "longer than 20", "too low", "too far left", "30x30"],
)
def test_any_other_form_is_brought_to_it(other: Pixels) -> None:
    assert not in_normal_form(other)
    rows = rows_of(other)
    assert in_normal_form(rows)
    assert not np.array_equal(rows, other)


def test_half_a_pixel_off_is_still_mnist_s_form() -> None:
    rows = np.zeros((28, 28), np.uint8)
    rows[5:25, 13:15] = 255  # rows 5 to 24 have their centre at 14.5, columns 13 and 14 at 13.5
    assert centre(rows) == pytest.approx((14.5, 13.5))
    assert np.array_equal(rows_of(rows), rows)


@pytest.mark.skipif("SCANLINE_DATA" not in os.environ, reason="needs MNIST: SCANLINE_DATA names no folder")
def test_mnist_is_in_mnist_s_form() -> None:
    content = gzip.decompress((Path(os.environ["SCANLINE_DATA"]) / "t10k-images-idx3-ubyte.gz").read_bytes())
    images = np.frombuffer(content, np.uint8, offset=16).reshape(-1, 28, 28)
    assert len(images) == 10_000
    assert all(in_normal_form(image) for image in images)


# SHA-256 of the 28x28 pixels, first 16 digits. JPEG is left out: its decoding is free in the last bit.
GOLDEN = {
    "zero-dark-on-light.png": "97973638a9a966c4",
    "one-light-on-dark.png": "522bb6b059b13e91",
    "two-transparent.png": "90e90d6aadce28bc",
    "four-thick.bmp": "35d423a2be681158",
    "six-tiny.png": "268930282744a02e",
    "seven-bits.png": "fd66918afe2ea45a",
    "seven-palette.png": "2a58655b3871f468",
    "eight-grey-paper.bmp": "41bcc60a1e22aac9",
    "nine-off-centre.png": "83edd6f3b6c65ff8",
}


@pytest.mark.parametrize("file", [file for file in files() if file.suffix != ".jpg"], ids=lambda file: file.name)
def test_the_same_file_gives_the_same_pixels_everywhere(file: Path) -> None:
    assert hashlib.sha256(to_rows(file).tobytes()).hexdigest()[:16] == GOLDEN[file.name]


def test_a_shadow_gives_the_same_pixels_everywhere() -> None:
    rows = to_rows(saved(shadowed(draw(5, (200, 160), height=0.5, pen=0.1), angle=0.7), "TIFF"))
    assert hashlib.sha256(rows.tobytes()).hexdigest()[:16] == "32f89bc002f82e07"


def test_the_samples_are_what_their_script_draws() -> None:
    drawn = samples()
    assert sorted(drawn) == sorted(file.name for file in files())
    for file in files():
        with Image.open(file) as stored:
            seen, right = np.asarray(stored.convert("RGBA"), int), np.asarray(drawn[file.name].convert("RGBA"), int)
            assert np.abs(seen - right).mean() <= (3 if file.suffix == ".jpg" else 0)


def test_the_steps_can_be_looked_at(tmp_path: Path) -> None:
    file = next(file for file in files() if file.name == "three-photo.jpg")
    line = [sys.executable, "-m", "scanline", "preprocess", str(file), "--out", str(tmp_path / "new")]
    result = subprocess.run(line, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"written to {tmp_path / 'new' / 'three-photo-steps.png'}\n"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["three-photo-steps.png"]
    with Image.open(tmp_path / "new" / "three-photo-steps.png") as sheet:
        last = np.asarray(sheet.convert("L"))[40:320, 620:900]  # the third panel, ten times as large
    assert np.array_equal(last[::10, ::10], to_rows(file))


def test_steps_of_a_blank_page_say_why_it_is_rejected(tmp_path: Path) -> None:
    Image.new("L", (200, 100), 255).save(tmp_path / "page.png")
    line = [sys.executable, "-m", "scanline", "preprocess", str(tmp_path / "page.png"), "--out", str(tmp_path)]
    result = subprocess.run(line, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("rejected as blank: nothing in the picture stands out from its paper\n")
    assert (tmp_path / "page-steps.png").is_file()


@pytest.mark.parametrize(
    ("file", "out", "code", "words"),
    [
        ("none.png", "new", 1, "can't read none.png"),
        (__file__, "new", 1, f"{__file__}: the file's format can't be read"),
        (str(files()[0]), "taken", 2, "-steps.png is a folder; the picture would have its name"),
    ],
)
def test_steps_that_cannot_be_shown_say_why(tmp_path: Path, file: str, out: str, code: int, words: str) -> None:
    (tmp_path / "taken" / f"{files()[0].stem}-steps.png").mkdir(parents=True)
    line = [sys.executable, "-m", "scanline", "preprocess", file, "--out", str(tmp_path / out)]
    result = subprocess.run(line, capture_output=True, text=True, check=False)
    assert result.returncode == code
    assert words in result.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["file", "image", "a"])
def test_steps_name_the_file_whatever_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"garbage")
    line = [sys.executable, "-m", "scanline", "preprocess", name, "--out", "new"]
    result = subprocess.run(line, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {name}: the file's format can't be read; expected PNG")


def test_steps_that_find_no_room_leave_nothing(tmp_path: Path) -> None:
    line = shlex.join([sys.executable, "-m", "scanline", "preprocess", str(files()[0]), "--out", str(tmp_path)])
    full = ["bash", "-c", f"ulimit -f 1; {line}"]  # no file over 1 KiB: to a program as good as a full disk
    result = subprocess.run(full, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (2, f"error: can't write to --out {tmp_path}: File too large\n")
    assert not list(tmp_path.iterdir())
