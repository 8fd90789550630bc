"""From the bytes of an image file to upright pixels, whatever the bytes are."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile

from scanline import Reader
from scanline.decode import MAX_PIXELS, decode
from scanline.errors import InputError
from scanline.preprocess import to_rows
from scanline.samples import files
from scanline.samples.draw import draw
from tests.scanline.pictures import inverted, saved

INK = draw(4, (48, 64), height=0.8, pen=0.12)
DARK_ON_LIGHT = inverted(INK)
REFERENCE = to_rows(DARK_ON_LIGHT).astype(int)


def differs(content: bytes | Image.Image) -> float:
    """Mean difference to the reference in levels of 255."""
    return float(np.abs(to_rows(content).astype(int) - REFERENCE).mean())


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_kind_of_png_shows_the_same_digit(mode: str) -> None:
    assert differs(saved(DARK_ON_LIGHT.convert(mode))) < (8 if mode in {"1", "P"} else 0.01)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_every_kind_of_jpeg_shows_the_same_digit(mode: str) -> None:
    assert differs(saved(DARK_ON_LIGHT.convert(mode), "JPEG", quality=90)) < 3
    assert differs(saved(DARK_ON_LIGHT.convert(mode), "JPEG", quality=90, progressive=True)) < 3


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_every_kind_of_bmp_shows_the_same_digit(mode: str) -> None:
    assert differs(saved(DARK_ON_LIGHT.convert(mode), "BMP")) < (8 if mode in {"1", "P"} else 0.01)


def test_an_alpha_channel_that_a_bmp_leaves_at_0_hides_nothing() -> None:
    layers = DARK_ON_LIGHT.convert("RGBA")
    layers.putalpha(0)
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, *INK.size, 1, 32, 3, 0, 0, 0, 0, 0) + masks + bytes(52)
    pixels = layers.transpose(Image.Transpose.FLIP_TOP_BOTTOM).tobytes("raw", "BGRA")
    content = b"BM" + struct.pack("<IHHI", 122 + len(pixels), 0, 0, 122) + header + pixels
    assert differs(content) < 0.01
    with Image.open(BytesIO(content)) as given:
        assert given.mode == "RGBA"
        assert differs(given) < 0.01
    layers.putpixel((0, 0), (0, 0, 0, 255))  # one pixel is enough to say that the others are meant to be transparent
    pixels = layers.transpose(Image.Transpose.FLIP_TOP_BOTTOM).tobytes("raw", "BGRA")
    assert differs(content[:122] + pixels) > 10


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_kind_of_tiff_shows_the_same_digit(mode: str, compression: str | None) -> None:
    content = saved(DARK_ON_LIGHT.convert(mode), "TIFF", compression=compression)
    assert differs(content) < (8 if mode in {"1", "P"} else 0.01)


@pytest.mark.parametrize(("compression", "mode"), [("group3", "1"), ("group4", "1"), ("jpeg", "L"), ("jpeg", "RGB")])
def test_a_scanner_s_tiff_shows_the_same_digit(compression: str, mode: str) -> None:
    content = saved(DARK_ON_LIGHT.convert(mode), "TIFF", compression=compression)
    assert differs(content) < (8 if mode == "1" else 3)


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_every_kind_of_webp_shows_the_same_digit(mode: str, lossless: bool) -> None:
    assert differs(saved(DARK_ON_LIGHT.convert(mode), "WEBP", lossless=lossless, quality=90)) < 3


def test_a_tiff_of_several_pages_is_no_single_image() -> None:
    content = saved(DARK_ON_LIGHT, "TIFF", save_all=True, append_images=[INK, INK])
    with pytest.raises(InputError, match="the TIFF file has several pages; give each as an image of its own"):
        to_rows(content)


@pytest.mark.parametrize("largest", [0xFFFF, 0x0FFF, 0x03FF], ids=["16 bits", "12 in 16", "10 in 16"])
def test_words_of_16_bits_are_brought_to_8_by_the_bits_in_use(largest: int) -> None:
    words = (np.asarray(DARK_ON_LIGHT).astype(np.uint32) * largest // 255).astype(np.uint16)
    assert differs(saved(Image.fromarray(words))) < 0.5
    assert differs(saved(Image.fromarray(words), "TIFF")) < 0.5
    assert differs(Image.fromarray(words.astype(np.int32))) < 0.5


@pytest.mark.parametrize("wrong", [-1, 0x10000, 2**31 - 1])
def test_words_that_do_not_fit_16_bits_are_refused(wrong: int) -> None:
    words = np.asarray(DARK_ON_LIGHT).astype(np.int32)
    words[0, 0] = wrong
    for source in (Image.fromarray(words), saved(Image.fromarray(words), "TIFF")):
        with pytest.raises(InputError, match=f"integer pixels from .*{wrong}.*; from 0 to 65535 are read: convert it"):
            to_rows(source)


def test_floating_point_pixels_are_refused() -> None:
    with pytest.raises(InputError, match="floating-point pixels"):
        decode(DARK_ON_LIGHT.convert("F"))


def test_transparency_shows_white_paper() -> None:
    layer = Image.new("RGBA", INK.size, (10, 10, 10, 0))
    layer.putalpha(INK)
    assert differs(saved(layer)) < 2
    assert differs(saved(Image.merge("LA", (Image.new("L", INK.size), INK)))) < 2


@pytest.mark.parametrize(("layers", "mode"), [("LA", "La"), ("RGBA", "RGBa")])
def test_a_picture_multiplied_by_its_alpha_shows_white_paper(layers: str, mode: str) -> None:
    layer = Image.new("L", INK.size, 10)
    layer.putalpha(INK)
    assert differs(layer.convert(layers).convert(mode)) < 2


def test_a_transparent_word_of_16_bits_is_paper_and_its_neighbours_are_not() -> None:
    words = np.where(np.asarray(INK) > 127, 999, 1000).astype(np.uint16)  # the same level in 8 bits
    words[0, 0] = 60_000
    shown = np.asarray(decode(saved(Image.fromarray(words), transparency=1000)))
    assert (shown[words == 1000] == 255).all()
    assert (shown[words == 999] == 999 >> 8).all()


def test_white_ink_on_a_transparent_ground_is_not_lost() -> None:
    layer = Image.new("RGBA", INK.size, (255, 255, 255, 0))
    layer.putalpha(INK)
    assert differs(saved(layer)) < 2


@pytest.mark.parametrize("colour", [(250, 250, 250), (237, 237, 237), (250, 250, 240)])
def test_off_white_ink_on_a_transparent_ground_is_not_lost(colour: tuple[int, int, int]) -> None:
    layer = Image.new("RGB", INK.size, colour)
    layer.putalpha(INK)
    assert differs(saved(layer)) < 2


@pytest.mark.parametrize("colour", ["black", "white"])
def test_a_large_transparent_picture_shows_what_an_opaque_one_does(colour: str) -> None:
    ink = INK.resize((INK.width * 30, INK.height * 30))
    layer = Image.new("RGB", ink.size, colour)
    layer.putalpha(ink)
    assert np.abs(to_rows(saved(layer)).astype(int) - to_rows(saved(inverted(ink)))).mean() < 0.5


def test_a_picture_that_is_given_stays_as_it_is() -> None:
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    with Image.open(BytesIO(saved(DARK_ON_LIGHT, exif=turned))) as given:
        assert decode(given).size == (INK.height, INK.width)
        assert given.size == INK.size


def test_a_palette_s_transparent_colour_is_paper() -> None:
    palette = Image.new("P", INK.size)
    palette.putpalette([0, 0, 0, 90, 90, 90])
    palette.paste(1, mask=INK.point(lambda ink: 255 * (ink > 127)))
    # without transparency the black ground and the grey digit would be light ink on dark paper
    assert differs(saved(palette, transparency=0)) < 8


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_a_turned_camera_s_picture_is_turned_back(orientation: int, form: str) -> None:
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,  # the picture is to be turned by 270 degrees to be upright
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = DARK_ON_LIGHT.transpose(turns[orientation]) if orientation > 1 else DARK_ON_LIGHT
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert differs(saved(stored, form, exif=exif)) < 3


ODD_TAGS = {
    "Make as a fraction": (271, 5, struct.pack("<II", 1, 2)),
    "Copyright as a number": (33432, 11, struct.pack("<f", 0.5)),
    "ImageWidth as a fraction": (256, 5, struct.pack("<II", 1, 2)),
    "no fraction at all": (282, 5, struct.pack("<II", 1, 0)),
    "numbers as text": (256, 2, b"wide"),
}


def odd_exif(tag: int, kind: int, value: bytes) -> bytes:
    """Give an EXIF block that has a picture turned by 90 degrees, and one more tag."""
    size = {2: 1, 5: 8, 11: 4}[kind]
    entries = sorted([
        struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0),
        struct.pack("<HHI", tag, kind, len(value) // size) + (value if len(value) == 4 else struct.pack("<I", 38)),
    ], key=lambda entry: struct.unpack("<H", entry[:2]))  # fmt: skip
    block = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4) + value
    return b"Exif\0\0" + block


@pytest.mark.parametrize("odd", ODD_TAGS)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_odd_tags_keep_no_picture_from_being_turned_back(odd: str, form: str) -> None:
    content = saved(DARK_ON_LIGHT.transpose(Image.Transpose.ROTATE_90), form, exif=odd_exif(*ODD_TAGS[odd]))
    assert differs(content) < 3
    with Image.open(BytesIO(content)) as given, Reader() as reader:
        assert differs(given) < 3
        assert [answer.digit for answer in reader.classify([content, given])] == [4, 4]


def test_large_pictures_come_back_at_a_working_size() -> None:
    for form in ("PNG", "JPEG", "TIFF", "WEBP"):
        picture = decode(saved(draw(2, (4000, 3000), height=0.5, pen=0.1), form))
        assert 512 <= max(picture.size) < 1024


def test_a_path_and_an_open_file_are_read(tmp_path: Path) -> None:
    path = tmp_path / "four.png"
    path.write_bytes(saved(DARK_ON_LIGHT))
    assert differs(path.read_bytes()) == 0
    assert np.array_equal(to_rows(path), REFERENCE)
    assert np.array_equal(to_rows(str(path)), REFERENCE)
    with path.open("rb") as file:
        assert np.array_equal(to_rows(file), REFERENCE)
    with pytest.raises(InputError, match=r"can't read .*none\.png: No such file or directory$"):
        to_rows(tmp_path / "none.png")


def test_a_file_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scanline.files.MAX_FILE_BYTES", 2**20)
    large = tmp_path / "large.png"
    large.write_bytes(bytes(2**20 + 1))
    with pytest.raises(InputError, match=r"can't read .*large\.png: it is larger than 1 MiB"):
        to_rows(large)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty; expected an image, PNG, JPEG, BMP, TIFF or WebP"),
        (b"seven", "the file's format can't be read; expected PNG, JPEG, BMP, TIFF or WebP"),
        (saved(DARK_ON_LIGHT, "GIF"), "GIF can't be read; expected PNG, JPEG, BMP, TIFF or WebP"),
        (b"\0\0\0\x1cftypheic\0\0\0\0", "HEIC or AVIF can't be read; expected PNG, JPEG, BMP, TIFF or WebP"),
        (b"%PDF-1.7\n", "PDF can't be read; expected PNG, JPEG, BMP, TIFF or WebP"),
        (
            b"PK\x03\x04" + bytes(26),
            "a ZIP archive (`scanline score` takes them) can't be read; expected PNG, JPEG, BMP, TIFF or WebP",
        ),
    ],
    ids=["empty", "text", "GIF", "HEIC", "PDF", "ZIP"],
)
def test_other_files_are_refused_by_name(content: bytes, words: str) -> None:
    with pytest.raises(InputError) as caught:
        to_rows(content)
    assert str(caught.value) == words


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_header(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))


def bmp_header(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, *[0] * 6)


def tiff_header(width: int, height: int) -> bytes:
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: 1}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("header", [png_header, bmp_header, tiff_header])
@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (MAX_PIXELS + 1, 1), (7072, 7072)])
def test_too_many_pixels_are_refused_by_the_header(header: Any, width: int, height: int) -> None:
    # there are no pixels behind the header: only a reader that looks at it first can give this answer
    content = header(width, height) + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b"")
    with pytest.raises(InputError, match=f"the image has {width}x{height} pixels; at most 50,000,000 can be read"):
        decode(content)


def test_a_webp_file_of_too_many_pixels_is_refused() -> None:
    with pytest.raises(InputError, match="the image has 5478x5478 pixels; at most 30,000,000 can be read"):
        decode(saved(Image.new("L", (5478, 5478)), "WEBP", lossless=True, method=0))
    canvas = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + (60_000).to_bytes(3, "little") * 2
    with pytest.raises(InputError, match="the image has far more pixels than can be read"):
        decode(b"RIFF" + struct.pack("<I", len(canvas)) + canvas)


def test_a_picture_that_there_is_no_memory_for_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    load = JpegImageFile.load

    def refused(image: JpegImageFile) -> Any:
        if image.size == (600, 400):  # how much memory there is, is the machine's affair
            raise MemoryError
        return load(image)

    monkeypatch.setattr(JpegImageFile, "load", refused)
    small, large = (saved(picture, "JPEG") for picture in (DARK_ON_LIGHT, DARK_ON_LIGHT.resize((600, 400))))
    with Reader() as reader:
        answers = reader.classify([small, large, small])
    assert [answer.digit for answer in answers] == [4, None, 4]
    assert answers[1].error == "there is not enough memory to decode the image"


def test_an_empty_picture_is_refused() -> None:
    with pytest.raises(InputError, match="has 0x5 pixels; it is empty"):
        decode(Image.new("L", (0, 5)))


def test_a_compressed_text_bomb_is_refused() -> None:
    bomb = png_chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(100 * 2**20)))
    content = saved(DARK_ON_LIGHT)
    with pytest.raises(InputError, match="damaged"):
        decode(content[:33] + bomb + content[33:])


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
def test_a_file_cut_short_is_an_error(form: str) -> None:
    content = saved(DARK_ON_LIGHT, form)
    for length in range(12, int(len(content) * 0.9), 7):
        with pytest.raises(InputError, match="the image is damaged or cut short") as error:
            decode(content[:length])
        assert "unpack" not in str(error.value)  # Python's own words would tell nobody anything


@pytest.mark.filterwarnings("ignore::UserWarning")  # as outside of tests, where scanline.decode sees to it
def test_a_tiff_that_does_not_say_whether_a_page_follows_is_cut_short() -> None:
    content = saved(DARK_ON_LIGHT, "TIFF", compression="tiff_lzw")  # which libtiff ends with that
    for length in range(len(content) - 4, len(content)):
        with pytest.raises(InputError, match="the image is damaged or cut short: its list of pages has no end"):
            decode(content[:length])


SEEDS = [file.read_bytes() for file in files() if file.stat().st_size < 6000] + [
    saved(DARK_ON_LIGHT, "TIFF", compression="tiff_lzw"),
    saved(DARK_ON_LIGHT, "TIFF"),
    saved(DARK_ON_LIGHT.convert("RGB"), "TIFF", compression="jpeg"),
    saved(DARK_ON_LIGHT.convert("1"), "TIFF", compression="group4"),
    saved(DARK_ON_LIGHT, "WEBP"),
]


@settings(deadline=None)  # how long it takes is the machine's affair
@given(
    content=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    length=st.just(1.0) | st.floats(0, 1),
)
def test_damaged_bytes_give_pixels_or_an_error_and_nothing_else(
    content: bytes, changes: list[tuple[float, int]], length: float
) -> None:
    damaged = bytearray(content)
    for place, value in changes:
        damaged[int(place * len(damaged))] = value
    try:
        rows = to_rows(bytes(damaged[: int(length * len(damaged))]))
    except InputError:
        return
    assert rows.shape == (28, 28)
    assert rows.dtype == np.uint8
