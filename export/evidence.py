"""What the gate holds against a file: the run's own test data, and what PyTorch computes for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from export.network import Network, from_model
from scanline.contract import COLUMNS, ROWS, to_network
from scanline.errors import InputError, UsageError
from train import data, evaluate
from train.checkpoint import Checkpoint

EVERY_ROW_IMAGES: Final = 256
RANDOM_IMAGES: Final = 8
HOT_PIXELS: Final = ((0, 0), (0, 27), (13, 14), (27, 0), (27, 27))


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Images and the right logits for them.

    Attributes:
        network: the run's weights.
        images: the test images, uint8 [n, 28, 28].
        rows: the same as the network's input, float32 [n, 28, 28].
        labels: int64 [n].
        expected: PyTorch's logits for `rows`, float32 [n, 10].
        every_row: PyTorch's logits after each row of the first images, float32 [m, 28, 10]; None where the network
            reads ahead.
        extremes: blank, full, one hot pixel, noise: float32 [k, 28, 28].
        extremes_expected: PyTorch's logits for these, float32 [k, 10].
    """

    network: Network
    images: NDArray[np.uint8]
    rows: NDArray[np.float32]
    labels: NDArray[np.int64]
    expected: NDArray[np.float32]
    every_row: NDArray[np.float32] | None
    extremes: NDArray[np.float32]
    extremes_expected: NDArray[np.float32]

    @property
    def accuracy(self) -> float:
        """The share of the test images that PyTorch reads rightly."""
        return float(np.mean(self.expected.argmax(axis=1) == self.labels))


def gather(checkpoint: Checkpoint, data_dir: Path | None) -> Evidence:
    """Load the run's test data and compute the right logits.

    Args:
        checkpoint: the run.
        data_dir: the folder of MNIST's files; None for the one that the run was trained from.

    Raises:
        UsageError: the data are not there, or not those of the run.
    """
    config, model = checkpoint.config, checkpoint.model
    place = data_dir or (Path(config.data_dir) if config.data_dir else None)
    try:
        dataset = data.load(config.data, place)
    except InputError as error:
        raise UsageError(f"the export is checked on the run's own test data, which are not there: {error}") from None
    if dataset.sha256 != config.dataset_sha256:
        raise UsageError(
            f"the data {' + '.join(config.data)} are not those of the run: their SHA-256 is {dataset.sha256}, "
            f"the run has {config.dataset_sha256}; give the same data, or train again"
        )
    if config.test_sha256 not in {"", dataset.test_sha256}:
        raise UsageError(
            f"the test images of {' + '.join(config.data)} are not those of the run: their SHA-256 is "
            f"{dataset.test_sha256}, the run has {config.test_sha256}; give the same data, or train again"
        )
    network = from_model(model)
    rows, extremes = to_network(dataset.test_images), to_network(extreme_images())
    few = torch.from_numpy(rows[:EVERY_ROW_IMAGES])
    return Evidence(
        network=network,
        images=dataset.test_images,
        rows=rows,
        labels=dataset.test_labels,
        expected=evaluate.logits(model, torch.from_numpy(rows)).numpy(),
        every_row=None if network.reads_ahead else evaluate.every_row(model, few).numpy(),
        extremes=extremes,
        extremes_expected=evaluate.logits(model, torch.from_numpy(extremes)).numpy(),
    )


def extreme_images() -> NDArray[np.uint8]:
    """Make images that no test set has: blank, full, one hot pixel, uniform noise. uint8 [n, 28, 28]."""
    images = np.zeros((2 + len(HOT_PIXELS) + RANDOM_IMAGES, ROWS, COLUMNS), np.uint8)
    images[1] = 255
    for image, pixel in zip(images[2:], HOT_PIXELS, strict=False):
        image[pixel] = 255
    images[-RANDOM_IMAGES:] = np.random.default_rng(0).integers(0, 256, (RANDOM_IMAGES, ROWS, COLUMNS))
    return images
