"""Messages that nobody would send on purpose: any bytes, and any message that the protocol allows."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from scanline.inference import open_inference_pb2
from scanline.v1 import digits_pb2 as pb
from tests.faults.server import BesetServer

DIGITS = "/scanline.v1.Digits/"
CHECK = "/grpc.health.v1.Health/Check"
INFERENCE = "/inference.GRPCInferenceService/"
STREAM_INFER = INFERENCE + "ModelStreamInfer"
UNARY = [
    DIGITS + "Classify",
    DIGITS + "GetModel",
    CHECK,
    *(
        INFERENCE + method.name
        for method in open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods
        if not method.client_streaming
    ),
]
STREAMS = [
    DIGITS + "ClassifyStream",
    DIGITS + "ClassifyRows",
    STREAM_INFER,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
]
# What a call may end with for what it holds. INTERNAL and UNKNOWN would mean that the server met something that it was
# not made for, UNAVAILABLE and CANCELLED that the connection broke.
FAIR = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED"}

# A call that gets no answer at all is found out so many seconds after it was made.
SOON = 10.0

# Hypothesis calls a test many times with one server: that is what is wanted.
many = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

pixels = st.binary(max_size=3000) | st.integers(0, 4).flatmap(lambda n: st.binary(min_size=784 * n, max_size=784 * n))
files = st.lists(st.binary(max_size=200) | st.binary(max_size=200).map(b"\x89PNG\r\n\x1a\n".__add__), max_size=5)
SERVED = ["", "1"]  # the current version, and its name
versions = st.sampled_from(SERVED) | st.text(max_size=300)
requests = st.builds(
    pb.ClassifyRequest, pixels=pixels, model_version=versions, probabilities=st.booleans()
) | st.builds(pb.ClassifyRequest, files=st.builds(pb.EncodedImages, files=files), model_version=versions)
rows = st.builds(
    pb.ClassifyRowsRequest, rows=st.binary(max_size=1000) | st.integers(1, 30).map(lambda n: bytes(28 * n))
)


@pytest.fixture
def channel(server: BesetServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as open_channel:
        yield open_channel


def outcome(channel: grpc.Channel, method: str, messages: list[bytes]) -> tuple[str, list[bytes]]:
    """Make a call with messages as they go over the wire; give the status and the answers."""
    answers: list[bytes] = []
    try:
        if method in STREAMS:
            stream: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(method)
            answers.extend(stream(iter(messages), timeout=SOON))
        else:
            unary: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
            answers.append(unary(messages[0], timeout=SOON))
    except grpc.RpcError as error:
        return error.code().name, answers
    return "OK", answers


@pytest.mark.parametrize("method", UNARY + STREAMS)
@many
@given(messages=st.lists(st.binary(max_size=200), min_size=1, max_size=3))
@example(messages=[b"\xff\xff"])  # no field has this number
@example(messages=[b"\x0a\x05abc"])  # a field that is cut short
@example(messages=[b"\x0a\x01\xff"])  # text that is not UTF-8, where the first field is text
@example(messages=[b"\x1a\x01\xff"])  # and where the third one is
@example(messages=[b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80"])  # a number without end
@example(messages=[b"\x0b" * 200])  # groups in groups
def test_any_bytes_get_a_fair_answer(channel: grpc.Channel, method: str, messages: list[bytes]) -> None:
    code, _ = outcome(channel, method, messages)
    assert code in FAIR


@many
@given(message=st.builds(pb.GetModelRequest, model_version=versions))
@example(message=pb.GetModelRequest(model_version="x" * 100_000))  # names are not repeated at any length
def test_any_version_can_be_asked_for(channel: grpc.Channel, message: pb.GetModelRequest) -> None:
    code, _ = outcome(channel, DIGITS + "GetModel", [message.SerializeToString()])
    assert code == ("OK" if message.model_version in SERVED else "NOT_FOUND")


@many
@given(message=requests)
def test_any_request_is_answered_for_each_image_or_refused(channel: grpc.Channel, message: pb.ClassifyRequest) -> None:
    code, answers = outcome(channel, DIGITS + "Classify", [message.SerializeToString()])
    count = len(message.pixels) / 784 if message.WhichOneof("images") == "pixels" else len(message.files.files)
    if message.model_version not in SERVED:
        assert code in {"NOT_FOUND", "INVALID_ARGUMENT"}
    elif count != int(count) or count == 0:
        assert code == "INVALID_ARGUMENT"
    else:
        assert code == "OK"
        predictions = pb.ClassifyResponse.FromString(answers[0]).predictions
        assert len(predictions) == count
        assert all(bool(answer.error) == (answer.digit == -1) for answer in predictions)


@many
@given(messages=st.lists(requests, max_size=6))
def test_a_stream_answers_as_the_calls_do(channel: grpc.Channel, messages: list[pb.ClassifyRequest]) -> None:
    expected, code = [], "OK"
    sent = [message.SerializeToString() for message in messages]
    for message in sent:
        code, answers = outcome(channel, DIGITS + "Classify", [message])
        expected += answers
        if code != "OK":
            break
    assert outcome(channel, DIGITS + "ClassifyStream", sent) == (code, expected)


@many
@given(messages=st.lists(rows, max_size=6))
def test_rows_are_answered_one_by_one_or_refused(channel: grpc.Channel, messages: list[pb.ClassifyRowsRequest]) -> None:
    code, answers = outcome(channel, DIGITS + "ClassifyRows", [message.SerializeToString() for message in messages])
    seen, expected = 0, "OK"
    for message in messages:
        whole = len(message.rows) % 28 == 0 and len(message.rows) > 0
        seen += len(message.rows) // 28 if whole else 0
        if not whole or seen > 28:
            expected = "INVALID_ARGUMENT"
            break
    assert code == expected
    assert [pb.ClassifyRowsResponse.FromString(answer).rows_seen for answer in answers] == list(
        range(1, min(seen, 28) + 1)
    )


@many
@given(name=st.text(max_size=50))
def test_any_service_s_health_can_be_asked_for(channel: grpc.Channel, name: str) -> None:
    code, _ = outcome(channel, CHECK, [health_pb2.HealthCheckRequest(service=name).SerializeToString()])
    assert code in {"OK", "NOT_FOUND"}
