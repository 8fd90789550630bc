"""Images made worse in the ways that real ones are, to measure what a network bears."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from train import augment

NOISE_SEED: Final = 0


def rotate(images: Tensor, degrees: float) -> Tensor:
    """Turn float32 [n, 28, 28] anticlockwise about the middle."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return _mapped(images, (0, cosine, -sine), (0, sine, cosine))


def shift(images: Tensor, pixels: float) -> Tensor:
    """Move float32 [n, 28, 28] to the right and down."""
    return _mapped(images, (-pixels, 1, 0), (-pixels, 0, 1))


def blur(images: Tensor, sigma: float) -> Tensor:
    """Smooth float32 [n, 28, 28] by a Gaussian whose standard deviation is in pixels."""
    radius = math.ceil(3 * sigma)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32, device=images.device)
    kernel = torch.exp(-0.5 * (offsets / sigma).square())
    kernel = kernel / kernel.sum()
    rows = functional.conv2d(images.unsqueeze(1), kernel.view(1, 1, -1, 1), padding=(radius, 0))
    return functional.conv2d(rows, kernel.view(1, 1, 1, -1), padding=(0, radius)).squeeze(1)


def noise(images: Tensor, sigma: float) -> Tensor:
    """Add Gaussian noise, of this standard deviation and always the same, to float32 [n, 28, 28] within 0 to 1."""
    generator = torch.Generator().manual_seed(NOISE_SEED)
    drawn = torch.randn(images.shape, generator=generator).to(images.device)
    return (images + sigma * drawn).clamp(0, 1)


def thickness(images: Tensor, pixels: float) -> Tensor:
    """Thicken the strokes of float32 [n, 28, 28] by up to 1 pixel each side, or thin them where it is negative."""
    sign = math.copysign(1, pixels)
    changed = sign * functional.max_pool2d(sign * images.unsqueeze(1), kernel_size=3, stride=1, padding=1).squeeze(1)
    return torch.lerp(images, changed, abs(pixels))


def contrast(images: Tensor, share: float) -> Tensor:
    """Leave this share of the ink of float32 [n, 28, 28]."""
    return images * share


GRID: Final[tuple[tuple[Callable[[Tensor, float], Tensor], str, tuple[float, ...]], ...]] = (
    (rotate, "degrees", (-30, -15, 15, 30)),
    (shift, "pixels", (-4, -2, 2, 4)),
    (blur, "pixels", (0.5, 1, 1.5)),
    (noise, "of full ink", (0.1, 0.2, 0.4)),
    (thickness, "pixels", (-1, -0.5, 0.5, 1)),
    (contrast, "of the ink", (0.75, 0.5, 0.25)),
)


def _mapped(images: Tensor, x: tuple[float, float, float], y: tuple[float, float, float]) -> Tensor:
    """Take each pixel from where an affine mapping of (1, x, y) says."""
    weights = torch.zeros(1, 2, augment.SURFACES, device=images.device)
    weights[0, :, :3] = torch.tensor([x, y])
    return augment.bend(images, weights.expand(len(images), -1, -1))
