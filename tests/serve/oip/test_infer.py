"""ModelInfer over a real socket: what is answered, and what is refused."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from scanline import Reader
from scanline.contract import to_network
from scanline.inference import open_inference_pb2 as pb
from scanline.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from scanline.model import Model
from scanline.v1 import digits_pb2
from scanline.v1.digits_pb2_grpc import DigitsStub
from tests.serve.test_digits import png, refusal

Input = pb.ModelInferRequest.InferInputTensor
Output = pb.ModelInferRequest.InferRequestedOutputTensor
TYPES = {"FP32": "<f4", "INT64": "<i8", "BOOL": "?"}


def asking(images: NDArray[np.uint8], **fields: Any) -> pb.ModelInferRequest:
    """Ask for images, uint8 [n, 28, 28], as raw FP32."""
    rows = to_network(images)
    tensor = Input(name="rows", datatype="FP32", shape=rows.shape)
    request = pb.ModelInferRequest(model_name="digits", inputs=[tensor], raw_input_contents=[rows.tobytes()])
    request.MergeFrom(pb.ModelInferRequest(**fields))
    return request


def elements(content: bytes) -> list[bytes]:
    """Take raw BYTES apart."""
    found = []
    while content:
        (length,) = struct.unpack("<I", content[:4])
        found.append(content[4 : 4 + length])
        content = content[4 + length :]
    return found


def tensors(response: pb.ModelInferResponse) -> dict[str, Any]:
    """Give the outputs of a response as arrays, or as lists of bytes."""
    assert len(response.outputs) == len(response.raw_output_contents)
    found: dict[str, Any] = {}
    for output, content in zip(response.outputs, response.raw_output_contents, strict=True):
        assert not output.HasField("contents")
        if output.datatype == "BYTES":
            found[output.name] = np.array(elements(content), object).reshape(output.shape)
        else:
            found[output.name] = np.frombuffer(content, TYPES[output.datatype]).reshape(output.shape)
    return found


def test_the_four_outputs_are_those_of_the_reader(oip: GRPCInferenceServiceStub, images: NDArray[np.uint8]) -> None:
    response = oip.ModelInfer(asking(images, id="a1"))
    assert (response.model_name, response.model_version, response.id) == ("digits", "1", "a1")
    assert [(output.name, output.datatype, [*output.shape]) for output in response.outputs] == [
        ("logits", "FP32", [40, 10]),
        ("probabilities", "FP32", [40, 10]),
        ("digit", "INT64", [40]),
        ("rejected", "BOOL", [40]),
    ]
    found = tensors(response)
    expected = Reader().classify(images, probabilities=True)
    np.testing.assert_array_equal(found["logits"], Model().run(to_network(images)))
    np.testing.assert_array_equal(
        found["probabilities"], np.array([answer.probabilities for answer in expected], np.float32)
    )
    assert found["digit"].tolist() == [answer.digit for answer in expected]
    assert found["rejected"].tolist() == [answer.rejected for answer in expected]


def in_form(form: str, images: NDArray[np.uint8]) -> pb.ModelInferRequest:
    """Ask for images in one of the four forms."""
    datatype, _, typed = form.partition(" ")
    values = to_network(images) if datatype == "FP32" else images
    request = pb.ModelInferRequest(
        model_name="digits", inputs=[Input(name="rows", datatype=datatype, shape=images.shape)]
    )
    if typed:
        contents = {"FP32": "fp32_contents", "UINT8": "uint_contents"}[datatype]
        getattr(request.inputs[0].contents, contents).extend(values.ravel().tolist())
    else:
        request.raw_input_contents.append(values.tobytes())
    return request


@pytest.mark.parametrize("form", ["FP32 typed", "UINT8", "UINT8 typed"])
def test_every_form_of_input_gets_the_same_answer(
    oip: GRPCInferenceServiceStub, images: NDArray[np.uint8], form: str
) -> None:
    assert oip.ModelInfer(in_form(form, images[:7])) == oip.ModelInfer(in_form("FP32", images[:7]))


def test_both_protocols_give_the_same_answer(
    oip: GRPCInferenceServiceStub, channel: grpc.Channel, images: NDArray[np.uint8]
) -> None:
    found = tensors(oip.ModelInfer(asking(images)))
    answers = DigitsStub(channel).Classify(digits_pb2.ClassifyRequest(pixels=images.tobytes(), probabilities=True))
    assert found["digit"].tolist() == [answer.digit for answer in answers.predictions]
    assert found["rejected"].tolist() == [answer.rejected for answer in answers.predictions]
    assert found["probabilities"].tolist() == [[*answer.probabilities] for answer in answers.predictions]


def test_outputs_come_as_they_are_asked_for(oip: GRPCInferenceServiceStub, images: NDArray[np.uint8]) -> None:
    wanted = [Output(name="digit"), Output(name="logits")]
    response = oip.ModelInfer(asking(images[:3], outputs=wanted))
    assert [output.name for output in response.outputs] == ["digit", "logits"]
    every = tensors(oip.ModelInfer(asking(images[:3])))
    for name, values in tensors(response).items():
        np.testing.assert_array_equal(values, every[name])


def classified(name: str, classes: int) -> Output:
    output = Output(name=name)
    output.parameters["classification"].int64_param = classes
    return output


@pytest.mark.parametrize(("classes", "given"), [(1, 1), (3, 3), (10, 10), (99, 10)])
def test_classification_names_the_best_classes(
    oip: GRPCInferenceServiceStub, images: NDArray[np.uint8], classes: int, given: int
) -> None:
    response = oip.ModelInfer(asking(images[:5], outputs=[classified("probabilities", classes)]))
    found = tensors(response)["probabilities"]
    assert (response.outputs[0].datatype, found.shape) == ("BYTES", (5, given))
    every = tensors(oip.ModelInfer(asking(images[:5])))["probabilities"]
    for row, values in zip(found, every, strict=True):
        best = sorted(range(10), key=lambda index: -values[index])[:given]
        assert [text.decode() for text in row] == [f"{values[index]:f}:{index}:{index}" for index in best]


def files(*contents: bytes, raw: bool = True) -> pb.ModelInferRequest:
    tensor = Input(name="image", datatype="BYTES", shape=[len(contents)])
    request = pb.ModelInferRequest(model_name="digits-image", inputs=[tensor])
    if raw:
        packed = b"".join(struct.pack("<I", len(content)) + content for content in contents)
        request.raw_input_contents.append(packed)
    else:
        request.inputs[0].contents.bytes_contents.extend(contents)
    return request


@pytest.mark.parametrize("raw", [True, False])
def test_image_files_are_read_and_a_broken_one_is_its_own_error(
    oip: GRPCInferenceServiceStub, images: NDArray[np.uint8], raw: bool
) -> None:
    contents = [png(images[0]), b"no image", png(images[1]), b""]
    found = tensors(oip.ModelInfer(files(*contents, raw=raw)))
    expected = Reader().classify(contents, probabilities=True)
    assert found["digit"].tolist() == [-1 if answer.error else answer.digit for answer in expected]
    assert found["rejected"].tolist() == [answer.rejected or bool(answer.error) for answer in expected]
    assert [error.decode() for error in found["error"]] == [answer.error or "" for answer in expected]
    assert [bool(row.any()) for row in found["probabilities"]] == [True, False, True, False]
    np.testing.assert_array_equal(found["probabilities"][0], np.array(expected[0].probabilities, np.float32))


def broken(**fields: Any) -> Callable[[pb.ModelInferRequest], None]:
    """Change a good request's first input."""

    def change(request: pb.ModelInferRequest) -> None:
        for name, value in fields.items():
            if name == "shape":
                del request.inputs[0].shape[:]
                request.inputs[0].shape.extend(value)
            else:
                setattr(request.inputs[0], name, value)

    return change


