"""What training makes small: the error of the last answer, and a little of the answers before it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from scanline.contract import CLASSES, ROWS
from train.model import DigitLSTM
from train.recipe import Recipe


class Objective(nn.Module):
    """The network and its loss as one module, which is the form that DistributedDataParallel wraps."""

    def __init__(self, network: DigitLSTM, recipe: Recipe, teachers: Sequence[DigitLSTM] = ()) -> None:
        """Put a loss around a network.

        Args:
            network: it is trained.
            recipe: names the targets and their weights.
            teachers: what one of them says has a share of the target, another one's at every step: on average that is
                their mean, at the cost of one. They learned of the same kinds of images.
        """
        super().__init__()
        self.network = network
        self.teachers = nn.ModuleList(teachers).eval().requires_grad_(requires_grad=False)
        self.teacher_share = recipe.teacher_share
        self.label_smoothing = recipe.label_smoothing
        self.every_row = recipe.early_rows > 0
        self.no_digit = recipe.negatives > 0
        early = torch.arange(1, ROWS, dtype=torch.float32).square()
        weights = torch.cat([recipe.early_rows * early / early.sum(), torch.tensor([1 - recipe.early_rows])])
        # no buffer, which DistributedDataParallel would send around at every step
        self.row_weights = weights.to(next(network.parameters()).device)

    def forward(self, rows: Tensor, labels: Tensor, step: int = 0) -> Tensor:
        """Give the mean softmax cross-entropy.

        Args:
            rows: float32 [batch, 28, 28].
            labels: int64 [batch], 0 to 9; 10 for no digit.
            step: its number in the run, 0 or more: whose turn among the teachers it is.

        Returns:
            A float32 scalar; the weights of the 28 answers add up to 1.
        """
        targets = self._targets(rows, labels, step)
        if not self.every_row:
            return functional.cross_entropy(self._answers(self.network(rows)), targets)
        answers = self._answers(self.network.every_row(rows)).transpose(1, 2)  # [batch, classes, rows] is wanted
        losses = functional.cross_entropy(answers, targets.unsqueeze(2).expand(-1, -1, ROWS), reduction="none")
        return (losses * self.row_weights).sum(dim=1).mean()

    def _targets(self, rows: Tensor, labels: Tensor, step: int) -> Tensor:
        """Give the probabilities that the answers should have, float32 [batch, classes]."""
        classes = CLASSES + self.no_digit
        targets = functional.one_hot(labels, classes) * (1 - self.label_smoothing) + self.label_smoothing / classes
        if not self.teachers:
            return targets
        with torch.no_grad():
            said = self._answers(self.teachers[step % len(self.teachers)](rows))
        return targets.lerp(said.softmax(dim=1), self.teacher_share)

    def _answers(self, logits: Tensor) -> Tensor:
        """Give logits [..., 10] as float32, with the answer "no digit", whose logit is 0, where the recipe has it."""
        logits = logits.float()  # autocast may leave bfloat16, in which CUDA would compute the loss
        return functional.pad(logits, (0, 1)) if self.no_digit else logits
