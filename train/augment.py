"""Bending training images on the device, a batch at a time: one affine and elastic mapping, one resampling.

A mapping says where each pixel of the result is taken from. Both of its coordinates are a weighted sum of 28 fixed
surfaces: a constant, x, y, and one smooth bump for each of 5x5 control points. So a batch of mappings is a matrix
product, far cheaper than drawing displacement fields and smoothing them (Simard, Steinkraus and Platt 2003).
"""

from __future__ import annotations

import math
from functools import cache
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from scanline.contract import COLUMNS, ROWS
from train.recipe import Distortion

CONTROL_POINTS: Final = 5  # along each side
SURFACES: Final = 3 + CONTROL_POINTS**2
INK: Final = 255.0


def draw(distortion: Distortion, batch: int, device: torch.device) -> Tensor:
    """Draw mappings, all uniform within the distortion's limits, from the device's default generator.

    Args:
        distortion: the limits.
        batch: the number of images.
        device: where the result lives.

    Returns:
        The weights of the surfaces, float32 [batch, 2 coordinates, 28], in pixels from the middle of the image.
    """
    angle, shear, x_scale, y_scale = (2 * torch.rand(4, batch, device=device) - 1).unbind()
    angle = math.radians(distortion.degrees) * angle
    cosine, sine, slant = angle.cos(), angle.sin(), distortion.shear * shear
    x_scale, y_scale = 1 + distortion.scale * x_scale, 1 + distortion.scale * y_scale
    # a rotation after a shear after a scaling
    on_x = torch.stack([cosine * x_scale, sine * x_scale], dim=1)
    on_y = torch.stack([(cosine * slant - sine) * y_scale, (sine * slant + cosine) * y_scale], dim=1)
    shift = distortion.shift * (2 * torch.rand(batch, 2, 1, device=device) - 1)
    elastic = distortion.elastic * (2 * torch.rand(batch, 2, CONTROL_POINTS**2, device=device) - 1)
    return torch.cat([shift, on_x.unsqueeze(2), on_y.unsqueeze(2), elastic], dim=2)


def bend(images: Tensor, weights: Tensor) -> Tensor:
    """Resample images, bilinear, with background beyond their edge.

    Args:
        images: float32 [batch, 28, 28].
        weights: a mapping for each, float32 [batch, 2, 28], as from `draw`.

    Returns:
        float32 [batch, 28, 28].
    """
    grid = (weights @ _surfaces(images.device)).reshape(-1, 2, ROWS, COLUMNS).permute(0, 2, 3, 1)
    return functional.grid_sample(images.unsqueeze(1), grid, padding_mode="zeros", align_corners=False).squeeze(1)


def to_rows(images: Tensor) -> Tensor:
    """Turn pixels, uint8 [batch, 28, 28], into the network's input, float32 of the same shape from 0 to 1."""
    return images.float() / INK


@cache
def _surfaces(device: torch.device) -> Tensor:
    """The 28 surfaces, float32 [28, 784]: 1, x and y in pixels from the middle, and the 25 bumps, bicubic.

    They are in grid_sample's unit, half the image, so that the sum need not be divided.
    """
    axis = torch.arange(ROWS, dtype=torch.float32) - (ROWS - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    points = torch.eye(CONTROL_POINTS**2).reshape(1, -1, CONTROL_POINTS, CONTROL_POINTS)
    bumps = functional.interpolate(points, size=(ROWS, COLUMNS), mode="bicubic", align_corners=True).squeeze(0)
    surfaces = torch.cat([torch.stack([torch.ones_like(x), x, y]), bumps]).flatten(1)
    return (surfaces / (ROWS / 2)).to(device)
