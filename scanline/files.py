"""The bytes of a regular file, up to a bound. A pipe or a device may never begin, or never end."""

from __future__ import annotations

import os
import stat
from typing import IO, Final

from scanline.errors import InputError

# An image of decode.MAX_PIXELS pixels of 8 bits a channel, stored without compression, stays under it.
MAX_FILE_BYTES: Final = 256 * 2**20
# Python makes room for all that a file is asked for, and gives it back where the file has less. For 256 MiB that takes
# longer than a small picture's decoding.
CHUNK_BYTES: Final = 64 * 2**10


def read(path: str | os.PathLike[str]) -> bytes:
    """Give what a file holds.

    Raises:
        InputError: it can't be read, is no regular file, or has more than MAX_FILE_BYTES.
    """
    try:
        with opened(path, buffering=0) as file:  # nothing is read twice
            return content(file)
    except IsADirectoryError:
        raise InputError(f"can't read {path}: it is a folder, not a file") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise InputError(f"can't read {path}: {getattr(error, 'strerror', None) or error}") from None
    except InputError as error:
        raise InputError(f"can't read {path}: {error}") from None


def opened(path: str | os.PathLike[str], buffering: int = -1) -> IO[bytes]:
    """Open a file to be read.

    Args:
        path: the file.
        buffering: as the built-in open takes it.

    Raises:
        InputError: it is a pipe, a socket or a device. It is not opened: that alone may wait for ever.
        OSError: it can't be opened.
        ValueError: there is a null character in the name.
    """
    mode = os.stat(path).st_mode  # noqa: PTH116 - the name as it is: Path("x.png/") is x.png, and Path("") the working folder
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # open has words of its own for a folder
        raise InputError("it is a pipe, a socket or a device, not a file")
    return open(path, "rb", buffering)  # noqa: PTH123 - the name as it is, as above


def content(file: IO[bytes]) -> bytes:
    """Give what an open file holds from here to its end.

    Raises:
        InputError: it has more than MAX_FILE_BYTES.
        OSError: as the file does.
        TypeError: it is open in text mode.
    """
    chunks, size = [], 0
    while chunk := file.read(CHUNK_BYTES):
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_FILE_BYTES:
            raise InputError(f"it is larger than {MAX_FILE_BYTES // 2**20} MiB")
    return b"".join(chunks)
