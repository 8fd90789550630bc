"""MNIST (LeCun, Cortes, Burges): its four files, from a folder or a public mirror, checked by their content."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import urllib.error
import urllib.request
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scanline import console
from scanline.contract import COLUMNS, ROWS
from scanline.errors import InputError, UsageError
from scanline.writing import replacing

MIRRORS: Final = (
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    "https://storage.googleapis.com/cvdf-datasets/mnist",
)
# SHA-256 of the decompressed files: mirrors compress them differently.
SHA256: Final = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
IMAGES_HEADER: Final = 16  # bytes before the pixels of an IDX3 file
LABELS_HEADER: Final = 8  # bytes before the labels of an IDX1 file
TIMEOUT_SECONDS: Final = 30
CHUNK_BYTES: Final = 1 << 16


def part(prefix: str, folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read the images and labels of one part.

    Args:
        prefix: ``train`` or ``t10k``.
        folder: holds the part's two files, gzipped or not.

    Returns:
        The images, uint8 [n, 28, 28], 0 for background to 255 for ink, and the labels, uint8 [n], 0 to 9.

    Raises:
        UsageError: a file is missing.
        InputError: a file's content is not MNIST's.
    """
    pixels = _content(f"{prefix}-images-idx3-ubyte", folder)[IMAGES_HEADER:]
    labels = _content(f"{prefix}-labels-idx1-ubyte", folder)[LABELS_HEADER:]
    return np.frombuffer(pixels, np.uint8).reshape(-1, ROWS, COLUMNS), np.frombuffer(labels, np.uint8)


def fetch(folder: Path, mirrors: Sequence[str]) -> None:
    """Download those of the four files that a folder lacks.

    Args:
        folder: where they go; it is made if need be.
        mirrors: addresses of folders that hold the gzipped files, tried in this order.

    Raises:
        InputError: no mirror gave a file with MNIST's content; it names each mirror's failure.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in SHA256:
        if _found(name, folder) is None:
            _download(name, folder, mirrors)


def cache_folder() -> Path:
    """Name the folder for downloads: the user's cache, by the XDG base directory specification.

    Raises:
        UsageError: the user has no home.
    """
    try:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # HOME is not set, and the system knows no user of this number
        raise UsageError(
            "there is no home folder to download MNIST into: name the folder of its four files with --data-dir, or set "
            "HOME or XDG_CACHE_HOME"
        ) from None
    return Path(cache) / "scanline" / "mnist"


def _found(name: str, folder: Path) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _content(name: str, folder: Path) -> bytes:
    path = _found(name, folder)
    if path is None:
        raise UsageError(
            f"{folder} holds neither {name} nor {name}.gz: name MNIST's folder with --data-dir, or leave --data-dir "
            f"and SCANLINE_DATA out to download it"
        )
    return _checked(name, path.read_bytes(), str(path))


def _checked(name: str, data: bytes, source: str) -> bytes:
    try:
        content = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{source} is damaged: {error}") from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256[name]:
        raise InputError(f"{source} is not MNIST's {name}: its content has SHA-256 {digest}, expected {SHA256[name]}")
    return content


def _download(name: str, folder: Path, mirrors: Sequence[str]) -> None:
    failures = []
    for mirror in mirrors:
        address = f"{mirror}/{name}.gz"
        try:
            data = _get(address)
            _checked(name, data, address)
        except (OSError, http.client.HTTPException, InputError) as error:  # urllib's errors are OSErrors
            failures.append(f"{address}: {error}")
            continue
        with replacing(folder / f"{name}.gz") as path:
            path.write_bytes(data)
        return
    raise InputError(
        f"MNIST can't be downloaded; put its files into a folder and name it with --data-dir. {'; '.join(failures)}"
    )


def _get(address: str) -> bytes:
    received = bytearray()
    with (
        urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS) as response,  # noqa: S310 - a mirror of our own list
        console.progress("bytes") as bar,
    ):
        task = bar.add_task(address.rsplit("/", 1)[1], total=int(response.headers.get("Content-Length", 0)) or None)
        while chunk := response.read(CHUNK_BYTES):
            received += chunk
            bar.advance(task, len(chunk))
    return bytes(received)
