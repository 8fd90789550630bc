"""The data: digits as uint8 images with labels, from one source or several, in training and test parts.

mnist          the 60,000 and 10,000 images of MNIST
uci            the 1,797 digits that come with scikit-learn (Alpaydin and Kaynak 1998); needs no network
folder:PATH    one's own, the image files in PATH/0 to PATH/9
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scanline.contract import CLASSES, ROWS
from scanline.errors import InputError, UsageError
from train import folder, mnist

MNIST: Final = "mnist"
UCI: Final = "uci"
FOLDER_PREFIX: Final = "folder:"
HELD_OUT_DIVISOR: Final = 12  # the last twelfth of a source's training images: 5,000 of MNIST's 60,000
FOLDER_TEST_DIVISOR: Final = 6  # every sixth image of each digit in a folder is for the test
UCI_TRAINING_IMAGES: Final = 1437  # four fifths; the file goes writer by writer, so the rest is by other hands
UCI_MAXIMUM: Final = 16  # the value of full ink in the UCI images
DIGIT_BOX: Final = 20  # pixels: the side of the box that MNIST fits a digit's ink into


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Digits with labels.

    Attributes:
        name: the sources' names, such as ``mnist`` or ``mnist+folder:mine``.
        train_images: uint8 [n, 28, 28], 0 for background to 255 for ink.
        train_labels: int64 [n], 0 to 9.
        held_out: bool [n]; the training images of the validation split, the last twelfth of each source.
        test_images: uint8 [m, 28, 28].
        test_labels: int64 [m].
    """

    name: str
    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    held_out: NDArray[np.bool_]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]

    @property
    def sha256(self) -> str:
        """The checksum of the training images' bytes followed by their labels' (one byte each), as hexadecimal text."""
        return _checksum(self.train_images, self.train_labels)

    @property
    def test_sha256(self) -> str:
        """The same of the test images and their labels."""
        return _checksum(self.test_images, self.test_labels)

    def __add__(self, other: Self) -> Self:
        """Join two sources."""
        return type(self)(
            name=f"{self.name}+{other.name}",
            train_images=np.concatenate([self.train_images, other.train_images]),
            train_labels=np.concatenate([self.train_labels, other.train_labels]),
            held_out=np.concatenate([self.held_out, other.held_out]),
            test_images=np.concatenate([self.test_images, other.test_images]),
            test_labels=np.concatenate([self.test_labels, other.test_labels]),
        )


def load(specs: Sequence[str], data_dir: Path | None) -> Dataset:
    """Load the sources and join them in the order given.

    Args:
        specs: ``mnist``, ``uci`` or ``folder:PATH``, one or more.
        data_dir: the folder of MNIST's files; None to download them into the user's cache.

    Raises:
        UsageError: a source is unknown, a folder is missing, or there is no cache to download into.
        InputError: files are unreadable or not what they should be, a digit has no training image, or nothing is left
            to hold out or to test with.
    """
    dataset = reduce(Dataset.__add__, (_source(spec, data_dir) for spec in specs))
    _check_parts(dataset)
    return dataset


def _check_parts(dataset: Dataset) -> None:
    counts = np.bincount(dataset.train_labels[~dataset.held_out], minlength=CLASSES)
    if not counts.all():
        missing = ", ".join(str(digit) for digit in np.flatnonzero(counts == 0))
        raise InputError(
            f"{dataset.name} has no training image of {missing}; a network needs all ten digits: add some, or join "
            f"the data with `--data mnist`"
        )
    if not dataset.held_out.any():
        raise InputError(
            f"{dataset.name} leaves no image to be held out: that is the last twelfth of a source's training images; "
            f"give one source {HELD_OUT_DIVISOR} of them or more, or join the data with `--data mnist`"
        )
    if not len(dataset.test_labels):
        raise InputError(
            f"{dataset.name} leaves no image for the test: that is every sixth image of each digit in a folder; give "
            f"one folder at least {FOLDER_TEST_DIVISOR} images of a digit, or join the data with `--data mnist`"
        )


def absolute(spec: str) -> str:
    """Give a source by a name that means the same in every working folder."""
    return _at(spec, lambda path: str(Path(path).absolute()))


def resolved(spec: str) -> str:
    """Give a source by the one name that its folder has, whatever links and ``..`` it is named by."""
    return _at(spec, os.path.realpath)


def _at(spec: str, place: Callable[[str], str]) -> str:
    path = spec.removeprefix(FOLDER_PREFIX)
    return spec if path == spec else FOLDER_PREFIX + place(path)


def _checksum(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> str:
    return hashlib.sha256(images.tobytes() + labels.astype(np.uint8).tobytes()).hexdigest()


def _source(spec: str, data_dir: Path | None) -> Dataset:
    if spec == MNIST:
        return _mnist(data_dir)
    if spec == UCI:
        return _uci()
    if spec.startswith(FOLDER_PREFIX) and spec != FOLDER_PREFIX:
        return _folder(Path(spec.removeprefix(FOLDER_PREFIX)))
    raise UsageError(f"--data takes mnist, uci or folder:PATH, not {spec!r}")


def _mnist(data_dir: Path | None) -> Dataset:
    path = data_dir
    if path is None:
        path = mnist.cache_folder()
        mnist.fetch(path, mnist.MIRRORS)
    return _dataset(MNIST, *mnist.part("train", path), *mnist.part("t10k", path))


def _uci() -> Dataset:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.stack([_enlarge(image) for image in digits.images])
    n = UCI_TRAINING_IMAGES
    return _dataset(UCI, images[:n], digits.target[:n], images[n:], digits.target[n:])


def _enlarge(image: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Bring a UCI image, [8, 8] from 0 to 16, to MNIST's size: ink in the middle 20x20 pixels of 28x28."""
    small = Image.fromarray((image * (255 / UCI_MAXIMUM)).round().astype(np.uint8))
    return np.pad(np.asarray(small.resize((DIGIT_BOX, DIGIT_BOX), Image.Resampling.BICUBIC)), (ROWS - DIGIT_BOX) // 2)


def _folder(path: Path) -> Dataset:
    images, labels = folder.read(path)
    order = np.random.default_rng(0).permutation(len(labels))  # so that the split's last images are of all digits
    images, labels = images[order], labels[order]
    rank = np.zeros(len(labels), np.int64)  # an image's number among those of its digit
    for digit in range(CLASSES):
        rank[labels == digit] = np.arange(np.count_nonzero(labels == digit))
    test = rank % FOLDER_TEST_DIVISOR == FOLDER_TEST_DIVISOR - 1
    name = f"{FOLDER_PREFIX}{path.resolve().name}"  # `.` has none of its own
    return _dataset(name, images[~test], labels[~test], images[test], labels[test])


def _dataset(
    name: str,
    train_images: NDArray[np.uint8],
    train_labels: NDArray[np.integer],
    test_images: NDArray[np.uint8],
    test_labels: NDArray[np.integer],
) -> Dataset:
    count = len(train_labels)
    return Dataset(
        name=name,
        train_images=train_images,
        train_labels=train_labels.astype(np.int64),
        held_out=np.arange(count) >= count - count // HELD_OUT_DIVISOR,
        test_images=test_images,
        test_labels=test_labels.astype(np.int64),
    )
