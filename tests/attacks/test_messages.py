"""Messages that are larger inside than they look."""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from scanline.inference import open_inference_pb2 as oip
from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsStub
from tests.faults import http2
from tests.faults.server import ROOM_MIB, Answers, BesetServer
from tests.serve.conftest import PATIENCE

LIMIT = 16 * 2**20  # the server's --max-message-bytes, as conftest.py of tests/faults has it


@pytest.fixture
def channel(server: BesetServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as open_channel:
        yield open_channel


def chunk(kind: bytes, content: bytes) -> bytes:
    """Give a chunk of a PNG file (PNG specification, section 5.3)."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """Give a grey 8-bit PNG file of some size with chunks of any kind."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


BOMB = zlib.compress(bytes(256 * 2**20), 9)  # 256 MiB in 256 KiB
FILES = {
    "more pixels than are read": png(60_000, 60_000, chunk(b"IDAT", BOMB)),
    "no pixels": png(0, 0, chunk(b"IDAT", zlib.compress(b""))),
    "a picture wider than its header has room for": png(2**31 - 1, 1, chunk(b"IDAT", BOMB)),
    "more content than pixels": png(28, 28, chunk(b"IDAT", BOMB)),
    "a text that unpacks": png(28, 28, chunk(b"zTXt", b"k\0\0" + BOMB), chunk(b"IDAT", zlib.compress(bytes(29 * 28)))),
    "a profile that unpacks": png(
        28, 28, chunk(b"iCCP", b"k\0\0" + BOMB), chunk(b"IDAT", zlib.compress(bytes(29 * 28)))
    ),
    "a chunk longer than the file": png(28, 28, struct.pack(">I", 2**31 - 1) + b"IDAT"),
    "a checksum that is wrong": png(28, 28, chunk(b"IDAT", zlib.compress(bytes(29 * 28)))[:-4] + b"\0\0\0\0"),
    "a JPEG that only begins": b"\xff\xd8\xff\xe0",
    "a JPEG of a size without content": b"\xff\xd8\xff\xc0\0\x0b\x08\xff\xff\xff\xff\x01\x01\x11\0\xff\xd9",
    "a BMP of negative width": b"BM"
    + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, -5, -5, 1, 24, 0, 0, 0, 0, 0, 0),
    "a BMP of four thousand million pixels": b"BM"
    + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 65_535, 65_535, 1, 1, 0, 0, 0, 0, 0, 0),
}


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_is_its_own_error_or_its_own_answer(channel: grpc.Channel, name: str) -> None:
    good = png(28, 28, chunk(b"IDAT", zlib.compress((b"\0" + bytes(14) + bytes([255]) + bytes(13)) * 28)))
    request = pb.ClassifyRequest(files=pb.EncodedImages(files=[good, FILES[name], good]))
    predictions = DigitsStub(channel).Classify(request, timeout=PATIENCE).predictions
    assert predictions[0] == predictions[2]
    assert not predictions[0].error
    assert bool(predictions[1].error) == (predictions[1].digit == -1)
    assert len(predictions[1].error) < 500


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_a_compressed_message_counts_at_its_full_size(
    server: BesetServer, channel: grpc.Channel, compression: grpc.Compression
) -> None:
    classify = DigitsStub(channel).Classify
    before = server.peak()
    with pytest.raises(grpc.RpcError) as error:
        classify(pb.ClassifyRequest(pixels=bytes(256 * 2**20)), compression=compression, timeout=PATIENCE)
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert server.peak() < before + 4 * LIMIT / 2**20  # it was not unpacked to find that out
    assert len(classify(pb.ClassifyRequest(pixels=bytes(784)), compression=compression).predictions) == 1


# Messages one after the other are one message with the parts of all (protobuf's merging).
HOLLOW = {
    "files": ("/scanline.v1.Digits/Classify", pb.ClassifyRequest(files=pb.EncodedImages(files=[b""]))),
    "inputs": (
        "/inference.GRPCInferenceService/ModelInfer",
        oip.ModelInferRequest(inputs=[oip.ModelInferRequest.InferInputTensor()]),
    ),
}


@pytest.mark.parametrize("name", HOLLOW)
def test_a_message_of_millions_of_parts_is_refused_before_it_is_parsed(
    server: BesetServer, channel: grpc.Channel, name: str
) -> None:
    method, part = HOLLOW[name]
    content = part.SerializeToString() * (LIMIT // 8)
    call: Callable[..., bytes] = channel.unary_unary(method)
    before = server.peak()
    with pytest.raises(grpc.RpcError) as error:
        call(content, timeout=PATIENCE)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "parts" in (error.value.details() or "")
    assert server.peak() < before + 4 * LIMIT / 2**20  # parsed, it takes many times that


def test_no_text_of_a_caller_is_repeated_at_any_length(server: BesetServer, channel: grpc.Channel) -> None:
    stub = DigitsStub(channel)
    for call in (
        lambda name: stub.GetModel(pb.GetModelRequest(model_version=name)),
        lambda name: stub.Classify(pb.ClassifyRequest(pixels=bytes(784), model_version=name)),
    ):
        with pytest.raises(grpc.RpcError) as error:
            call("\u00e9" * 2**20)
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
        assert len(error.value.details() or "") < 1000
    assert all(len(str(event)) < 2000 for event in server.events)


def test_streams_of_every_service_leave_threads_for_calls(channel: grpc.Channel) -> None:
    end = threading.Event()

    def questions() -> Iterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        end.wait(PATIENCE)

    health = health_pb2_grpc.HealthStub(channel)
    reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
    held = [health.Watch(health_pb2.HealthCheckRequest()) for _ in range(100)]
    held += [reflection.ServerReflectionInfo(questions()) for _ in range(100)]
    request = pb.ClassifyRequest(pixels=bytes(784))
    try:
        assert len(DigitsStub(channel).Classify(request, timeout=PATIENCE / 3).predictions) == 1
    finally:
        end.set()
        for call in held:
            call.cancel()


def test_a_stream_keeps_nothing_of_what_is_answered(server: BesetServer, channel: grpc.Channel) -> None:
    request = pb.ClassifyRequest(pixels=bytes(512 * 784))
    answers = DigitsStub(channel).ClassifyStream((request for _ in range(120)), timeout=PATIENCE)
    for _ in range(20):
        next(answers)
    before = server.memory()
    for _ in range(99):  # the network's form of these images has 150 MiB
        next(answers)
    assert server.memory() < before + ROOM_MIB
    assert len(list(answers)) == 1


def test_the_names_that_watchers_of_health_ask_for_are_not_kept(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for number in range(64):  # 256 MiB in all; the fixture looks at the memory
        watch = health.Watch(health_pb2.HealthCheckRequest(service=str(number) + "x" * 4 * 2**20))
        assert next(iter(watch)).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        watch.cancel()


def test_calls_that_never_send_their_message_leave_threads_for_others(server: BesetServer, answers: Answers) -> None:
    with ExitStack() as held:
        for _ in range(100):
            connection = held.enter_context(server.connect())
            connection.sendall(http2.opening() + http2.call(1))
        answers.check(server.address)
