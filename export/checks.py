"""The checks that a file must pass before it is written; each is a function that raises where something is wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, ValueInfoProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from export import graph
from export.candidates import WHOLE_FILE, Candidate
from export.evidence import Evidence
from export.graph import MICROSOFT
from export.int8 import with_sentinels
from scanline import verify
from scanline.contract import (
    BATCH_DIMENSION,
    CLASSES,
    COLUMNS,
    INPUT_NAME,
    OUTPUT_NAME,
    ROWS,
    ModelCard,
)
from scanline.errors import GateError
from scanline.model import STEP_INPUTS, STEP_OUTPUTS, open_session
from scanline.verify import FLOAT32_TOLERANCE, INT8, Difference

# Of int8 against PyTorch, on the test set. A small one can't tell so little: two images may always change.
INT8_ACCURACY_LOSS: Final = 0.0005
INT8_CHANGED_SHARE: Final = 0.002
INT8_ALWAYS_ALLOWED: Final = 2
SETTINGS_IMAGES: Final = 1028  # of the files that are not computed on the whole test set in every setting
STEP_TOLERANCE: Final = 1e-5  # of 28 steps against the whole model
REFERENCE_IMAGES: Final = 32  # onnx's reference evaluator is numpy, step by step
HALF_STEP: Final = 0.501  # of a quantised weight, with room for float32's rounding
# What the targets' runtimes have: onnxruntime's full and mobile builds.
OPERATORS: Final = {
    "": {
        *("Clip", "Concat", "Conv", "Gemm", "LSTM", "MaxPool", "Pad", "ReduceMean", "Relu", "Reshape", "Split"),
        *("Squeeze", "ThresholdedRelu", "Transpose", "Unsqueeze"),
    },
    MICROSOFT: {"DynamicQuantizeLSTM"},
}

# The name, the type and the shape of an input or output.
Signature = tuple[str, str, tuple[str | int, ...]]


@dataclass(frozen=True)
class Subject:
    """A candidate on the bench.

    Attributes:
        candidate: the file.
        card: what it should say of itself.
        content: its bytes with that card.
        logits: what it gives for the test images, one at a time: float32 [n, 10].
    """

    candidate: Candidate
    card: ModelCard
    content: bytes
    logits: NDArray[np.float32]

    @property
    def path(self) -> Path:
        """Its name, for messages."""
        return Path(self.candidate.name)

    @property
    def source(self) -> bytes:
        """The ONNX file; of a file in onnxruntime's own format, which nobody else can read, what it is made of."""
        return self.content if self.candidate.is_onnx else self.candidate.model.SerializeToString()

    @property
    def is_int8(self) -> bool:
        """Whether its weights are int8."""
        return self.candidate.precision == INT8


def checker_check(subject: Subject, _: Evidence) -> str:
    """Run onnx's own checker in full, and shape inference in strict mode."""
    try:
        onnx.checker.check_model(subject.source, full_check=True)
        onnx.shape_inference.infer_shapes(subject.source, check_type=True, strict_mode=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GateError(f"onnx finds it invalid: {error}") from None
    return f"onnx {onnx.__version__}: valid"


def contract_check(subject: Subject, evidence: Evidence) -> str:
    """Compare the inputs and outputs with the contract: names, types, shapes, nothing dynamic but the batch."""
    model = onnx.load_model_from_string(subject.source)
    given = [_signature(value) for value in (*model.graph.input, *model.graph.output)]
    if subject.candidate.step:
        width = sum(layer.hidden for layer in evidence.network.layers)
        widths = dict.fromkeys(STEP_INPUTS + STEP_OUTPUTS, width) | {STEP_INPUTS[0]: COLUMNS, OUTPUT_NAME: CLASSES}
        expected = [_float32(name, widths[name]) for name in STEP_INPUTS + STEP_OUTPUTS]
    else:
        expected = [_float32(INPUT_NAME, ROWS, COLUMNS), _float32(OUTPUT_NAME, CLASSES)]
    if given != expected:
        raise GateError(f"its inputs and outputs are {given}, expected {expected}")
    return ", ".join(name for name, _, _ in expected)


def operators_check(subject: Subject, _: Evidence) -> str:
    """Compare the operators with those that the targets have."""
    nodes = onnx.load_model_from_string(subject.source).graph.node
    strange = sorted({node.op_type for node in nodes if node.op_type not in OPERATORS.get(node.domain, set())})
    if strange:
        raise GateError(f"the targets have no {', '.join(strange)}; allowed are {OPERATORS}")
    return f"{len(nodes)} nodes: {', '.join(node.op_type for node in nodes)}"


def weights_check(subject: Subject, evidence: Evidence) -> str:
    """Look at each weight: finite, and for int8 within half a step of the run's."""
    initializers = onnx.load_model_from_string(subject.source).graph.initializer
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in initializers}
    damaged = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if damaged:
        raise GateError(f"{', '.join(damaged)} holds values that are no finite numbers")
    if not subject.is_int8:
        return f"{len(arrays)} arrays, all finite"
    network = with_sentinels(evidence.network)
    largest = 0.0
    for index, layer in enumerate(network.layers):
        if not np.array_equal(arrays[f"bias_{index}"], layer.bias):
            raise GateError(f"bias_{index} is not the run's")
        for name, weight in (("input", layer.input_weight), ("recurrent", layer.recurrent_weight)):
            steps = arrays[f"{name}_weight_{index}"].transpose(0, 2, 1)
            scale = arrays[f"{name}_scale_{index}"][:, :, None]
            off = float(np.abs(steps - weight / scale).max())
            if off > HALF_STEP:
                raise GateError(f"{name}_weight_{index} is off by {off:.3g} steps; at most half a step is right")
            largest = max(largest, off)
    return f"{len(arrays)} arrays, int8 within {largest:.2g} steps"


