"""The network: an LSTM that reads a digit's 28 rows of pixels one after the other, or what convolutions see in them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from scanline.contract import CLASSES, COLUMNS

# oneDNN, which computes an LSTM on a CPU, is fastest with inputs and units in groups of so many: in bfloat16 126 units
# on rows of 28 take a quarter longer than 128 on rows of 32.
LANES: Final = 16


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The shape of a network, enough to build it again.

    Attributes:
        hidden: the units of each LSTM layer and direction.
        projection: the width of a linear layer between a row and the LSTM, or None for the raw pixels.
        layers: stacked LSTM layers.
        bidirectional: read the rows upwards as well as downwards.
        convolutions: the channels of 3x3 convolutions before the LSTM, each followed by a ReLU; after the first the
            largest of 2x2 values is kept, after the last the largest of each two in a row. So the LSTM reads 14 steps,
            two rows of pixels and their surroundings each. Empty for the raw pixels.
    """

    hidden: int
    projection: int | None = None
    layers: int = 1
    bidirectional: bool = False
    convolutions: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The architecture in a word for the model card, such as ``lstm-128``."""
        parts = [
            "-".join(["conv", *map(str, self.convolutions)]) if self.convolutions else "",
            f"projection-{self.projection}" if self.projection else "",
            "bidirectional" if self.bidirectional else "",
            f"lstm-{self.layers}x{self.hidden}" if self.layers > 1 else f"lstm-{self.hidden}",
        ]
        return "-".join(part for part in parts if part)

    @property
    def answers_every_row(self) -> bool:
        """Whether the network sees nothing below a row before it answers after that row."""
        return not (self.bidirectional or self.convolutions)


class DigitLSTM(nn.Module):
    """An LSTM (Hochreiter and Schmidhuber 1997) over the rows, with a linear answer on its state.

    PyTorch's LSTM carries two biases, of which one is redundant. `bias_ih` is trained; `bias_hh` is the constant 1 on
    the forget gate and 0 elsewhere (Jozefowicz et al. 2015: a forget gate that starts open lets the gradient through).

    Convolutions before it share their weights between places (LeCun et al. 1998), as in the networks that read lines of
    text (Shi et al. 2017, arXiv:1507.05717).

    Attributes:
        architecture: its shape.
        convolutions: what turns rows [batch, 1, 28, 28] into features [batch, channels, 14, 7], or None.
        projection: the linear layer before the LSTM, or None.
        lstm: the recurrent layers, batch first.
        head: the linear layer from the state to the 10 logits.
    """

    convolutions: nn.Sequential | None
    projection: nn.Linear | None
    lstm: nn.LSTM
    head: nn.Linear

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.convolutions = _convolutions(architecture.convolutions) if architecture.convolutions else None
        inputs = architecture.convolutions[-1] * COLUMNS // 4 if architecture.convolutions else COLUMNS
        self.projection = nn.Linear(inputs, architecture.projection) if architecture.projection else None
        self.lstm = _lstm(architecture, architecture.projection or inputs, architecture.hidden)
        # What a CPU computes, with other weights; in a list, where the module's own weights are not looked for.
        wide = _lstm(architecture, *_fast(architecture, inputs), device="meta")
        same = architecture.projection is None and (wide.input_size, wide.hidden_size) == (inputs, architecture.hidden)
        self._computed = [] if same else [wide]
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
        return self._answer(states.mean(dim=1) if self.architecture.bidirectional else states[:, -1])

    def every_row(self, rows: Tensor) -> Tensor:
        """Answer after every row; the last of the 28 answers is that of `forward`.

        Args:
            rows: float32 [batch, 28, 28], as for `forward`.

        Returns:
            The logits, float32 [batch, 28, 10].

        Raises:
            ValueError: the network looks ahead (bidirectional, or convolutions): it has no answer before the last row.
        """
        if not self.architecture.answers_every_row:
            raise ValueError(f"{self.architecture.name} reads the whole image at once and has no answer after each row")
        # the LSTM leaves its states row by row, whatever their shape says: in that order nothing is copied
        return self._answer(self._states(rows).transpose(0, 1)).transpose(0, 1)

    def trained_weights(self) -> int:
        """Count the weights that training changes."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)

    def _states(self, rows: Tensor) -> Tensor:
        """Give the states, float32 [batch, steps, units]; on a CPU units that stay 0 may follow the network's own."""
        steps = rows if self.convolutions is None else self._features(self.convolutions, rows)
        states: Tensor
        if self._computed and not steps.is_cuda:
            shape = self._computed[0].train(self.training)
            wide = functional.pad(steps, (0, shape.input_size - steps.shape[-1]))
            states = functional_call(shape, self._weights(shape), (wide,))[0]
            return states
        # On a GPU as it is written down: cuDNN wants an LSTM's weights in one piece of memory, made once.
        projected = steps if self.projection is None else self.projection(steps)
        if projected.is_cuda:
            # autocast would compute it in float16 even where bfloat16 was asked for, and lose the small gradients
            with torch.autocast("cuda", enabled=False):
                states = self.lstm(projected.float())[0]
        else:
            states = self.lstm(projected)[0]
        return states

    def _weights(self, shape: nn.LSTM) -> dict[str, Tensor]:
        """Give the weights of an LSTM that is the projection and this one, and wider where that is faster.

        W (P x + p) + b is (W P) x + (W p + b), and so are its gradients. To multiply the projection into the first
        weights, once a batch, takes two thirds of the time that projecting every step does.
        """
        weights: dict[str, Tensor] = dict(self.lstm.named_parameters())
        if self.projection is not None:
            for direction in ["", "_reverse"][: 1 + self.architecture.bidirectional]:
                first, bias = f"weight_ih_l0{direction}", f"bias_ih_l0{direction}"
                weights[bias] = weights[bias] + weights[first] @ self.projection.bias
                weights[first] = weights[first] @ self.projection.weight
        return {name: _widened(part, shape.get_parameter(name).shape) for name, part in weights.items()}

    def _answer(self, states: Tensor) -> Tensor:
        """Give the logits of states [..., units], of which the last may be none of the network's own."""
        weight = functional.pad(self.head.weight, (0, states.shape[-1] - self.head.in_features))
        return functional.linear(states, weight, self.head.bias)

    def _features(self, convolutions: nn.Sequential, rows: Tensor) -> Tensor:
        """Give what the convolutions see as the LSTM's steps: float32 [batch, 14, channels * 7]."""
        # with the channels last, here and in the weights, a training step on a CPU takes two thirds of the time
        images = rows.unsqueeze(1).contiguous(memory_format=torch.channels_last)
        features: Tensor = convolutions(images)
        return features.transpose(1, 2).flatten(2)


