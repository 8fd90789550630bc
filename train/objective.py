"""What training makes small: the error of the last answer, and a little of the answers before it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from scanline.contract import ROWS
from train.model import DigitLSTM
from train.recipe import Recipe


class Objective(nn.Module):
    """The network and its loss as one module, which is the form that DistributedDataParallel wraps."""

    row_weights: Tensor

    def __init__(self, network: DigitLSTM, recipe: Recipe) -> None:
        super().__init__()
        self.network = network
        self.label_smoothing = recipe.label_smoothing
        self.every_row = recipe.early_rows > 0
        self.no_digit = recipe.negatives > 0
        early = torch.arange(1, ROWS, dtype=torch.float32).square()
        weights = torch.cat([recipe.early_rows * early / early.sum(), torch.tensor([1 - recipe.early_rows])])
        self.register_buffer("row_weights", weights, persistent=False)

    def forward(self, rows: Tensor, labels: Tensor) -> Tensor:
        """Give the mean softmax cross-entropy.

        Args:
            rows: float32 [batch, 28, 28].
            labels: int64 [batch], 0 to 9; 10 for no digit.

        Returns:
            A float32 scalar; the weights of the 28 answers add up to 1.
        """
        answers = self.network.every_row(rows) if self.every_row else self.network(rows)
        if self.no_digit:
            answers = functional.pad(answers, (0, 1))  # a logit of 0
        if not self.every_row:
            return functional.cross_entropy(answers, labels, label_smoothing=self.label_smoothing)
        answers = answers.transpose(1, 2)  # cross_entropy wants [batch, classes, rows]
        targets = labels.unsqueeze(1).expand(-1, ROWS)
        losses = functional.cross_entropy(answers, targets, label_smoothing=self.label_smoothing, reduction="none")
        return (losses * self.row_weights).sum(dim=1).mean()