def pytorch_check(subject: Subject, evidence: Evidence) -> str:
    """Compare with PyTorch on the whole test set."""
    difference, count = Difference.between(evidence.expected, subject.logits), len(evidence.rows)
    found = f"on {count} images: largest difference {difference.largest:.2g}, {difference.changed} digits change"
    if not subject.is_int8:
        difference.require(FLOAT32_TOLERANCE, "from PyTorch's")
        if difference.changed:
            raise GateError(f"{found}; none may")
        return found
    right = int(np.count_nonzero(subject.logits.argmax(axis=1) == evidence.labels))
    right_in_pytorch = int(np.count_nonzero(evidence.expected.argmax(axis=1) == evidence.labels))
    found += f", {right} are right, {right_in_pytorch} in PyTorch"
    changed_limit = max(INT8_ALWAYS_ALLOWED, math.floor(INT8_CHANGED_SHARE * count))
    least_right = right_in_pytorch - max(INT8_ALWAYS_ALLOWED, math.floor(INT8_ACCURACY_LOSS * count))
    if not math.isfinite(difference.largest) or difference.changed > changed_limit or right < least_right:
        raise GateError(f"{found}; at most {changed_limit} may change, and at least {least_right} must be right")
    return found


def settings_check(subject: Subject, evidence: Evidence) -> str:
    """Compute the test set at every batch size, thread count and optimisation level."""
    expected, tolerance = (subject.logits, 0.0) if subject.is_int8 else (evidence.expected, FLOAT32_TOLERANCE)
    # the same graph in another format, and 28 runs an image: a part of the test set will do
    count = len(evidence.rows) if subject.candidate.is_onnx and not subject.candidate.step else SETTINGS_IMAGES
    return verify.settings_check(subject.content, subject.path, evidence.rows[:count], expected[:count], tolerance)


def extremes_check(subject: Subject, evidence: Evidence) -> str:
    """Compute images that no test set has: float32 as PyTorch does; int8 finite, and the same in every setting."""
    rows, expected, tolerance = evidence.extremes, evidence.extremes_expected, FLOAT32_TOLERANCE
    if subject.is_int8:
        run = verify.open_run(subject.content, subject.path)
        expected, tolerance = verify.in_batches(run, rows, 1), 0.0
        if not np.isfinite(expected).all():
            raise GateError("blank, full or random images give logits that are no finite numbers")
    return verify.settings_check(subject.content, subject.path, rows, expected, tolerance)


def neighbours_check(subject: Subject, evidence: Evidence) -> str:
    """Put images beside others of absurd values: int8 must give the same bits."""
    tolerance = 0.0 if subject.is_int8 else FLOAT32_TOLERANCE
    return verify.neighbours_check(subject.content, subject.path, evidence.rows, tolerance)


def repeat_check(subject: Subject, evidence: Evidence) -> str:
    """Compute the same logits twice in a row, and with the file loaded again."""
    return verify.repeat_check(subject.content, subject.path, evidence.rows[:REFERENCE_IMAGES])