def _lstm(architecture: Architecture, inputs: int, units: int, device: str | None = None) -> nn.LSTM:
    return nn.LSTM(
        inputs,
        units,
        architecture.layers,
        batch_first=True,
        bidirectional=architecture.bidirectional,
        device=device,
    )


def _fast(architecture: Architecture, inputs: int) -> tuple[int, int]:
    """Give the inputs and units, as few more as make both whole LANES, that an LSTM of one layer and direction gets."""
    if architecture.bidirectional or architecture.layers > 1:  # spare units would lie between others
        return inputs, architecture.hidden
    return inputs + -inputs % LANES, architecture.hidden + -architecture.hidden % LANES


def _widened(weights: Tensor, shape: torch.Size) -> Tensor:
    """Fill an LSTM's weights or biases up with zeros; a unit that has no others stays 0.

    Args:
        weights: float32 [4 units] or [4 units, inputs], the four gates one below the other.
        shape: that of the wider LSTM's.
    """
    if weights.shape == shape:
        return weights
    gates = weights.reshape(4, len(weights) // 4, *weights.shape[1:])
    sides = zip(gates.shape[1:], (shape[0] // 4, *shape[1:]), strict=True)
    more = [zeros for own, wide in sides for zeros in (wide - own, 0)]
    return functional.pad(gates, more[::-1]).flatten(0, 1)  # pad takes the last side first


def _convolutions(channels: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    last = len(channels) - 1
    for depth, (below, own) in enumerate(pairwise((1, *channels))):
        layers.append(nn.Conv2d(below, own, 3, padding=1))
        if depth == 0:
            layers.append(nn.MaxPool2d(2))
        if depth == last:
            layers.append(nn.MaxPool2d((1, 2)))
        layers.append(nn.ReLU())  # after the largest are chosen: of fewer numbers, with the same result
    convolutions = nn.Sequential(*layers)
    convolutions.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's annotations leave it out
    return convolutions
