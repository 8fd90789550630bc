"""A trained network's weights as ONNX wants them: gates in its order, one bias, nothing linear left before the LSTM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from train.model import DigitLSTM

GATES: Final = 4
# ONNX's LSTM has its gates in the order input, output, forget, cell; PyTorch's has input, forget, cell, output.
_GATE_ORDER: Final = [0, 3, 1, 2]


@dataclass(frozen=True)
class Layer:
    """One layer of an LSTM; the gates' blocks stand in ONNX's order: input, output, forget, cell.

    Attributes:
        input_weight: float32 [directions, 4 * hidden, inputs].
        recurrent_weight: float32 [directions, 4 * hidden, hidden].
        bias: float32 [directions, 4 * hidden].
    """

    input_weight: NDArray[np.float32]
    recurrent_weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    @property
    def directions(self) -> int:
        """1, or 2 for a layer that reads the rows both ways."""
        return len(self.bias)

    @property
    def hidden(self) -> int:
        """The number of units of each direction."""
        return int(self.recurrent_weight.shape[2])


@dataclass(frozen=True)
class Convolution:
    """A 3x3 convolution, padded to the size of its input, and a ReLU.

    Attributes:
        weight: float32 [outputs, inputs, 3, 3].
        bias: float32 [outputs].
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True)
class Network:
    """What a model file computes.

    Attributes:
        layers: the LSTM, from the pixels upwards.
        head_weight: float32 [10, directions * hidden].
        head_bias: float32 [10].
        convolutions: what the pixels go through before the LSTM (train.model.Architecture), from the pixels upwards.
    """

    layers: tuple[Layer, ...]
    head_weight: NDArray[np.float32]
    head_bias: NDArray[np.float32]
    convolutions: tuple[Convolution, ...]

    @property
    def directions(self) -> int:
        """1, or 2 where the answer comes from the mean of both directions' states."""
        return self.layers[0].directions

    @property
    def reads_ahead(self) -> bool:
        """Whether there is no answer before the last row."""
        return bool(self.convolutions) or self.directions > 1


def from_model(model: DigitLSTM) -> Network:
    """Take the weights out of a trained model.

    A linear layer before the LSTM is folded into the first layer's weights: W (P x + p) + b = (W P) x + (W p + b).
    The products are summed in float64, so each folded weight is the float32 number nearest to the exact one.
    """
    shape = model.architecture
    layers = [_layer(model, index, 2 if shape.bidirectional else 1) for index in range(shape.layers)]
    if model.projection is not None:
        weight, bias = _float64(model.projection.weight), _float64(model.projection.bias)
        first_weight, first_bias = layers[0][0], layers[0][2]
        layers[0] = (first_weight @ weight, layers[0][1], first_bias + first_weight @ bias)
    return Network(
        layers=tuple(Layer(*(part.astype(np.float32) for part in layer)) for layer in layers),
        head_weight=_float64(model.head.weight).astype(np.float32),
        head_bias=_float64(model.head.bias).astype(np.float32),
        convolutions=_convolutions(model),
    )


def _convolutions(model: DigitLSTM) -> tuple[Convolution, ...]:
    if model.convolutions is None:
        return ()
    parts = [_float64(parameter).astype(np.float32) for parameter in model.convolutions.parameters()]
    return tuple(Convolution(weight, bias) for weight, bias in zip(parts[::2], parts[1::2], strict=True))


def _layer(
    model: DigitLSTM, index: int, directions: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    def stacked(name: str) -> NDArray[np.float64]:
        suffixes = ["", "_reverse"][:directions]
        parts = [_float64(model.lstm.get_parameter(f"{name}_l{index}{suffix}")) for suffix in suffixes]
        return np.stack([_reorder_gates(part) for part in parts])

    return stacked("weight_ih"), stacked("weight_hh"), stacked("bias_ih") + stacked("bias_hh")


def _reorder_gates(array: NDArray[np.float64]) -> NDArray[np.float64]:
    gates = array.reshape(GATES, -1, *array.shape[1:])
    return gates[_GATE_ORDER].reshape(array.shape)


def _float64(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.detach().cpu().double().numpy()
