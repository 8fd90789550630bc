"""Requests of the Open Inference Protocol that nobody would send on purpose: each is answered in full, or refused."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scanline.inference import open_inference_pb2 as pb
from tests.faults.server import BesetServer
from tests.faults.test_protocol import INFERENCE, STREAM_INFER, many, outcome

Input = pb.ModelInferRequest.InferInputTensor
Output = pb.ModelInferRequest.InferRequestedOutputTensor
INFER = INFERENCE + "ModelInfer"
REFUSED = {"INVALID_ARGUMENT", "NOT_FOUND"}

models = st.sampled_from(["digits", "digits", "digits-image", "", "digit"])
names = st.sampled_from(["rows", "rows", "image", ""]) | st.text(max_size=20)
datatypes = st.sampled_from(["FP32", "FP32", "UINT8", "BYTES", "INT64", ""]) | st.text(max_size=10)
sizes = st.integers(-2, 5) | st.sampled_from([28, 784, 2**31, 2**62, -(2**63)])
shapes = (
    st.integers(0, 4).map(lambda n: [n, 28, 28]) | st.integers(0, 4).map(lambda n: [n]) | st.lists(sizes, max_size=5)
)


def bits(count: int) -> st.SearchStrategy[bytes]:
    """Give so many images of any bits, from a seed: drawn byte by byte, hypothesis throws away what is over 8 KB."""
    return st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).bytes(3136 * count))


raw = (
    st.integers(0, 4).flatmap(bits)
    | st.integers(0, 4).map(lambda n: bytes(784 * n))
    | st.lists(st.binary(max_size=50), max_size=4).map(
        lambda contents: b"".join(struct.pack("<I", len(content)) + content for content in contents)
    )
    | st.binary(max_size=100)
)
contents = st.builds(
    pb.InferTensorContents,
    fp32_contents=st.lists(st.floats(width=32), max_size=3) | st.just([0.5] * 784),
    uint_contents=st.lists(st.integers(0, 2**32 - 1), max_size=3) | st.just([7] * 784),
    bytes_contents=st.lists(st.binary(max_size=20), max_size=3),
)
values = st.one_of(
    st.builds(pb.InferParameter),
    st.builds(pb.InferParameter, bool_param=st.booleans()),
    st.builds(pb.InferParameter, int64_param=st.integers(-(2**63), 2**63 - 1)),
    st.builds(pb.InferParameter, uint64_param=st.integers(0, 2**64 - 1)),
    st.builds(pb.InferParameter, string_param=st.text(max_size=5)),
    st.builds(pb.InferParameter, double_param=st.floats()),
)
keys = st.sampled_from(["classification", "sequence_id", "priority", "triton_x", "shared_memory_region", "x"])
parameters = st.dictionaries(keys, values, max_size=2)
inputs = st.builds(
    Input,
    name=names,
    datatype=datatypes,
    shape=shapes,
    parameters=st.just({}) | parameters,
    contents=st.none() | contents,
)
outputs = st.builds(
    Output,
    name=st.sampled_from(["logits", "probabilities", "digit", "rejected", "error", ""]) | st.text(max_size=9),
    parameters=st.just({}) | parameters,
)
requests = st.builds(
    pb.ModelInferRequest,
    model_name=models,
    model_version=st.sampled_from(["", "", "", "1", "2", "x"]),
    id=st.text(max_size=5),
    parameters=st.just({}) | parameters,
    inputs=st.lists(inputs, min_size=1, max_size=1) | st.lists(inputs, max_size=3),
    outputs=st.just([]) | st.lists(outputs, max_size=4),
    raw_input_contents=st.lists(raw, max_size=1) | st.lists(raw, max_size=3),
)


def sound(count: int) -> st.SearchStrategy[pb.ModelInferRequest]:
    """Ask for so many images of any bits, and for any outputs."""
    return st.builds(
        pb.ModelInferRequest,
        model_name=st.just("digits"),
        inputs=st.just([Input(name="rows", datatype="FP32", shape=[count, 28, 28])]),
        outputs=st.lists(outputs, max_size=2, unique_by=lambda output: output.name),
        raw_input_contents=st.lists(bits(count), min_size=1, max_size=1),
    )


any_request = requests | st.integers(1, 3).flatmap(sound)


@pytest.fixture
def channel(server: BesetServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as open_channel:
        yield open_channel


def check(request: pb.ModelInferRequest, response: pb.ModelInferResponse) -> None:
    """Hold a response to what its request asked for."""
    assert (response.model_name, response.id) == (request.model_name, request.id)
    if request.outputs:
        assert [output.name for output in response.outputs] == [output.name for output in request.outputs]
    (given,) = request.inputs
    for output, content in zip(response.outputs, response.raw_output_contents, strict=True):
        assert output.shape[0] == given.shape[0]
        elements = int(np.prod(output.shape))
        if output.datatype == "BYTES":
            assert len(content) >= 4 * elements
        else:
            assert len(content) == elements * {"FP32": 4, "INT64": 8, "BOOL": 1}[output.datatype]
        if output.datatype == "FP32":
            assert np.isfinite(np.frombuffer(content, "<f4")).all()


@many
@given(request=any_request)
@example(request=pb.ModelInferRequest(model_name="digits", inputs=[Input(name="rows", datatype="FP32", shape=[2**62])]))
@example(
    request=pb.ModelInferRequest(
        model_name="digits",
        inputs=[Input(name="rows", datatype="FP32", shape=[1, 28, 28])],
        raw_input_contents=[np.full(784, np.nan, "<f4").tobytes()],
    )
)
def test_any_request_is_answered_in_full_or_refused(channel: grpc.Channel, request: pb.ModelInferRequest) -> None:
    code, answers = outcome(channel, INFER, [request.SerializeToString()])
    if code == "OK":
        check(request, pb.ModelInferResponse.FromString(answers[0]))
    else:
        assert code in REFUSED


@many
@given(asked=st.lists(any_request, max_size=5))
def test_a_stream_answers_or_refuses_each_request_in_turn(
    channel: grpc.Channel, asked: list[pb.ModelInferRequest]
) -> None:
    sent = [request.SerializeToString() for request in asked]
    code, answers = outcome(channel, STREAM_INFER, sent)
    assert code == "OK"
    responses = [pb.ModelStreamInferResponse.FromString(answer) for answer in answers]
    for message, response in zip(sent, responses, strict=True):
        code, alone = outcome(channel, INFER, [message])
        assert (code == "OK") == (not response.error_message)
        if code == "OK":
            response.infer_response.ClearField("parameters")
            assert response.infer_response == pb.ModelInferResponse.FromString(alone[0])


words = st.sampled_from(["digits", "digits-image", "1", ""]) | st.text(max_size=30)


@pytest.mark.parametrize(
    "message", [pb.ModelReadyRequest, pb.ModelMetadataRequest, pb.ModelConfigRequest, pb.ModelStatisticsRequest]
)
@many
@given(name=words, version=words)
def test_any_model_can_be_asked_after(channel: grpc.Channel, message: Any, name: str, version: str) -> None:
    method = INFERENCE + message.DESCRIPTOR.name.removesuffix("Request")
    code, _ = outcome(channel, method, [message(name=name, version=version).SerializeToString()])
    assert code in {"OK", "NOT_FOUND"}
