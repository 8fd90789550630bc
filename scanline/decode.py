"""The bytes of an image file to upright pixels, safely. Pillow is called here and its failures are translated here.

The header is read first: a file that is of no known format, or has too many pixels, is refused before anything is
decoded. What comes out is upright, opaque, 8 bits a channel, grey ("L") or colour ("RGB").
"""

from __future__ import annotations

import ctypes
import logging
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from PIL import ExifTags, Image, _imaging
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from scanline import files
from scanline.errors import InputError
from scanline.levels import MIN_CONTRAST

# A phone's 50-megapixel photograph passes; Pillow holds its colours in 200 MB, 4 bytes a pixel.
MAX_PIXELS: Final = 50_000_000
# A pixel of a WebP file takes this much more memory while it is decoded: libwebp keeps two canvases of its own.
WEBP_PIXEL: Final = 5 / 3
# Decoded pixels beyond this side are averaged away (or never decoded, JPEG): a digit has 20 in the end.
WORKING_SIDE: Final = 512
MAX_WORD: Final = 2**16 - 1
FORMATS: Final = "PNG, JPEG, BMP, TIFF or WebP"
# The plugins are called by their signatures, not through Image.open, which warns of large files before it can be asked
# for their size, and tries what the caller did not mean.
READERS: Final[tuple[tuple[type[ImageFile], int, bytes], ...]] = (
    (PngImageFile, 0, b"\x89PNG\r\n\x1a\n"),
    (JpegImageFile, 0, b"\xff\xd8\xff"),
    (BmpImageFile, 0, b"BM"),
    (TiffImageFile, 0, b"II*\0"),
    (TiffImageFile, 0, b"MM\0*"),
    (WebPImageFile, 8, b"WEBP"),
)
# What people send instead, to be refused by name: signature, and where it stands.
REFUSED: Final = (
    ("GIF", 0, b"GIF8"),
    ("HEIC or AVIF", 4, b"ftyp"),
    ("BigTIFF", 0, b"II+\0"),
    ("BigTIFF", 0, b"MM\0+"),
    ("PDF", 0, b"%PDF"),
    ("SVG", 0, b"<svg"),
    ("a ZIP archive (`scanline score` takes them)", 0, b"PK\x03\x04"),
)
SIGNATURE_BYTES: Final = 12
# What brings a picture upright, by its orientation. Pillow's own exif_transpose also writes the picture's other tags
# anew, and fails where one of them has a value that the standard does not give it.
TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow lets through, or hands on as a SyntaxError, where bytes are missing or mean nothing. Their words tell
# nobody anything.
PYTHONS_OWN: Final = (TypeError, IndexError, KeyError, AttributeError, ArithmeticError, struct.error)

# What is wrong with a file is its error. libtiff would say it on the process's stderr as well, and Pillow warn of tags
# that nobody asked for and log what it can't decode, in the middle of a table or a server's log.
with suppress(OSError, AttributeError):  # a Pillow that keeps its libtiff to itself
    ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.\w+ImagePlugin")
logging.getLogger("PIL").setLevel(logging.CRITICAL)


