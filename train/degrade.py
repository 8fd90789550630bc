"""Making training images worse on the device, as pens, lenses, light and sensors do, after they are bent.

Strokes grow or shrink, edges blur, ink fades and noise is added, each in some of the images alone. It costs little: the
largest of nine neighbours takes four comparisons of whole batches, a blur two matrix products, and noise comes from a
store of normal numbers that is drawn once. What is measured later (train.distortions) has exact ways of its own, so
that a fault here would show; the tests compare them.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from scanline.contract import COLUMNS, ROWS
from train.recipe import Degradation

BLUR: Final = 1.3  # the standard deviation of the full blur, in pixels
REACH: Final = 3  # standard deviations
KINDS: Final = 4
STORED: Final = 16  # batches of noise in the store: 7 MB of 144 images each
STRIDE: Final = 1_000_003  # from a step's noise to the next one's in the store; a prime, so that few steps share any

Chosen = tuple[Tensor, Tensor]  # which images of a batch, int64 [k], and how much, float32 [k, 1, 1]


def draw(degradation: Degradation, batch: int) -> Tensor:
    """Draw how much worse each image gets, all uniform within the limits, from the CPU's default generator.

    Args:
        degradation: the limits, and the share of images that each is done to.
        batch: the number of images.

    Returns:
        float32 [batch, 4 kinds], on the CPU: thickness, less than 0 for thinner strokes, blur, fading and noise.
    """
    done = torch.rand(batch, KINDS) < degradation.share
    drawn = torch.rand(batch, KINDS) * done
    thickness = degradation.thickness * (1 - 2 * torch.randint(2, (batch,)))
    limits = [degradation.blur, degradation.fading, degradation.noise]
    return torch.stack([drawn[:, 0] * thickness, *(limit * drawn[:, 1 + at] for at, limit in enumerate(limits))], dim=1)


def choose(strengths: Tensor, device: torch.device) -> list[list[Chosen]]:
    """Say for each batch and kind which images it is done to and how much: few, so that the others cost nothing.

    Args:
        strengths: float32 [batches, batch, 4], on the CPU, where counting them makes no device wait.
        device: where the images are.
    """
    by_kind = strengths.transpose(1, 2)
    done = by_kind != 0
    counts = done.sum(dim=2).flatten().tolist()
    images = torch.split(_sent(done.nonzero()[:, 2], device), counts)
    amounts = torch.split(_sent(by_kind[done].view(-1, 1, 1), device), counts)
    chosen = list(zip(images, amounts, strict=True))
    return [chosen[first : first + KINDS] for first in range(0, len(chosen), KINDS)]


def _sent(numbers: Tensor, device: torch.device) -> Tensor:
    """Bring numbers from the CPU to a device, which a GPU does beside what it computes if they can't be paged out."""
    return numbers.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else numbers


class Noise:
    """Normal numbers for every step, from a store: drawing them takes a CPU as long as all else that is done here."""

    def __init__(self, batch: int, device: torch.device) -> None:
        """Draw them from the device's default generator.

        Args:
            batch: images a step, over all processes.
            device: where they live.
        """
        self._shape = (batch, ROWS, COLUMNS)
        self._step = batch * ROWS * COLUMNS
        self._numbers = torch.randn(STORED * self._step, device=device)

    def __getitem__(self, step: int) -> Tensor:
        """Give those of a step, float32 [batch, 28, 28]."""
        start = step * STRIDE % ((STORED - 1) * self._step)
        return self._numbers[start : start + self._step].view(self._shape)


def worse(images: Tensor, chosen: list[Chosen], noise: Tensor) -> None:
    """Make images worse, in place.

    Args:
        images: float32 [batch, 28, 28], 0 background to 1 ink; so they are afterwards.
        chosen: which of them, and how much, as from `choose`.
        noise: normal numbers, float32 [batch, 28, 28].
    """
    *kinds, (noisy, level) = chosen
    for (at, strength), change in zip(kinds, (_thicker, _blurred, _fainter), strict=True):
        images.index_copy_(0, at, change(images.index_select(0, at), strength))
    images.index_copy_(0, noisy, images.index_select(0, noisy).addcmul(level, noise.index_select(0, noisy)))
    images.clamp_(0, 1)


def _thicker(images: Tensor, pixels: Tensor) -> Tensor:
    sign = pixels.sign()
    return images.lerp(sign * _largest_around(sign * images), pixels.abs())


def _blurred(images: Tensor, share: Tensor) -> Tensor:
    smooth = _smoothing(images.device)
    return images.lerp(smooth @ images @ smooth, share)


def _fainter(images: Tensor, share: Tensor) -> Tensor:
    return images * (1 - share)


def _largest_around(images: Tensor) -> Tensor:
    """Give the largest of each pixel and its eight neighbours; beyond the edge is background."""
    padded = functional.pad(images, (1, 1, 1, 1))
    tall = torch.maximum(torch.maximum(padded[:, :-2], padded[:, 1:-1]), padded[:, 2:])
    return torch.maximum(torch.maximum(tall[:, :, :-2], tall[:, :, 1:-1]), tall[:, :, 2:])


@cache
def _smoothing(device: torch.device) -> Tensor:
    """The matrix, float32 [28, 28], that blurs rows from the right and columns from the left; it is symmetric."""
    assert ROWS == COLUMNS
    place = torch.arange(ROWS, dtype=torch.float32)
    distance = (place[:, None] - place).abs() / BLUR
    # what is farther is nothing, and would be too small for a processor's fast way with numbers
    weights = torch.where(distance <= REACH, torch.exp(-0.5 * distance.square()), 0.0)
    return (weights / weights[ROWS // 2].sum()).to(device)
