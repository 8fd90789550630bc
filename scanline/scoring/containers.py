"""Files with many images in them: archives and IDX files. They are read by one process, from front to back.

What is wrong with one image is that image's error. Where the file itself is damaged, the images before the damage are
read, and one more entry, of the file's own name, says what is wrong.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from functools import partial, wraps
from typing import IO, Final, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from scanline.contract import COLUMNS, IMAGE_BYTES, ROWS
from scanline.decode import page
from scanline.errors import InputError
from scanline.files import CHUNK_BYTES, content, opened
from scanline.images import TIFF_SUFFIXES, is_image, page_names
from scanline.scoring.entry import Entry

ZIP_SUFFIX: Final = ".zip"
UTF_8_NAME: Final = 0x800  # a bit among a ZIP member's flags (APPNOTE.TXT, 4.4.4)
TAR_SUFFIXES: Final = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
IDX_SUFFIXES: Final = ("-ubyte", "-ubyte.gz", ".idx", ".idx.gz")
# The start of an IDX file of bytes in three dimensions (LeCun et al., The MNIST database, "File formats").
IDX_HEADER: Final = struct.Struct(">4I")
IDX_MAGIC: Final = 0x0803
# How the first bytes show that a tar archive is compressed, and what reads it: all of the streams that pbzip2 and bgzip
# make one file of, of which tarfile reads the first.
COMPRESSED: Final = (
    (re.compile(rb"\x1f\x8b\x08"), gzip.open),
    (re.compile(rb"BZh[1-9]1AY&SY"), bz2.open),
    (re.compile(rb"\xfd7zXZ\0"), lzma.open),
)
SIGNATURE_BYTES: Final = 10
FOREIGN: Final = "Not a gzipped file"  # what gzip says of bytes behind a compressed file that begin no other
# What reading a damaged archive raises; of them RuntimeError is zipfile's for a password or an unknown method, and
# ValueError what is left of a name that is no UTF-8, or of a number that is none.
DAMAGE: Final = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    tarfile.TarError,
)

Read = Callable[[str], Iterator[Entry]]


def _to_its_damage(read: Read) -> Read:
    """Let a damaged file end with an entry that says so."""

    @wraps(read)
    def reading(path: str) -> Iterator[Entry]:
        try:
            yield from read(path)
        except (*DAMAGE, InputError) as error:
            yield Entry(path, partial(_refuse, f"can't read {path}: {getattr(error, 'strerror', None) or error}"))

    return reading


def _refuse(message: str) -> NoReturn:
    raise InputError(message)


@_to_its_damage
def zipped(path: str) -> Iterator[Entry]:
    """Give the images in a .zip archive, in the order of its directory, which is held in memory."""
    with opened(path) as file:
        if not zipfile.is_zipfile(file):
            raise InputError("it is no ZIP archive, or it is cut short")
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                name = _name(member)
                if is_image(name) and not member.is_dir():
                    yield from _images(f"{path}/{name}", partial(_content, partial(archive.open, member)))


@_to_its_damage
def tarred(path: str) -> Iterator[Entry]:
    """Give the images in a .tar archive, compressed or not, in its order. A link in it is an error."""
    with opened(path) as file:
        start = file.read(SIGNATURE_BYTES)
        file.seek(0)
        decompressed = next((reads for signature, reads in COMPRESSED if signature.match(start)), nullcontext)
        # block by block: of a longer read that meets the damage nothing would be left
        with decompressed(file) as tar, _Archive.open(path, "r|", tar, tarfile.BLOCKSIZE, tarinfo=_Member) as archive:
            while member := archive.next():
                archive.members.clear()  # it keeps every header, so that memory would grow with the archive
                name = f"{path}/{member.name}"
                if is_image(member.name) and member.isfile():
                    yield from _images(name, partial(_content, partial(_extract, archive, member)))
                elif is_image(member.name) and (member.islnk() or member.issym()):
                    problem = f"it is a link to {member.linkname}; a file is expected in an archive"
                    yield Entry(name, partial(_refuse, problem))
            _to_its_end(tar)


def _name(member: zipfile.ZipInfo) -> str:
    """Give a member's name: without the mark of UTF-8 it should be of code page 437, but Debian's zip marks none."""
    if not member.flag_bits & UTF_8_NAME:
        with suppress(UnicodeError):
            return member.filename.encode("cp437").decode("utf-8")
    return member.filename


class _Archive(tarfile.TarFile):
    members: list[tarfile.TarInfo]  # which the stubs leave out


class _Member(tarfile.TarInfo):
    """A member's header. tarfile takes a damaged or a missing one for the end of the archive; here it is an error."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined] # the stubs leave it out
            raise  # the mark at the end
        except tarfile.HeaderError as error:
            raise InputError(f"it is damaged or cut short: {error}") from None


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = archive.extractfile(member)
    assert file is not None  # of a regular file
    return file


def _images(name: str, load: Callable[[], bytes]) -> Iterator[Entry]:
    """Give a member's entry; those of its pages where it is a TIFF file with several."""
    if not name.lower().endswith(TIFF_SUFFIXES):
        yield Entry(name, load)
        return
    try:
        held = [load()]  # entries live on in their batch, the file that they are of must not
    except InputError as error:
        yield Entry(name, partial(_refuse, str(error)))
        return
    names = page_names(name, held[0])
    if len(names) == 1:
        yield Entry(name, held.pop)
    else:
        yield from (Entry(page_name, partial(_page, held, number)) for number, page_name in enumerate(names))
    held.clear()


def _page(held: list[bytes], number: int) -> bytes:
    return page(held[0], number)


def _content(open_member: Callable[[], IO[bytes]]) -> bytes:
    try:
        with open_member() as file:
            return content(file)
    except DAMAGE as error:
        raise InputError(f"can't read it from the archive: {error}") from None


@_to_its_damage
def idx(path: str) -> Iterator[Entry]:
    """Give the images of an IDX file, compressed by gzip or not, which are in the network's form as they are."""
    with opened(path) as raw, gzip.open(raw) if path.lower().endswith(".gz") else raw as file:
        header = file.read(IDX_HEADER.size)
        expected = (IDX_MAGIC, ROWS, COLUMNS)
        if len(header) < IDX_HEADER.size or (found := IDX_HEADER.unpack(header))[:1] + found[2:] != expected:
            raise InputError("it is no IDX file of images of 28x28 bytes")
        for number in range(found[1]):
            pixels = file.read(IMAGE_BYTES)
            if len(pixels) < IMAGE_BYTES:
                raise InputError(f"it is cut short: it holds {number:,} of {found[1]:,} images")
            yield Entry(f"{path}/{number}", partial(_pixels, pixels))
        _to_its_end(file)


def _to_its_end(file: IO[bytes] | gzip.GzipFile) -> None:
    """Read what is left of a file: the checksums of what is compressed stand behind it, and are compared there."""
    try:
        while file.read(CHUNK_BYTES):
            pass
    except gzip.BadGzipFile as error:
        if FOREIGN not in str(error):  # what follows the compressed file is no part of it: gzip passes it over, too
            raise
    except EOFError:
        if not isinstance(file, lzma.LZMAFile):  # which says so of the zeros, too, that may follow an .xz file
            raise


def _pixels(image: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(image, np.uint8).reshape(ROWS, COLUMNS)
