"""The int8 form of a network, whose answers don't depend on who else is in the batch.

onnxruntime's DynamicQuantizeLSTM keeps int8 weights and quantises its activations as it goes: x once, h before every
step, each with one scale over all the images at hand. So a neighbour moves the scale, and with it an image's logits.
Here those ranges are pinned, for every input and every batch:

- x: pixels are clipped to [0, 1], NaN to 0, and each row gets a constant 1 beside it, so the range is exactly [0, 1].
  Its scale is then 1/255, which loses nothing of an 8-bit image.
- h: two sentinel units have their gates saturated, so that c counts the steps up or down and h_t is +tanh(t) and
  -tanh(t). Every other unit has |c_t| <= t, because |c_t| <= |c_t-1| + 1; so no h lies outside, and every image of the
  batch brings the same range with it. A second layer's x is the first one's h: it is pinned by the same sentinels.
- The head stays in float32. Its weight is an initializer, which onnxruntime packs once; it then sums each image's
  products in one order, whatever the batch.

The sentinels' outgoing weights are zero: they change no other unit. The bound is one of exact arithmetic. A unit whose
every gate is saturated to float32's last bit can pass a sentinel by that bit; trained networks are far from it, and
the gate computes the whole test set in every setting.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from export.graph import MICROSOFT, AddLayer, Graph, add_head, contract_model, recurrent, time_first
from export.network import GATES, Layer, Network
from scanline.contract import INPUT_NAME

# The largest step of a weight either side of 0. x86 CPUs without VNNI multiply in pairs into 16 bits: two products of
# an activation up to 255 overflow with a weight above 64 (255 * 64 * 2 = 32,640 <= 32,767), and the digits go wrong.
FULL_RANGE: Final = 127
REDUCED_RANGE: Final = 64
SENTINELS: Final = 2
# onnxruntime's kernels work on vectors of four: a remainder of two costs more than two more units that stay at 0.
UNIT_MULTIPLE: Final = 4
# A gate's input at which onnxruntime's sigmoid is 1 and its tanh is +-1 in float32.
SATURATED: Final = 100.0
CELL_GATE: Final = 3


def int8(network: Network, levels: int) -> ModelProto:
    """Build the int8 model of the contract.

    Args:
        network: its weights in float32.
        levels: FULL_RANGE or REDUCED_RANGE.
    """
    pinned = with_sentinels(network)
    graph = Graph()
    one = graph.constant("one", np.array(1, np.float32))
    # The comparison in ThresholdedRelu makes 0 of NaN, too. Clip alone would hand NaN on where the CPU's minimum and
    # maximum do, as Arm's: the range of the whole batch would be lost.
    positive = graph.node("ThresholdedRelu", [INPUT_NAME], ["positive"], alpha=0.0)
    steps = time_first(graph, network, graph.node("Clip", [positive, "", one], ["pixels"]))
    padding = graph.constant("padding", np.array([0, 0, 0, 0, 0, 1], np.int64))
    steps = graph.node("Pad", [steps, padding, one], ["steps_and_one"])
    state = recurrent(graph, pinned, steps, _layer_adder(levels))
    add_head(graph, state, graph.constant("head_weight", pinned.head_weight), pinned.head_bias)
    return contract_model(graph)


def with_sentinels(network: Network) -> Network:
    """Give the network that computes the same with one more input, a constant 1, and the sentinel units."""
    layers = [
        _pinned_layer(layer, added_inputs=1) if index == 0 else _pinned_layer(_spread_inputs(layer), added_inputs=0)
        for index, layer in enumerate(network.layers)
    ]
    hidden = network.layers[-1].hidden
    return replace(network, layers=tuple(layers), head_weight=_spread(network.head_weight, network.directions, hidden))


def quantise(weight: NDArray[np.float32], levels: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantise a weight symmetrically, with a scale for each output.

    Args:
        weight: float32 [directions, outputs, inputs].
        levels: the largest step, up to 127.

    Returns:
        The steps, int8 of the same shape, and the scales, float32 [directions, outputs]: weight = steps * scale.
    """
    largest = np.abs(weight).max(axis=2)
    scale = (np.where(largest > 0, largest, 1) / levels).astype(np.float32)
    return np.rint(weight / scale[:, :, None]).clip(-levels, levels).astype(np.int8), scale