def decode(source: bytes | str | Path | BinaryIO | Image.Image, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Give the upright, opaque picture in an image file, its longest side at most about twice WORKING_SIDE.

    Grey stays grey ("L"), everything else becomes "RGB". Transparent pixels show white paper; where that leaves nothing
    to be seen, as with white ink on a transparent ground, black. Grey words of 16 bits are brought to 8 by the bits
    that the picture uses, since 12-bit cameras store theirs in 16; of colours and of grey with an alpha channel Pillow
    gives the higher byte alone. Of an animated file the first picture is taken.

    Args:
        source: the bytes of an image file (FORMATS), its path, the file opened in binary mode, or a Pillow image.
        max_pixels: the most pixels that a picture may have; a WebP file three fifths of them.

    Raises:
        InputError: the file can't be read or decoded, is of another format, or has too many pixels, or more than there
            is memory for; or they are floating-point numbers, or integers that don't fit 16 bits.
    """
    with _translated():
        image = source if isinstance(source, Image.Image) else _open(source)
        _check_size(image, max_pixels)
        if isinstance(image, JpegImageFile) and image is not source:
            image.draft(None, (WORKING_SIDE, WORKING_SIDE))  # decodes at 1/2, 1/4 or 1/8 where that is large enough
        image.load()
        if isinstance(image, BmpImageFile) and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
            image = image.convert("RGB")  # programs that use no alpha leave it at 0, and viewers show such a file
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))  # a TIFF file is turned as it is loaded
        if turn is not None:
            image = image.transpose(turn)
        elif image is source:
            image = image.copy()  # what is given stays as it is
        return _working_size(_eight_bits(image))


def encode(image: Image.Image) -> bytes:
    """Give a Pillow image as the bytes of a PNG file, after `decode`, with which it shares its errors."""
    buffer = BytesIO()
    decode(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def page_count(source: bytes | str) -> int:
    """Give the number of a TIFF file's pages.

    Of a damaged file it is those before the damage and the page that is damaged, since reading that one says why; so it
    is 1 for a file that is no TIFF file at all.

    Args:
        source: the bytes of the file, or its path.
    """
    sound = 0
    try:
        with _translated(), _tiff(source) as image:
            for sound in count(1):
                try:
                    image.seek(sound)
                except EOFError:
                    _check_end(image)
                    break
    except InputError:
        return sound + 1
    return sound


def page(source: bytes | str, number: int) -> bytes:
    """Give a page of a TIFF file, from 0 on, as the bytes of a PNG file.

    Args:
        source: the bytes of the file, or its path.
        number: which page.

    Raises:
        InputError: the page can't be read or decoded, or has too many pixels.
    """
    with _translated(), _tiff(source) as image:
        image.seek(number)
        return encode(image)


@contextmanager
def _tiff(source: bytes | str) -> Iterator[TiffImageFile]:
    # not read whole: a book's pages are read one by one
    with BytesIO(source) if isinstance(source, bytes) else files.opened(source) as file, TiffImageFile(file) as image:
        yield image


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except Image.DecompressionBombError:  # Pillow's own limit, which the WebP plugin minds before it can be asked
        raise InputError("the image has far more pixels than can be read") from None
    except MemoryError:
        raise InputError("there is not enough memory to decode the image") from None
    except (OSError, SyntaxError, ValueError, EOFError, Warning, *PYTHONS_OWN) as error:
        # What Pillow's plugins raise at damaged content, by its own account in ImageFile.__init__ and Image.open; a
        # warning only where the process turns warnings into errors.
        words = "" if isinstance(error.__cause__ or error, PYTHONS_OWN) else f": {error}"
        raise InputError(f"the image is damaged or cut short{words}") from None


def _open(source: bytes | str | Path | BinaryIO) -> Image.Image:
    if isinstance(source, (str, Path)):
        source = files.read(source)
    file = BytesIO(source if isinstance(source, bytes) else files.content(source))
    start = file.getvalue()[:SIGNATURE_BYTES]
    for reader, at, signature in READERS:
        if start.startswith(signature, at):
            return _single(reader(file))
    if not start:
        raise InputError(f"the file is empty; expected an image, {FORMATS}")
    found = next((name for name, at, signature in REFUSED if start.startswith(signature, at)), "the file's format")
    raise InputError(f"{found} can't be read; expected {FORMATS}")


def _single(image: Image.Image) -> Image.Image:
    if isinstance(image, TiffImageFile):
        if image.is_animated:  # its first page says so: they are not counted
            raise InputError(
                "the TIFF file has several pages; give each as an image of its own, as `scanline classify` and "
                "`scanline score` do with those of a .tif file, and scanline.images.pages in Python"
            )
        _check_end(image)
    return image


def _check_end(image: TiffImageFile) -> None:
    """Check that the page which was reached last says that none follows; Pillow takes a cut file's for the last."""
    if image.tag_v2.next != 0:
        raise InputError("the image is damaged or cut short: its list of pages has no end")


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if isinstance(image, WebPImageFile):
        max_pixels = int(max_pixels / WEBP_PIXEL)
    if width * height > max_pixels:
        raise InputError(f"the image has {width}x{height} pixels; at most {max_pixels:,} can be read")
    if not width * height:
        raise InputError(f"the image has {width}x{height} pixels; it is empty")


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise InputError(
            "the image has floating-point pixels, whose black and white are not fixed; convert it to 8 bits"
        )
    if not image.mode.startswith("I"):
        return image
    words = np.asarray(image)
    least, most = int(words.min()), int(words.max())
    if least < 0 or most > MAX_WORD:
        raise InputError(
            f"the image has integer pixels from {least} to {most}; from 0 to {MAX_WORD} are read: convert it to 8 bits"
        )
    bits = max(most.bit_length(), 8)
    levels = Image.fromarray((words >> (bits - 8)).astype(np.uint8))
    transparent = image.info.get("transparency")  # one word, of the many that come to the same level
    if transparent is not None:
        levels.putalpha(Image.fromarray(np.where(words == transparent, 0, 255).astype(np.uint8)))
    return levels


def _working_size(image: Image.Image) -> Image.Image:
    """Give a picture opaque and small; what is large is made small before it is copied any more."""
    if image.mode == "La":
        image = image.convert("LA")  # Pillow converts it to nothing else
    mode = "L" if image.mode in {"1", "L", "LA"} else "RGB"
    factor = max(1, max(image.size) // WORKING_SIDE)
    if not image.has_transparency_data:
        if image.mode != mode:
            image = image.convert(mode)
        return image.reduce(factor) if factor > 1 else image
    layers = image.convert("RGBA")
    if factor > 1:  # with the colours multiplied by the opacity: what can't be seen has no say
        layers = layers.convert("RGBa").reduce(factor).convert("RGBA")
    return _on_paper(layers, mode)


def _on_paper(layers: Image.Image, mode: str) -> Image.Image:
    picture, alpha = layers.convert(mode), layers.getchannel("A")
    for ground in ("white", "black"):
        shown = Image.composite(picture, Image.new(mode, layers.size, ground), alpha)
        if (np.ptp(np.asarray(shown), axis=(0, 1)) >= MIN_CONTRAST).any():
            break
    return shown
