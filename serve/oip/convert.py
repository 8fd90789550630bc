"""Between the messages of the Open Inference Protocol and the core's arrays and dataclasses."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scanline.contract import CLASSES, LABELS
from scanline.inference import open_inference_pb2 as pb
from serve.core import Answers, Given
from serve.errors import BadRequestError
from serve.oip.models import DIGIT, ERROR, FACES, LOGITS, PROBABILITIES, REJECTED, Face, Tensor

Parameters = Mapping[str, pb.InferParameter]
# The outputs that are wanted, in order, each with the number of classes that its answer names; 0 for plain numbers.
Wanted = tuple[tuple[str, int], ...]

CLASSIFICATION: Final = "classification"
TIMEOUT: Final = "timeout"
SHARED_MEMORY: Final = "shared_memory_region"
NO_DIGIT: Final = -1  # of an image that can't be read
INTEGER: Final = frozenset({"int64_param", "uint64_param"})
# What the protocol keeps for itself, and the kinds of value that it takes. Sequences and priorities mean nothing here.
RESERVED: Final[Mapping[str, frozenset[str]]] = {
    "sequence_id": INTEGER | {"string_param"},
    "sequence_start": frozenset({"bool_param"}),
    "sequence_end": frozenset({"bool_param"}),
    "priority": INTEGER,
    TIMEOUT: INTEGER,
    CLASSIFICATION: INTEGER,
    "binary_data": frozenset({"bool_param"}),
    "binary_data_output": frozenset({"bool_param"}),
    "triton_enable_empty_final_response": frozenset({"bool_param"}),
}
RESERVED_PREFIX: Final = "triton_"

NUMBERS: Final[Mapping[str, np.dtype[Any]]] = {"FP32": np.dtype("<f4"), "UINT8": np.dtype("u1")}
MAY_BE: Final = {"FP32": ("UINT8",)}  # what an input may be beside what the metadata says
# The field of InferTensorContents for each type.
FIELDS: Final = {"FP32": "fp32_contents", "UINT8": "uint_contents", "BYTES": "bytes_contents"}
# What is wanted where a request names no output.
EVERY_OUTPUT: Final[Mapping[str, Wanted]] = {
    name: tuple((output.name, 0) for output in face.outputs) for name, face in FACES.items()
}
LENGTH: Final = struct.Struct("<I")  # before each element of BYTES


def images_of(message: pb.ModelInferRequest, face: Face, most: int) -> Given:
    """Give the images of a message for a model, float32 or uint8 [n, 28, 28] or the bytes of files.

    Raises:
        BadRequestError: it is not what the model takes, or more than so many images.
    """
    inputs = message.inputs
    if len(inputs) != 1 or inputs[0].name != face.inputs[0].name:
        names = ", ".join(repr(given.name[:64]) for given in inputs[:8]) or "none"
        raise BadRequestError(f"{face.name} takes one input, {face.inputs[0].name!r}; the request has {names}")
    given, raw = inputs[0], message.raw_input_contents
    if given.parameters:
        _check_parameters(given.parameters)
    if SHARED_MEMORY in given.parameters:
        raise BadRequestError("there is no shared memory here; send the contents")
    shape = _shape(given, face.inputs[0], most)
    if not raw:
        return _typed(given, shape)
    if len(raw) != 1:
        raise BadRequestError(f"raw_input_contents has {len(raw)} entries for 1 input")
    if given.HasField("contents"):
        raise BadRequestError(f"the input {given.name!r} has contents and raw_input_contents; use one of them")
    if given.datatype == "BYTES":
        return _elements(raw[0], shape[0])
    return _numbers(raw[0], given, shape)


def timeout_of(message: pb.ModelInferRequest) -> float | None:
    """Give the seconds after which nobody wants the answer, or None.

    Raises:
        BadRequestError: a reserved parameter is of the wrong type, or the timeout is below 0.
    """
    if not message.parameters:
        return None
    _check_parameters(message.parameters)
    if TIMEOUT not in message.parameters:
        return None
    microseconds = _integer(message.parameters[TIMEOUT])
    if microseconds < 0:
        raise BadRequestError(f"the parameter {TIMEOUT!r} is {microseconds}, expected microseconds, 0 for none")
    return microseconds / 1e6 or None


def wanted_of(message: pb.ModelInferRequest, face: Face) -> Wanted:
    """Give the outputs that a message asks for; all, where it names none.

    Raises:
        BadRequestError: one is unknown or there twice, or a parameter of one makes no sense.
    """
    if not message.outputs:
        return EVERY_OUTPUT[face.name]
    known = {output.name for output in face.outputs}
    wanted: dict[str, int] = {}
    for output in message.outputs:
        if output.name not in known:
            raise BadRequestError(f"{face.name} has no output {output.name[:64]!r}; it has {', '.join(sorted(known))}")
        if output.name in wanted:
            raise BadRequestError(f"the output {output.name!r} is asked for twice")
        wanted[output.name] = _classes(output) if output.parameters else 0
    return tuple(wanted.items())


def response_of(message: pb.ModelInferRequest, face: Face, answers: Answers, version: str) -> pb.ModelInferResponse:
    """Turn answers into a message."""
    wanted = wanted_of(message, face)
    response = pb.ModelInferResponse()
    response.CopyFrom(_frame(face.name, version, len(answers.errors), wanted))
    response.id = message.id
    if len(answers.logits) < len(answers.errors):
        answers = _spread(answers)
    response.raw_output_contents.extend([_content(answers, name, classes) for name, classes in wanted])
    return response


def _shape(given: pb.ModelInferRequest.InferInputTensor, expected: Tensor, most: int) -> tuple[int, ...]:
    """Give the shape of an input, once it and the type are those expected.

    Looked at before the contents, of which a small message may have very many.
    """
    datatypes = (expected.datatype, *MAY_BE.get(expected.datatype, ()))
    if given.datatype not in datatypes:
        kinds = " or ".join(datatypes)
        raise BadRequestError(f"the input {given.name!r} has datatype {given.datatype[:64]!r}, expected {kinds}")
    shape = tuple(given.shape)
    if shape[1:] != tuple(expected.shape[1:]) or not shape or not 1 <= shape[0] <= most:
        right = ", ".join(map(str, ("n", *expected.shape[1:])))
        raise BadRequestError(
            f"the input {given.name!r} has shape {[*shape[:8]]}, expected [{right}] with n from 1 to {most}, "
            f"the server's --max-images"
        )
    return shape


def _numbers(content: bytes, given: pb.ModelInferRequest.InferInputTensor, shape: tuple[int, ...]) -> NDArray[Any]:
    kind = NUMBERS[given.datatype]
    expected = prod(shape) * kind.itemsize
    if len(content) != expected:
        raise BadRequestError(
            f"the input {given.name!r} has {len(content)} bytes, expected {expected}: "
            f"{given.datatype} of shape {[*shape]}"
        )
    return np.frombuffer(content, kind).reshape(shape)


def _typed(given: pb.ModelInferRequest.InferInputTensor, shape: tuple[int, ...]) -> Given:
    """Read `contents`."""
    field = FIELDS[given.datatype]
    others = [other.name for other, _ in given.contents.ListFields() if other.name != field]
    if others:
        raise BadRequestError(
            f"the contents of {given.name!r}, {given.datatype}, belong in {field}, not in {others[0]}"
        )
    values = getattr(given.contents, field)
    expected = prod(shape)
    if len(values) != expected:
        raise BadRequestError(
            f"the input {given.name!r} has {len(values)} elements, expected {expected}: shape {[*shape]}"
        )
    if given.datatype == "BYTES":
        elements: Sequence[bytes] = values
        return elements
    if given.datatype == "UINT8" and max(values) > 255:
        raise BadRequestError(f"the input {given.name!r} is UINT8 and has the value {max(values)}")
    numbers: NDArray[Any] = np.array(values, NUMBERS[given.datatype]).reshape(shape)
    return numbers


def _elements(content: bytes, count: int) -> list[bytes]:
    """Take raw BYTES apart: for each element 4 bytes of length, little-endian, and the element."""
    elements: list[bytes] = []
    place = 0
    while len(elements) < count and place + LENGTH.size <= len(content):
        (length,) = LENGTH.unpack_from(content, place)
        place += LENGTH.size + length
        if place > len(content):
            break
        elements.append(content[place - length : place])
    if len(elements) != count or place != len(content):
        raise BadRequestError(
            f"the raw contents of {len(content)} bytes are not {count} elements, "
            f"each 4 bytes of length, little-endian, and so many bytes"
        )
    return elements


def _classes(output: pb.ModelInferRequest.InferRequestedOutputTensor) -> int:
    """Give the number of classes that the answer to an output names, 0 where it gives the numbers."""
    _check_parameters(output.parameters)
    if SHARED_MEMORY in output.parameters:
        raise BadRequestError("there is no shared memory here; the answer brings the contents")
    if CLASSIFICATION not in output.parameters:
        return 0
    if output.name not in {LOGITS, PROBABILITIES}:
        raise BadRequestError(f"{CLASSIFICATION!r} is for {LOGITS} and {PROBABILITIES}, not for {output.name!r}")
    classes = _integer(output.parameters[CLASSIFICATION])
    if classes < 1:
        raise BadRequestError(f"the parameter {CLASSIFICATION!r} is {classes}, expected 1 to {CLASSES}")
    return min(classes, CLASSES)


def _check_parameters(parameters: Parameters) -> None:
    for name, value in parameters.items():
        if name in RESERVED:
            kind = value.WhichOneof("parameter_choice")
            if kind not in RESERVED[name]:
                right = " or ".join(sorted(RESERVED[name]))
                raise BadRequestError(f"the parameter {name!r} is a {kind}, expected {right}")
        elif name.startswith(RESERVED_PREFIX):
            raise BadRequestError(f"{name[:64]!r} is not known; parameters in {RESERVED_PREFIX}* are reserved")


def _integer(value: pb.InferParameter) -> int:
    return value.uint64_param or value.int64_param


@lru_cache
def _frame(model: str, version: str, count: int, wanted: Wanted) -> pb.ModelInferResponse:
    """Give a response without its contents: the same for all requests of that many images."""
    tensors = {output.name: output for output in FACES[model].outputs}
    response = pb.ModelInferResponse(model_name=model, model_version=version)
    for name, classes in wanted:
        if classes:
            response.outputs.add(name=name, datatype="BYTES", shape=[count, classes])
        else:
            response.outputs.add(name=name, datatype=tensors[name].datatype, shape=[count, *tensors[name].shape[1:]])
    return response


def _spread(answers: Answers) -> Answers:
    """Put zeros between the answers for the images that could not be read."""
    read = [error is None for error in answers.errors]
    logits, probabilities = (np.zeros((len(read), CLASSES), np.float32) for _ in range(2))
    logits[read], probabilities[read] = answers.logits, answers.probabilities
    reasons = iter(answers.reasons)
    return Answers(logits, probabilities, [next(reasons) if readable else None for readable in read], answers.errors)


def _content(answers: Answers, name: str, classes: int) -> bytes:
    """Give the raw contents of an output."""
    if name in {LOGITS, PROBABILITIES}:
        values = answers.logits if name == LOGITS else answers.probabilities
        return _bytes_of(_named(values, classes)) if classes else values.tobytes()
    if name == DIGIT:
        digits: NDArray[np.int64] = answers.probabilities.argmax(axis=1)
        if any(answers.errors):
            digits[[error is not None for error in answers.errors]] = NO_DIGIT
        return digits.astype("<i8", copy=False).tobytes()
    if name == REJECTED:
        pairs = zip(answers.reasons, answers.errors, strict=True)
        return bytes([reason is not None or error is not None for reason, error in pairs])
    assert name == ERROR
    return _bytes_of((error or "").encode() for error in answers.errors)


def _named(values: NDArray[np.float32], classes: int) -> Iterable[bytes]:
    """Name the largest values of each row, the largest first, as Triton does: value:index:label."""
    for row in values:
        for index in np.argsort(-row, kind="stable")[:classes].tolist():
            yield f"{row[index]:f}:{index}:{LABELS[index]}".encode()


def _bytes_of(elements: Iterable[bytes]) -> bytes:
    return b"".join(LENGTH.pack(len(element)) + element for element in elements)