def _pinned_units(hidden: int) -> int:
    return -(-(hidden + SENTINELS) // UNIT_MULTIPLE) * UNIT_MULTIPLE


def _pinned_layer(layer: Layer, *, added_inputs: int) -> Layer:
    directions, hidden, units = layer.directions, layer.hidden, _pinned_units(layer.hidden)

    def by_gate(array: NDArray[np.float32], inputs: int, added: int) -> NDArray[np.float32]:
        gates = array.reshape(directions, GATES, hidden, inputs)
        wider = np.pad(gates, [(0, 0), (0, 0), (0, units - hidden), (0, added)])
        return wider.reshape(directions, GATES * units, inputs + added)

    bias = by_gate(layer.bias, 1, 0).reshape(directions, GATES, units)
    up, down = hidden, hidden + 1
    bias[:, :, [up, down]] = SATURATED
    bias[:, CELL_GATE, down] = -SATURATED
    return Layer(
        input_weight=by_gate(layer.input_weight, layer.input_weight.shape[2], added_inputs),
        recurrent_weight=by_gate(layer.recurrent_weight, hidden, units - hidden),
        bias=bias.reshape(directions, GATES * units),
    )


def _spread_inputs(layer: Layer) -> Layer:
    """Give a layer above the first room for the sentinels of the one below."""
    hidden, directions = layer.hidden, layer.directions
    wider = [_spread(weight, directions, hidden) for weight in layer.input_weight]
    return replace(layer, input_weight=np.stack(wider))


def _spread(weight: NDArray[np.float32], directions: int, hidden: int) -> NDArray[np.float32]:
    """Widen a weight [outputs, directions * hidden] by zeros for the units that each direction has gained."""
    outputs, units = len(weight), _pinned_units(hidden)
    parts = weight.reshape(outputs, directions, hidden)
    return np.pad(parts, [(0, 0), (0, 0), (0, units - hidden)]).reshape(outputs, directions * units)


def _layer_adder(levels: int) -> AddLayer:
    def add_layer(graph: Graph, layer: Layer, index: int, steps: str, outputs: tuple[str, str]) -> None:
        # As long as the scales: given one zero a direction, onnxruntime reads beyond it for the second direction.
        zero = graph.constant(f"zero_{index}", np.zeros_like(layer.bias, np.int8))
        weights, scales = [], []
        for name, weight in (("input", layer.input_weight), ("recurrent", layer.recurrent_weight)):
            values, scale = quantise(weight, levels)
            # the operator wants [directions, inputs, outputs]
            weights.append(graph.constant(f"{name}_weight_{index}", values.transpose(0, 2, 1)))
            scales += [graph.constant(f"{name}_scale_{index}", scale), zero]
        # The second half, the recurrent bias, is zero: it is filled in when the file is loaded, to save 2 KB.
        half = graph.constant(f"bias_{index}", layer.bias)
        fill = graph.constant(f"fill_{index}", np.array([0, 0, 0, layer.bias.shape[1]], np.int64))
        bias = graph.node("Pad", [half, fill], [f"both_biases_{index}"])
        unused = [""] * 4  # the lengths of the sequences, the first h and c, the peepholes
        graph.node(
            "DynamicQuantizeLSTM",
            [steps, *weights, bias, *unused, *scales],
            outputs,
            domain=MICROSOFT,
            hidden_size=layer.hidden,
            direction="bidirectional" if layer.directions > 1 else "forward",
        )

    return add_layer
