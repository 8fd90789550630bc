"""A network's answers, in evaluation mode and in float32: a GPU's figures are held against a CPU's."""

from __future__ import annotations

import torch
from torch import Tensor

from train.augment import to_rows
from train.model import DigitLSTM

BATCH = 500

exactly = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)  # PyTorch lets cuDNN take TF32 for float32


@exactly
@torch.inference_mode()
def logits(network: DigitLSTM, images: Tensor) -> Tensor:
    """Answer for every image, a batch at a time.

    Args:
        network: it is left in evaluation mode.
        images: uint8 or float32 [n, 28, 28] on the network's device; float32 is the network's input as it is.

    Returns:
        float32 [n, 10].
    """
    network.eval()
    return torch.cat([network(_rows(batch)) for batch in torch.split(images, BATCH)])


@exactly
@torch.inference_mode()
def every_row(network: DigitLSTM, images: Tensor) -> Tensor:
    """Answer after every row; arguments as for `logits`.

    Returns:
        float32 [n, 28, 10].
    """
    network.eval()
    return torch.cat([network.every_row(_rows(batch)) for batch in torch.split(images, BATCH)])


def accuracy(answers: Tensor, labels: Tensor) -> float:
    """Give the share of logits, float32 [n, 10], whose largest is at the label, int64 [n]."""
    return (answers.argmax(dim=1) == labels).double().mean().item()


def _rows(images: Tensor) -> Tensor:
    return images if images.is_floating_point() else to_rows(images)
