"""The bytes of a file, up to a bound: a device file or a pipe may never end."""

from __future__ import annotations

import os
from typing import IO, Final

from scanline.errors import InputError

# An image of decode.MAX_PIXELS pixels stored without compression stays under it.
MAX_FILE_BYTES: Final = 256 * 2**20
# Python makes room for all that a file is asked for, and gives it back where the file has less. For 256 MiB that takes
# longer than a small picture's decoding.
CHUNK_BYTES: Final = 64 * 2**10


def read(path: str | os.PathLike[str]) -> bytes:
    """Give what a file holds.

    Raises:
        InputError: it can't be read, or has more than MAX_FILE_BYTES.
    """
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a Path costs as much as the reading
            return content(file)
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise InputError(f"can't read {path}: {getattr(error, 'strerror', None) or error}") from None
    except InputError as error:
        raise InputError(f"can't read {path}: {error}") from None


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
