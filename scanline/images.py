"""What people call an image, brought to one stream: paths, bytes, open files, Pillow images and arrays become items.

An array in the network's form stays as it is; everything else becomes the bytes of an image file, which scanline.Reader
normalises in this process and scanline.Client sends to the server. What is wrong with one file is that item's error.
What can only be a mistake in the calling program, such as a float array, is raised and ends the whole call.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, TypeAlias, Union, cast

import numpy as np
from numpy.typing import NDArray

from scanline import files
from scanline.contract import COLUMNS, LABELS, ROWS
from scanline.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

Image: TypeAlias = Union[Path, str, bytes, BinaryIO, "PillowImage", NDArray[np.uint8], "Item", "Page"]

TIFF_SUFFIXES: Final = (".tif", ".tiff")
SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".webp", *TIFF_SUFFIXES)
BYTES: Final = (bytes, bytearray, memoryview)
ACCEPTED: Final = (
    "a path, the bytes of an image file, a file opened in binary mode, a Pillow image, "
    "or a uint8 array of shape [28, 28] or [n, 28, 28]"
)


@dataclass(frozen=True, slots=True)
class Item:
    """One image on its way to the network; exactly one of the fields is set.

    Attributes:
        pixels: uint8 [28, 28], 0 background to 255 ink: already in the network's form.
        encoded: the bytes of an image file.
        error: why the image can't be read, in a sentence.
    """

    pixels: NDArray[np.uint8] | None = None
    encoded: bytes | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a TIFF file, which is decoded where and when it is read.

    Attributes:
        path: the file.
        number: which page, from 0 on.
    """

    path: str
    number: int


def is_image(name: str) -> bool:
    """Tell whether a file found in a folder or an archive is one to read."""
    own = name.rpartition("/")[2]
    stem, dot, suffix = own.rpartition(".")
    # `.png` is a hidden file, `._seven.png` what a Mac puts beside seven.png where it can't keep its attributes
    return (dot + suffix).lower() in SUFFIXES and stem != "" and not own.startswith("._")


def labelled(folder: Path) -> list[tuple[Path, int]]:
    """Give the image files in FOLDER/0 to FOLDER/9 with their digits, in the order of the digits and names.

    Raises:
        OSError: one of the folders can't be read.
    """
    return [
        (file, int(label))
        for label in LABELS
        if (folder / label).is_dir()
        for file in sorted((folder / label).iterdir())
        if is_image(file.name) and not file.is_dir()
    ]


def items(images: Image | Iterable[Image]) -> Iterator[Item]:
    """Give an item for each image, in order; an array [n, 28, 28] gives n.

    Lazy: a file is read when its item is asked for, and `images` is gone through once.

    Args:
        images: one image or any iterable of them.

    Raises:
        InputError: an element is nothing that can be an image; the message says what can be.
    """
    if isinstance(images, (np.ndarray, str, *BYTES, Item, os.PathLike)) or hasattr(images, "read"):
        yield from _items(images)
    elif isinstance(images, Iterable):
        for image in images:
            yield from _items(image)
    else:
        yield from _items(images)


def pages(path: str | Path) -> list[tuple[str, str | Path | Page]]:
    """Give each image of a file with its name, as `page_names` does.

    `items`, Reader and Client take one image from a file, so that there is one prediction for each; of a TIFF file with
    several pages they say that they don't, and take each of these.
    """
    names = page_names(str(path))
    if len(names) == 1:
        return [(names[0], path)]
    return [(name, Page(str(path), number)) for number, name in enumerate(names)]


def page_names(path: str, content: bytes | None = None) -> list[str]:
    """Name the images in a file: ``scan.png``; ``scan.tif[1]`` and so on for the pages of a TIFF file with several.

    A file with the suffix of another format is not looked into, which for the files of a folder would take its time.

    Args:
        path: the file, or the name of one in an archive.
        content: the bytes of the one in an archive.
    """
    name = path.lower()
    if name.endswith(SUFFIXES) and not name.endswith(TIFF_SUFFIXES):
        return [path]

    from scanline.decode import page_count

    count = page_count(path if content is None else content)
    return [path] if count == 1 else [f"{path}[{number}]" for number in range(1, count + 1)]


def _items(image: object) -> Iterator[Item]:
    if isinstance(image, np.ndarray):
        yield from (Item(pixels=pixels) for pixels in stack(image))
    elif isinstance(image, Item):
        yield image
    elif isinstance(image, Page):
        from scanline.decode import page

        yield _item(partial(page, image.path, image.number))
    elif isinstance(image, BYTES):
        yield Item(encoded=bytes(image))
    elif isinstance(image, (str, os.PathLike)):
        yield _item(partial(files.read, image))
    elif hasattr(image, "read"):
        yield _rest(cast("BinaryIO", image))
    else:
        yield _encode(image)


def stack(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give an array of images in the network's form as uint8 [n, 28, 28], n being 1 for a single one.

    Raises:
        InputError: it is an array of something else.
    """
    if array.dtype != np.uint8 or array.ndim not in {2, 3} or array.shape[-2:] != (ROWS, COLUMNS):
        raise InputError(
            f"an array of images is uint8 of shape [28, 28] or [n, 28, 28] with 0 for background and 255 for ink, "
            f"not {array.dtype} of shape {list(array.shape)}; any other picture goes as Image.fromarray(...)"
        )
    return np.ascontiguousarray(np.asarray(array).reshape(-1, ROWS, COLUMNS))  # np.matrix keeps to two dimensions


def _item(encode: Callable[[], bytes]) -> Item:
    try:
        return Item(encoded=encode())
    except InputError as error:
        return Item(error=str(error))


def _rest(file: BinaryIO) -> Item:
    name = getattr(file, "name", "the file")
    try:
        return Item(encoded=files.content(file))
    except (TypeError, UnicodeDecodeError):
        raise InputError(f"{name} is open in text mode; open it in binary mode, as in open(path, 'rb')") from None
    except (OSError, ValueError, InputError) as error:  # ValueError: it is closed
        return Item(error=f"can't read {name}: {getattr(error, 'strerror', None) or error}")


def _encode(image: object) -> Item:
    from PIL.Image import Image as PillowImage

    from scanline.decode import encode

    if not isinstance(image, PillowImage):
        raise InputError(f"an image is {ACCEPTED}, not {type(image).__name__}")
    return _item(partial(encode, image))