def with_contents(request: pb.ModelInferRequest) -> None:
    request.inputs[0].contents.fp32_contents.extend([0.0] * 784)


def parameter(name: str, **value: Any) -> Callable[[pb.ModelInferRequest], None]:
    return lambda request: request.parameters[name].CopyFrom(pb.InferParameter(**value))


def typed(field: str, *values: Any) -> Callable[[pb.ModelInferRequest], None]:
    def change(request: pb.ModelInferRequest) -> None:
        del request.raw_input_contents[:]
        getattr(request.inputs[0].contents, field).extend(values)

    return change


BAD: dict[str, tuple[Callable[[pb.ModelInferRequest], Any], str]] = {
    "no input": (lambda r: r.ClearField("inputs"), "digits takes one input, 'rows'; the request has none"),
    "wrong input": (broken(name="image"), "digits takes one input, 'rows'; the request has 'image'"),
    "input twice": (
        lambda r: r.inputs.append(r.inputs[0]),
        "digits takes one input, 'rows'; the request has 'rows', 'rows'",
    ),
    "datatype": (broken(datatype="FP64"), "the input 'rows' has datatype 'FP64', expected FP32 or UINT8"),
    "no datatype": (broken(datatype=""), "the input 'rows' has datatype '', expected FP32 or UINT8"),
    "flat shape": (
        broken(shape=[1, 784]),
        "the input 'rows' has shape [1, 784], expected [n, 28, 28] with n from 1 to 1024",
    ),
    "no shape": (broken(shape=[]), "the input 'rows' has shape [], expected [n, 28, 28] with n from 1 to 1024"),
    "no images": (broken(shape=[0, 28, 28]), "the input 'rows' has shape [0, 28, 28], expected [n, 28, 28] with"),
    "negative": (broken(shape=[-1, -28, 28]), "the input 'rows' has shape [-1, -28, 28], expected [n, 28, 28] with"),
    "too few bytes": (
        broken(shape=[2, 28, 28]),
        "the input 'rows' has 3136 bytes, expected 6272: FP32 of shape [2, 28, 28]",
    ),
    "other type's bytes": (broken(datatype="UINT8"), "the input 'rows' has 3136 bytes, expected 784: UINT8 of shape"),
    "surplus raw": (lambda r: r.raw_input_contents.append(b""), "raw_input_contents has 2 entries for 1 input"),
    "raw and typed": (with_contents, "the input 'rows' has contents and raw_input_contents; use one of them"),
    "nothing": (
        lambda r: r.ClearField("raw_input_contents"),
        "the input 'rows' has 0 elements, expected 784: shape [1, 28, 28]",
    ),
    "too few elements": (typed("fp32_contents", 0.5), "the input 'rows' has 1 elements, expected 784: shape"),
    "another field": (
        typed("fp64_contents", 0.5),
        "the contents of 'rows', FP32, belong in fp32_contents, not in fp64_contents",
    ),
    "unknown output": (
        lambda r: r.outputs.append(Output(name="score")),
        "digits has no output 'score'; it has digit, logits, probabilities, rejected",
    ),
    "output twice": (
        lambda r: r.outputs.extend([Output(name="digit")] * 2),
        "the output 'digit' is asked for twice",
    ),
    "classes of digits": (
        lambda r: r.outputs.append(classified("digit", 3)),
        "'classification' is for logits and probabilities, not for 'digit'",
    ),
    "no classes": (
        lambda r: r.outputs.append(classified("logits", 0)),
        "the parameter 'classification' is 0, expected 1 to 10",
    ),
    "timeout as text": (parameter("timeout", string_param="1s"), "the parameter 'timeout' is a string_param, expected"),
    "negative timeout": (parameter("timeout", int64_param=-1), "the parameter 'timeout' is -1, expected microseconds"),
    "sequence": (parameter("sequence_start", int64_param=1), "the parameter 'sequence_start' is a int64_param"),
    "reserved": (
        parameter("triton_x", bool_param=True),
        "'triton_x' is not known; parameters in triton_* are reserved",
    ),
    "empty parameter": (parameter("priority"), "the parameter 'priority' is a None, expected"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_makes_no_sense_is_refused(oip: GRPCInferenceServiceStub, images: NDArray[np.uint8], case: str) -> None:
    request = asking(images[:1])
    change, words = BAD[case]
    change(request)
    code, details = refusal(lambda: oip.ModelInfer(request))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details.startswith(words)


def test_values_that_no_pixel_has_are_answered_and_rejected(
    oip: GRPCInferenceServiceStub, images: NDArray[np.uint8]
) -> None:
    rows = to_network(images[:6])
    rows[1], rows[3], rows[5] = np.nan, np.inf, rows[5] * 255
    rows[4, 0, 0] = -0.001  # what resampling leaves
    request = asking(images[:6])
    request.raw_input_contents[0] = rows.tobytes()
    found, sound = tensors(oip.ModelInfer(request)), tensors(oip.ModelInfer(asking(images[:6])))
    assert np.isfinite(found["logits"]).all()
    assert np.isfinite(found["probabilities"]).all()
    assert found["rejected"][[1, 3, 5]].all()
    for name, values in sound.items():
        np.testing.assert_array_equal(found[name][[0, 2, 4]], values[[0, 2, 4]])


@pytest.mark.parametrize(
    ("request_of", "shape"),
    [
        (lambda: asking(np.zeros((1025, 28, 28), np.uint8)), "'rows' has shape [1025, 28, 28], expected [n, 28, 28]"),
        (lambda: files(*[b""] * 1025), "'image' has shape [1025], expected [n]"),
    ],
    ids=["rows", "files"],
)
def test_more_images_than_may_be_are_refused(
    oip: GRPCInferenceServiceStub, request_of: Callable[[], pb.ModelInferRequest], shape: str
) -> None:
    code, details = refusal(lambda: oip.ModelInfer(request_of()))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details == f"the input {shape} with n from 1 to 1024, the server's --max-images"


def test_a_uint8_over_255_is_refused(oip: GRPCInferenceServiceStub, images: NDArray[np.uint8]) -> None:
    request = in_form("UINT8 typed", images[:1])
    request.inputs[0].contents.uint_contents[5] = 256
    assert refusal(lambda: oip.ModelInfer(request))[1] == "the input 'rows' is UINT8 and has the value 256"


@pytest.mark.parametrize("content", [b"", b"\x05\0\0\0abc", b"\x01\0\0\0ab", b"\x01\0\0\0a" * 2, b"\xff\xff\xff\xffa"])
def test_bytes_that_are_no_elements_are_refused(oip: GRPCInferenceServiceStub, content: bytes) -> None:
    request = files(b"x")
    request.raw_input_contents[0] = content
    code, details = refusal(lambda: oip.ModelInfer(request))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details.startswith(f"the raw contents of {len(content)} bytes are not 1 elements")


def test_shared_memory_is_refused_by_name(oip: GRPCInferenceServiceStub, images: NDArray[np.uint8]) -> None:
    request = asking(images[:1])
    request.inputs[0].parameters["shared_memory_region"].string_param = "mine"
    assert refusal(lambda: oip.ModelInfer(request))[1] == "there is no shared memory here; send the contents"
    del request.raw_input_contents[:]
    assert refusal(lambda: oip.ModelInfer(request))[1] == "there is no shared memory here; send the contents"
    request = asking(images[:1], outputs=[Output(name="digit")])
    request.outputs[0].parameters["shared_memory_region"].string_param = "mine"
    assert (
        refusal(lambda: oip.ModelInfer(request))[1] == "there is no shared memory here; the answer brings the contents"
    )


@pytest.mark.parametrize(("name", "version"), [("digit", ""), ("", ""), ("digits", "2"), ("digits", "x" * 10_000)])
def test_what_does_not_exist_is_not_found(
    oip: GRPCInferenceServiceStub, images: NDArray[np.uint8], name: str, version: str
) -> None:
    request = asking(images[:1], model_version=version)
    request.model_name = name
    assert refusal(lambda: oip.ModelInfer(request))[0] is grpc.StatusCode.NOT_FOUND


def test_what_is_known_and_means_nothing_here_is_read_over(
    oip: GRPCInferenceServiceStub, images: NDArray[np.uint8]
) -> None:
    request = asking(images[:1])
    request.parameters["sequence_id"].uint64_param = 7
    request.parameters["sequence_start"].bool_param = True
    request.parameters["priority"].int64_param = 1
    request.parameters["timeout"].int64_param = 0
    request.parameters["my_own"].string_param = "x"
    request.inputs[0].parameters["my_own"].double_param = 0.5
    assert oip.ModelInfer(request) == oip.ModelInfer(asking(images[:1]))


@pytest.mark.parametrize(
    "method", ["TraceSetting", "LogSettings", "SystemSharedMemoryStatus", "CudaSharedMemoryRegister"]
)
def test_what_there_is_not_is_unimplemented(channel: grpc.Channel, method: str) -> None:
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
    assert refusal(lambda: call(b""))[0] is grpc.StatusCode.UNIMPLEMENTED
