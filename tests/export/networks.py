"""Networks of every kind that training can make, with random weights large enough that a wrong one shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx import ModelProto

from scanline.verify import open_run
from train.model import Architecture, DigitLSTM

ARCHITECTURES = {
    "plain": Architecture(hidden=20),
    "projection": Architecture(hidden=18, projection=16),
    "stacked": Architecture(hidden=12, layers=2),
    "both ways": Architecture(hidden=10, bidirectional=True),
    "all at once": Architecture(hidden=10, projection=14, layers=2, bidirectional=True),
}
# These have no int8 form.
CONVOLUTIONS = {
    "convolutions": Architecture(hidden=10, convolutions=(3, 5)),
    "convolutions and all": Architecture(
        hidden=10, projection=14, layers=2, bidirectional=True, convolutions=(4, 6, 5)
    ),
}


def network(architecture: Architecture, scale: float = 2.0) -> DigitLSTM:
    """A network whose weights are `scale` times as large as PyTorch draws them."""
    torch.manual_seed(0)
    model = DigitLSTM(architecture).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


def strokes(count: int) -> NDArray[np.float32]:
    """Sparse random images, float32 [count, 28, 28] from 0 to 1, each other than the next."""
    generator = np.random.default_rng(0)
    ink = generator.random((count, 28, 28)) < 0.2
    return (generator.integers(0, 256, ink.shape) * ink / 255).astype(np.float32)


def compute(
    model: ModelProto,
    rows: NDArray[np.float32],
    threads: int = 1,
    optimisation: ort.GraphOptimizationLevel = ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
) -> NDArray[np.float32]:
    """Run a model in onnxruntime, all images in one batch."""
    return open_run(model.SerializeToString(), Path("model.onnx"), threads, optimisation)(rows)


def pytorch(model: DigitLSTM, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run a network in PyTorch."""
    with torch.inference_mode():
        logits: NDArray[np.float32] = model(torch.from_numpy(rows)).numpy()
    return logits
