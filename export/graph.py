"""The smallest ONNX graphs that compute a network: whole digits, or one row at a time.

Opset 11 with IR version 6 (ONNX 1.6, 2019) is the oldest pair that has every operator needed here, so the files load
in the widest range of onnxruntime versions: new ones still take every opset from 7 on. LSTM's layout is 0 (time first):
onnxruntime refuses layout 1, other runtimes read it wrongly (openvino#37820).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from export.network import Layer, Network
from scanline.contract import (
    BATCH_DIMENSION,
    CLASSES,
    COLUMNS,
    INPUT_NAME,
    OUTPUT_NAME,
    ROWS,
)
from scanline.model import STEP_INPUTS, STEP_OUTPUTS

OPSET: Final = 11
IR_VERSION: Final = 6
MICROSOFT: Final = "com.microsoft"  # onnxruntime's own operators; version 1 is their only one
MICROSOFT_OPSET: Final = 1

Shape = Sequence[int | str]


class Graph:
    """A graph in the making: nodes in the order in which they run, and the arrays that they use."""

    def __init__(self) -> None:
        self._nodes: list[NodeProto] = []
        self._initializers: list[TensorProto] = []

    def constant(self, name: str, array: NDArray[np.generic]) -> str:
        """Add an array and give its name."""
        self._initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(
        self,
        operator: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        domain: str = "",
        **attributes: float | str | Sequence[int],
    ) -> str:
        """Add a node and give the name of its first output that has one."""
        node = helper.make_node(operator, inputs, outputs, domain=domain)
        node.attribute.extend(helper.make_attribute(name, value) for name, value in sorted(attributes.items()))
        self._nodes.append(node)
        return next(filter(None, outputs))

    def model(self, inputs: dict[str, Shape], outputs: dict[str, Shape]) -> ModelProto:
        """Finish: give the model with these float32 inputs and outputs."""
        domains = {"": OPSET} | ({MICROSOFT: MICROSOFT_OPSET} if any(node.domain for node in self._nodes) else {})
        return helper.make_model(
            helper.make_graph(self._nodes, "digits", _values(inputs), _values(outputs), self._initializers),
            opset_imports=[helper.make_opsetid(domain, version) for domain, version in domains.items()],
            ir_version=IR_VERSION,
            producer_name="scanline",
        )


# Adds one layer to a graph, given its number, the name of its input [steps, batch, inputs] and the names of its
# outputs: all states [steps, directions, batch, hidden] and the last ones [directions, batch, hidden], "" if unused.
AddLayer = Callable[[Graph, Layer, int, str, tuple[str, str]], None]


def whole(network: Network) -> ModelProto:
    """Build the float32 model of the contract: `rows` [batch, 28, 28] in, `logits` [batch, 10] out."""
    graph = Graph()
    steps = time_first(graph, network, INPUT_NAME)
    state = recurrent(graph, network, steps, add_float_layer)
    add_head(graph, state, graph.constant("head_weight", network.head_weight), network.head_bias)
    return contract_model(graph)


def step(network: Network) -> ModelProto:
    """Build the model that reads one row: `row`, `h` and `c` in, `logits`, `h_next` and `c_next` out.

    `row` is [batch, 28]; the states are [batch, layers * hidden], zeros before the first row.

    Args:
        network: one that does not read ahead.
    """
    graph = Graph()
    row, *states_in = STEP_INPUTS
    _, *states_out = STEP_OUTPUTS
    layers = range(len(network.layers))
    before = [_by_layer(graph, name, network) for name in states_in]
    after = [[f"{name}_{i}" for i in layers] for name in states_out]
    below = graph.node("Unsqueeze", [row], ["step"], axes=[0])
    for i in layers:
        inputs = [below, *_float_weights(graph, network.layers[i], i), "", *(states[i] for states in before)]
        outputs = ["", *(states[i] for states in after)]
        graph.node("LSTM", inputs, outputs, hidden_size=network.layers[i].hidden)
        below = after[0][i]  # the layer's state [1, batch, hidden] is one step of the next layer's input
    for name, parts in zip(states_out, after, strict=True):
        _join_layers(graph, parts, name)
    state = graph.node("Squeeze", [below], ["state"], axes=[0])
    add_head(graph, state, graph.constant("head_weight", network.head_weight), network.head_bias)
    states: Shape = [BATCH_DIMENSION, sum(layer.hidden for layer in network.layers)]
    return graph.model(
        {row: [BATCH_DIMENSION, COLUMNS], **dict.fromkeys(states_in, states)},
        {OUTPUT_NAME: [BATCH_DIMENSION, CLASSES], **dict.fromkeys(states_out, states)},
    )


def contract_model(graph: Graph) -> ModelProto:
    """Finish a graph that keeps to the contract."""
    return graph.model({INPUT_NAME: [BATCH_DIMENSION, ROWS, COLUMNS]}, {OUTPUT_NAME: [BATCH_DIMENSION, CLASSES]})


def time_first(graph: Graph, network: Network, images: str) -> str:
    """Turn images [batch, 28, 28] into the LSTM's steps [28, batch, 28], or into what convolutions see of them."""
    if not network.convolutions:
        return graph.node("Transpose", [images], ["steps"], perm=[1, 0, 2])
    seen = graph.node("Unsqueeze", [images], ["image"], axes=[1])
    last = len(network.convolutions) - 1
    for index, convolution in enumerate(network.convolutions):
        weights = [
            graph.constant(f"convolution_weight_{index}", convolution.weight),
            graph.constant(f"convolution_bias_{index}", convolution.bias),
        ]
        seen = graph.node("Conv", [seen, *weights], [f"convolution_{index}"], pads=[1, 1, 1, 1])
        seen = graph.node("Relu", [seen], [f"seen_{index}"])
        if index == 0:
            seen = graph.node("MaxPool", [seen], ["halved"], kernel_shape=[2, 2], strides=[2, 2])
        if index == last:
            seen = graph.node("MaxPool", [seen], ["narrowed"], kernel_shape=[1, 2], strides=[1, 2])
    beside = graph.node("Transpose", [seen], ["features"], perm=[2, 0, 1, 3])  # [14, batch, channels, 7]
    width = graph.constant("width", np.array([0, 0, network.layers[0].input_weight.shape[2]], np.int64))
    return graph.node("Reshape", [beside, width], ["steps"])


