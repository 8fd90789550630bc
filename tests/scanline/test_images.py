"""What a program may hand over as an image, and what becomes of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from PIL import Image

from scanline import Reader, images
from scanline.errors import InputError
from scanline.images import items, pages
from scanline.preprocess import to_rows
from scanline.samples import files
from scanline.samples.draw import draw

NOBODY = 65534
FILE = files()[0]
CONTENT = FILE.read_bytes()


@pytest.mark.parametrize("one", [FILE, str(FILE), CONTENT], ids=lambda one: type(one).__name__)
def test_a_file_is_its_bytes_alone_or_in_a_list(one: Path | str | bytes) -> None:
    assert [item.encoded for item in items(one)] == [CONTENT]
    assert [item.encoded for item in items([one, one])] == [CONTENT, CONTENT]


def test_an_open_file_is_read() -> None:
    with FILE.open("rb") as file:
        assert [item.encoded for item in items(file)] == [CONTENT]
    assert [item.encoded for item in items([BytesIO(CONTENT)])] == [CONTENT]


def test_an_array_is_passed_on_as_pixels() -> None:
    stack = np.arange(3 * 784, dtype=np.int64).astype(np.uint8).reshape(3, 28, 28)
    for given in (stack, [stack], list(stack), iter(stack)):
        found = [item.pixels for item in items(given)]
        assert len(found) == 3
        assert all(
            np.array_equal(pixels, right) for pixels, right in zip(found, stack, strict=True) if pixels is not None
        )
    (single,) = items(stack[1])
    assert single.pixels is not None
    assert single.pixels.shape == (28, 28)
    assert list(items(stack[:0])) == []


def test_a_slice_of_an_array_becomes_contiguous() -> None:
    wide = np.zeros((2, 28, 56), np.uint8)
    assert all(item.pixels is not None and item.pixels.flags.c_contiguous for item in items(wide[:, :, ::2]))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_a_pillow_image_reads_as_its_file_would(mode: str) -> None:
    picture = Image.eval(draw(5, (60, 80), height=0.7, pen=0.1), lambda ink: 255 - ink).convert(mode)
    (item,) = items(picture)
    assert item.encoded is not None
    assert np.array_equal(to_rows(item.encoded), to_rows(picture))
    assert to_rows(picture).any()


def test_a_pillow_image_is_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    draw(3, (2000, 1500), height=0.7, pen=0.1).save(path)
    with Image.open(path) as picture:
        list(items(picture))
        assert picture.size == (2000, 1500)


def test_forms_may_be_mixed_and_keep_their_order() -> None:
    blank = np.zeros((2, 28, 28), np.uint8)
    kinds = [
        "pixels" if item.pixels is not None else "encoded" if item.encoded is not None else "error"
        for item in items([FILE, blank, "nowhere.png", CONTENT])
    ]
    assert kinds == ["encoded", "pixels", "pixels", "error", "encoded"]


def test_a_file_that_cannot_be_read_is_an_error_of_its_own(tmp_path: Path) -> None:
    missing, folder, null, fine = items([tmp_path / "none.png", tmp_path, "a\0b.png", FILE])
    assert missing.error == f"can't read {tmp_path / 'none.png'}: No such file or directory"
    assert folder.error == f"can't read {tmp_path}: it is a folder, not a file"
    assert null.error is not None
    assert "null" in null.error
    assert fine.encoded == CONTENT


def test_a_file_without_end_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scanline.files.MAX_FILE_BYTES", 2**20)
    pipe = tmp_path / "pipe.tif"
    os.mkfifo(pipe)
    with Path("/dev/zero").open("rb") as zeros:
        device, waiting, endless, fine = items(["/dev/zero", pipe, zeros, FILE])
    assert device.error == "can't read /dev/zero: it is a pipe, a socket or a device, not a file"
    assert waiting.error == f"can't read {pipe}: it is a pipe, a socket or a device, not a file"
    assert endless.error == "can't read /dev/zero: it is larger than 1 MiB"
    assert fine.encoded == CONTENT
    assert list(pages(pipe)) == [(str(pipe), pipe)]


def test_a_name_is_taken_as_it_is() -> None:
    of_a_folder, of_nothing = items([f"{FILE}/", ""])
    assert of_a_folder.error == f"can't read {FILE}/: Not a directory"
    assert of_nothing.error == "can't read : No such file or directory"


def test_a_closed_file_is_an_error_of_its_own() -> None:
    closed = BytesIO(CONTENT)
    closed.close()
    lost, fine = items([closed, FILE])
    assert lost.error == "can't read the file: I/O operation on closed file."
    assert fine.encoded == CONTENT


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_of_any_kind_are_a_file(kind: type[bytes]) -> None:
    assert [item.encoded for item in items(kind(CONTENT))] == [CONTENT]
    assert [item.encoded for item in items([kind(CONTENT), FILE])] == [CONTENT, CONTENT]


def test_a_digit_s_folder_that_cant_be_read_is_an_error() -> None:
    with TemporaryDirectory() as name:  # not pytest's, which is its user's alone
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "3").mkdir(mode=0)
        if root := os.geteuid() == 0:  # who may read every folder
            os.seteuid(NOBODY)
        try:
            with pytest.raises(PermissionError, match="3"):
                images.labelled(folder)
        finally:
            if root:
                os.seteuid(0)


def test_a_damaged_pillow_image_is_an_error_of_its_own() -> None:
    with Image.open(BytesIO(CONTENT[: len(CONTENT) // 2])) as cut:
        damaged, fine = items([cut, FILE])
    assert damaged.error is not None
    assert damaged.error.startswith("the image is damaged or cut short")
    assert fine.encoded == CONTENT


def test_files_are_read_when_their_item_is_asked_for(tmp_path: Path) -> None:
    paths = [tmp_path / "first.png", tmp_path / "second.png"]
    paths[0].write_bytes(CONTENT)
    stream = items(iter(paths))
    assert next(stream).encoded == CONTENT
    paths[1].write_bytes(CONTENT)
    assert next(stream).encoded == CONTENT


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (7, "not int"),
        ([None], "not NoneType"),
        ([[FILE]], "not list"),
        (np.zeros((28, 28), np.float32), r"not float32 of shape \[28, 28\]"),
        (np.zeros((64, 48), np.uint8), r"not uint8 of shape \[64, 48\]; any other picture goes as Image.fromarray"),
        (np.zeros((2, 28, 27), np.uint8), r"not uint8 of shape \[2, 28, 27\]"),
        (np.zeros(784, np.uint8), r"not uint8 of shape \[784\]"),
        (np.zeros((1, 1, 28, 28), np.uint8), r"not uint8 of shape \[1, 1, 28, 28\]"),
        (StringIO("text"), "binary mode"),
        (TextIOWrapper(BytesIO(CONTENT), encoding="utf-8"), "binary mode"),
    ],
    ids=[
        "a number",
        "nothing",
        "a list in a list",
        "floats",
        "a larger picture",
        "27 columns",
        "flat",
        "four axes",
        "a text file",
        "an image opened as text",
    ],
)
def test_what_can_only_be_a_mistake_is_raised(wrong: images.Image, words: str) -> None:
    with pytest.raises(InputError, match=words):
        list(items(wrong))


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # which is what it says of itself
def test_a_matrix_is_an_array() -> None:
    pixels = np.arange(784, dtype=np.uint8).reshape(28, 28)
    (item,) = items(np.asmatrix(pixels))
    assert item.pixels is not None
    assert (item.pixels.shape, type(item.pixels)) == ((28, 28), np.ndarray)
    assert item.pixels.tolist() == pixels.tolist()


def test_pillow_is_loaded_only_for_pillow_images() -> None:
    code = (
        "import sys; from scanline.images import items; import numpy as np;"
        f"list(items([{str(FILE)!r}, np.zeros((28, 28), np.uint8)])); print('PIL' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


def book(*sheets: Image.Image) -> bytes:
    buffer = BytesIO()
    sheets[0].save(buffer, "TIFF", save_all=True, append_images=sheets[1:])
    return buffer.getvalue()


SHEETS = [draw(digit, (60, 80), height=0.7, pen=0.1) for digit in (3, 1, 4)]


@pytest.mark.parametrize("name", ["scan.TIF", "scan", "scan.0001"])
def test_a_tiff_s_pages_are_images_of_their_own(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(book(*SHEETS))
    found = dict(pages(path))
    assert list(found) == [f"{path}[1]", f"{path}[2]", f"{path}[3]"]
    (whole,), each = items(path), list(items(found.values()))
    assert whole.encoded is not None
    with pytest.raises(InputError, match="several pages"):
        to_rows(whole.encoded)
    for item, sheet in zip(each, SHEETS, strict=True):
        assert item.encoded is not None
        assert np.array_equal(to_rows(item.encoded), to_rows(sheet))


def test_a_damaged_page_is_an_error_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "scan.tif"
    buffer = BytesIO()
    SHEETS[0].save(buffer, "TIFF", save_all=True, append_images=SHEETS[1:], compression="tiff_deflate")
    content = bytearray(buffer.getvalue())
    with Image.open(buffer) as stored:
        stored.seek(1)
        (start,), (length,) = stored.tag_v2[273], stored.tag_v2[279]  # type: ignore[attr-defined] # a TIFF's own
    content[start : start + length] = bytes(length)
    path.write_bytes(content)
    first, second, third = (next(items(page)) for _, page in pages(path))
    assert first.encoded
    assert third.encoded
    assert second.error is not None
    assert second.error.startswith("the image is damaged or cut short")


def test_the_pages_before_the_damage_are_read(tmp_path: Path) -> None:
    path = tmp_path / "scan.tif"
    content = book(*SHEETS)
    with Image.open(BytesIO(content)) as stored:
        stored.seek(2)
        (start,) = stored.tag_v2[273]  # type: ignore[attr-defined] # a TIFF's own
    path.write_bytes(content[: start - 100])  # in the third page's tags
    (_, first), (_, second), (name, third) = pages(path)
    for page, sheet in ((first, SHEETS[0]), (second, SHEETS[1])):
        (item,) = items(page)
        assert item.encoded is not None
        assert np.array_equal(to_rows(item.encoded), to_rows(sheet))
    assert name == f"{path}[3]"
    assert next(items(third)).error is not None
    assert str(next(items(third)).error).startswith("the image is damaged or cut short")


@pytest.mark.filterwarnings("ignore::UserWarning")  # as outside of tests, where scanline.decode sees to it
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_no_page_is_lost_in_silence_wherever_the_file_is_cut(tmp_path: Path, compression: str) -> None:
    path, buffer = tmp_path / "scan.tif", BytesIO()
    small = [sheet.resize((6, 8)) for sheet in SHEETS]
    small[0].save(buffer, "TIFF", save_all=True, append_images=small[1:], compression=compression)
    content = buffer.getvalue()
    with Reader() as reader:
        for length in range(len(content) + 1):
            path.write_bytes(content[:length])
            answers = reader.classify(image for _, image in pages(path))
            assert len(answers) == len(SHEETS) or answers[-1].error


@pytest.mark.parametrize("content", [book(SHEETS[0]), b"", b"II*\0", b"no TIFF", CONTENT])
def test_any_other_file_is_one_image(tmp_path: Path, content: bytes) -> None:
    for name in ("one.tif", "one.png"):
        path = tmp_path / name
        path.write_bytes(content)
        assert list(pages(path)) == [(str(path), path)]
    assert list(pages(tmp_path / "none.tif")) == [(str(tmp_path / "none.tif"), tmp_path / "none.tif")]


def test_an_endless_iterable_is_no_trouble() -> None:
    def forever() -> Iterator[bytes]:
        while True:
            yield CONTENT

    stream = items(forever())
    assert next(stream).encoded == next(stream).encoded == CONTENT
