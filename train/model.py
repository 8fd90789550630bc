"""The network: an LSTM that reads a digit's 28 rows of pixels one after the other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scanline.contract import CLASSES, COLUMNS, ROWS


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The shape of a network, enough to build it again.

    Attributes:
        hidden: the units of each LSTM layer and direction.
        projection: the width of a linear layer between a row and the LSTM, or None for the raw pixels.
        layers: stacked LSTM layers.
        bidirectional: read the rows upwards as well as downwards.
        columns: give step t column t beside row t, 56 values instead of 28.
        dropout: the share of values dropped between stacked layers, 0 to 1.
    """

    hidden: int
    projection: int | None = None
    layers: int = 1
    bidirectional: bool = False
    columns: bool = False
    dropout: float = 0.0

    @property
    def name(self) -> str:
        """The architecture in a word for the model card, such as ``lstm-128``."""
        parts = [
            "columns" if self.columns else "",
            f"projection-{self.projection}" if self.projection else "",
            "bidirectional" if self.bidirectional else "",
            f"lstm-{self.layers}x{self.hidden}" if self.layers > 1 else f"lstm-{self.hidden}",
        ]
        return "-".join(part for part in parts if part)

    @property
    def answers_every_row(self) -> bool:
        """Whether the network sees nothing below a row before it answers after that row."""
        return not (self.bidirectional or self.columns)


class DigitLSTM(nn.Module):
    """An LSTM (Hochreiter and Schmidhuber 1997) over the rows, with a linear answer on its state.

    PyTorch's LSTM carries two biases, of which one is redundant. `bias_ih` is trained; `bias_hh` is the constant 1 on
    the forget gate and 0 elsewhere (Jozefowicz et al. 2015: a forget gate that starts open lets the gradient through).

    Attributes:
        architecture: its shape.
        projection: the linear layer before the LSTM, or None.
        lstm: the recurrent layers, batch first.
        head: the linear layer from the state to the 10 logits.
    """

    projection: nn.Linear | None
    lstm: nn.LSTM
    head: nn.Linear

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        inputs = ROWS + COLUMNS if architecture.columns else COLUMNS
        self.projection = nn.Linear(inputs, architecture.projection) if architecture.projection else None
        self.lstm = nn.LSTM(
            architecture.projection or inputs,
            architecture.hidden,
            architecture.layers,
            batch_first=True,
            bidirectional=architecture.bidirectional,
            dropout=architecture.dropout,
        )
        self.head = nn.Linear(architecture.hidden * (2 if architecture.bidirectional else 1), CLASSES)
        forget_gate = slice(
            architecture.hidden, 2 * architecture.hidden
        )  # PyTorch's order: input, forget, cell, output
        for name, parameter in self.lstm.named_parameters():
            if name.startswith("bias_hh"):
                parameter.requires_grad_(False).zero_()[forget_gate] = 1

    def forward(self, rows: Tensor) -> Tensor:
        """Read whole digits.

        Args:
            rows: float32 [batch, 28, 28], 0 for background to 1 for ink.

        Returns:
            The logits, float32 [batch, 10]: from the state after the last row, or for a bidirectional network from
            the mean of its states.
        """
        states = self._states(rows)
        logits: Tensor = self.head(states.mean(dim=1) if self.architecture.bidirectional else states[:, -1])
        return logits

    def every_row(self, rows: Tensor) -> Tensor:
        """Answer after every row; the last of the 28 answers is that of `forward`.

        Args:
            rows: float32 [batch, 28, 28], as for `forward`.

        Returns:
            The logits, float32 [batch, 28, 10].

        Raises:
            ValueError: the network looks ahead (bidirectional, or columns), so it has no answer before the last row.
        """
        if not self.architecture.answers_every_row:
            raise ValueError(f"{self.architecture.name} reads the whole image at once and has no answer after each row")
        logits: Tensor = self.head(self._states(rows))
        return logits

    def trained_weights(self) -> int:
        """Count the weights that training changes."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)

    def _states(self, rows: Tensor) -> Tensor:
        steps = torch.cat([rows, rows.transpose(1, 2)], dim=2) if self.architecture.columns else rows
        states: Tensor = self.lstm(steps if self.projection is None else self.projection(steps))[0]
        return states