def reference_check(subject: Subject, evidence: Evidence) -> str:
    """Compute a sample with onnx's reference evaluator, which shares nothing with onnxruntime."""
    model = onnx.load_model_from_string(subject.content)
    (logits,) = ReferenceEvaluator(model).run([OUTPUT_NAME], {INPUT_NAME: evidence.rows[:REFERENCE_IMAGES]})
    difference = Difference.between(evidence.expected[:REFERENCE_IMAGES], np.asarray(logits))
    difference.require(FLOAT32_TOLERANCE, "in onnx's reference evaluator")
    return f"largest difference {difference.largest:.2g} on {len(logits)} images"


def rows_check(subject: Subject, evidence: Evidence) -> str:
    """Compare the answer after each row with PyTorch's, and the last one with the whole model's."""
    assert evidence.every_row is not None  # it is a step file, and these are made for networks that don't read ahead
    rows = evidence.rows[: len(evidence.every_row)]
    logits = verify.every_row(open_session(subject.content, subject.path, threads=1), rows)
    by_row = Difference.between(evidence.every_row.reshape(-1, CLASSES), logits.reshape(-1, CLASSES))
    by_row.require(FLOAT32_TOLERANCE, "from PyTorch's after some row")
    whole = verify.open_run(graph.whole(evidence.network).SerializeToString(), Path(WHOLE_FILE))(rows)
    last = Difference.between(whole, logits[:, -1])
    last.require(STEP_TOLERANCE, f"from those of {WHOLE_FILE} after 28 steps")
    return f"largest difference {by_row.largest:.2g} after each row, {last.largest:.2g} from {WHOLE_FILE} at the end"


def card_check(subject: Subject, _: Evidence) -> str:
    """Read the card as a server would, and compare it with what the file should say of itself."""
    session = open_session(subject.content, subject.path, threads=1)
    metadata = session.get_modelmeta().custom_metadata_map
    found = ModelCard.from_metadata(metadata)
    if found != subject.card:
        raise GateError(f"the card says {found}, expected {subject.card}")
    return f"contract {found.contract_version}, labels {found.labels}"


def reload_check(subject: Subject, evidence: Evidence) -> str:
    """Load the file, save it and load it again: it is the same, and its graph is the one that was checked."""
    model = onnx.load_model_from_string(subject.content)
    if model.graph != subject.candidate.model.graph:
        raise GateError("the graph in the file is not the one that was checked")
    again = model.SerializeToString(deterministic=True)
    sample = evidence.rows[:REFERENCE_IMAGES]
    logits = verify.open_run(again, subject.path)(sample)
    if again != subject.content or not np.array_equal(logits, verify.open_run(subject.content, subject.path)(sample)):
        raise GateError("loaded and saved again, the file is another")
    return f"the same {len(again):,} bytes"


def _float32(name: str, *shape: int) -> Signature:
    return name, TensorProto.DataType.Name(TensorProto.FLOAT), (BATCH_DIMENSION, *shape)


def _signature(value: ValueInfoProto) -> Signature:
    tensor = value.type.tensor_type
    shape = tuple(dimension.dim_param or dimension.dim_value for dimension in tensor.shape.dim)
    return value.name, TensorProto.DataType.Name(tensor.elem_type), shape


CheckFunction = Callable[[Subject, Evidence], str]

# Of every file, whatever its format.
_EVERY: Final[dict[str, CheckFunction]] = {
    "checker": checker_check,
    "contract": contract_check,
    "operators": operators_check,
    "weights": weights_check,
    "pytorch": pytorch_check,
    "settings": settings_check,
    "extremes": extremes_check,
    "neighbours": neighbours_check,
    "repeat": repeat_check,
}


def of_graph(candidate: Candidate) -> dict[str, CheckFunction]:
    """Name the checks of what a candidate computes."""
    if candidate.step:
        return _EVERY | {"rows": rows_check}
    if candidate.is_onnx and candidate.precision != INT8:
        return _EVERY | {"reference": reference_check}
    return _EVERY


def of_file(candidate: Candidate) -> dict[str, CheckFunction]:
    """Name the checks of the file as it will be written, with the figures of the others in its card."""
    return {"card": card_check, "reload": reload_check} if candidate.is_onnx else {"card": card_check}