def recurrent(graph: Graph, network: Network, steps: str, add_layer: AddLayer) -> str:
    """Add the LSTM's layers and give the name of the state that the answer is read from, [batch, directions * hidden].

    That is the state after the last row; or, for a network that reads both ways, the mean of its states.
    """
    last = len(network.layers) - 1
    for index, layer in enumerate(network.layers):
        if index == last and network.directions == 1:
            add_layer(graph, layer, index, steps, ("", "last"))
            return graph.node("Squeeze", ["last"], ["state"], axes=[0])
        states = f"states_{index}"
        add_layer(graph, layer, index, steps, (states, ""))
        beside = graph.node("Transpose", [states], [f"beside_{index}"], perm=[0, 2, 1, 3])
        shape = graph.constant(f"shape_{index}", np.array([0, 0, layer.directions * layer.hidden], np.int64))
        steps = graph.node("Reshape", [beside, shape], [f"steps_{index + 1}"])
    return graph.node("ReduceMean", [steps], ["state"], axes=[0], keepdims=0)


def add_float_layer(graph: Graph, layer: Layer, index: int, steps: str, outputs: tuple[str, str]) -> None:
    """Add a float32 layer (an AddLayer)."""
    direction = "bidirectional" if layer.directions > 1 else "forward"
    weights = _float_weights(graph, layer, index)
    graph.node("LSTM", [steps, *weights], outputs, hidden_size=layer.hidden, direction=direction)


def add_head(graph: Graph, state: str, weight: str, bias: NDArray[np.float32]) -> None:
    """Add the linear answer, given the names of its state and its weight [10, directions * hidden]."""
    graph.node("Gemm", [state, weight, graph.constant("head_bias", bias)], [OUTPUT_NAME], transB=1)


def _float_weights(graph: Graph, layer: Layer, index: int) -> list[str]:
    # the operator wants the input's bias, then the recurrent one, which is zero
    biases = np.concatenate([layer.bias, np.zeros_like(layer.bias)], axis=1)
    return [
        graph.constant(f"input_weight_{index}", layer.input_weight),
        graph.constant(f"recurrent_weight_{index}", layer.recurrent_weight),
        graph.constant(f"bias_{index}", biases),
    ]


def _by_layer(graph: Graph, name: str, network: Network) -> list[str]:
    """Split a state [batch, layers * hidden] into what each layer's operator takes, [1, batch, hidden]."""
    parts = [name]
    if len(network.layers) > 1:
        parts = [f"{name}_part_{i}" for i in range(len(network.layers))]
        graph.node("Split", [name], parts, axis=1)
    return [graph.node("Unsqueeze", [part], [f"{part}_first"], axes=[0]) for part in parts]


def _join_layers(graph: Graph, parts: list[str], name: str) -> None:
    """Join the layers' states [1, batch, hidden] to [batch, layers * hidden]."""
    if len(parts) > 1:
        parts = [graph.node("Concat", parts, [f"{name}_layers"], axis=2)]
    graph.node("Squeeze", parts, [name], axes=[0])


def _values(shapes: dict[str, Shape]) -> list[ValueInfoProto]:
    return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
