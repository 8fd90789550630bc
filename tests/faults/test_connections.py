"""What comes over a connection that no client of ours would send: nothing, half of something, another protocol."""

from __future__ import annotations

import random
import resource
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import grpc
import pytest

from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsStub
from tests.faults import http2
from tests.faults.server import Answers, BesetServer, running, until

MANY = 1000
IMAGE = pb.ClassifyRequest(pixels=bytes(784)).SerializeToString()


@contextmanager
def room_for_files(count: int) -> Iterator[None]:
    """Let this process open so many files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip(f"{count} open files are needed, and the system allows {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def limited_to(server: BesetServer, files: int) -> Iterator[None]:
    """Let the server open no more than so many files."""
    former = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (files, former[1]))
    try:
        yield
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, former)


def client_hello() -> bytes:
    """Give what a TLS client says first."""
    outgoing = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("sent", [b"", http2.opening(), http2.opening() + http2.call(1)[:20]])
def test_a_thousand_connections_that_say_no_more(server: BesetServer, answers: Answers, sent: bytes) -> None:
    with room_for_files(2 * MANY + 200), ExitStack() as held, limited_to(server, 2 * MANY):
        for _ in range(MANY):
            held.enter_context(server.connect()).sendall(sent)
        until(lambda: server.files() >= MANY, "the server takes every connection")
        answers.check(server.address)


@pytest.mark.parametrize(
    "message",
    [b"", b"\0", http2.message(IMAGE)[:5], http2.message(IMAGE)[:400], http2.message(IMAGE)[:-1]],
    ids=["headers alone", "one byte", "length alone", "half", "all but a byte"],
)
@pytest.mark.parametrize("ending", ["closed", "shut"])
def test_calls_that_stop_in_the_middle_of_a_message(
    server: BesetServer, answers: Answers, message: bytes, ending: str
) -> None:
    # in waves, more in all than the server has threads: one that is not given back would be missed
    for _ in range(4):
        with ExitStack() as held:
            for _ in range(32):
                connection = held.enter_context(server.connect())
                announced = http2.frame(http2.DATA, http2.message(IMAGE), stream=1)
                connection.sendall(http2.opening() + http2.call(1) + announced[: 9 + len(message)])
                if ending == "shut":
                    connection.shutdown(socket.SHUT_WR)
            answers.check(server.address)


def test_a_server_whose_callers_broke_off_still_ends_in_good_order(transport: str) -> None:
    half = http2.frame(http2.DATA, http2.message(IMAGE), stream=1)[:400]
    with running("--transport", transport) as server:
        for _ in range(8):
            with ExitStack() as held:
                for _ in range(32):
                    connection = held.enter_context(server.connect())
                    connection.sendall(http2.opening() + http2.call(1) + half)
                    connection.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n",
        client_hello(),
        b"SSH-2.0-OpenSSH_9.2\r\n",
        random.Random(5).randbytes(100_000),
        bytes(100_000),
        http2.opening() + random.Random(6).randbytes(100_000),
        http2.opening() + http2.frame(http2.HEADERS, b"\xff" * 100, flags=http2.END_HEADERS, stream=1),
        http2.PREFACE + http2.frame(http2.SETTINGS, b"seven b"),
    ],
    ids=["http1", "upgrade", "tls", "ssh", "noise", "zeros", "noise frames", "bad hpack", "bad settings"],
)
def test_another_protocol_is_hung_up_on(server: BesetServer, answers: Answers, sent: bytes) -> None:
    with server.connect() as connection:
        try:
            connection.sendall(sent)
            while connection.recv(65536):  # what it says does not matter, as long as it ends
                pass
        except (ConnectionResetError, BrokenPipeError):
            pass
    answers.check(server.address)


def test_a_message_over_the_limit_costs_its_own_call_alone(server: BesetServer, answers: Answers) -> None:
    with grpc.insecure_channel(server.address) as channel:
        classify = DigitsStub(channel).Classify
        for _ in range(5):
            with pytest.raises(grpc.RpcError) as error:
                classify(pb.ClassifyRequest(pixels=bytes(17 * 2**20)))
            assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len(classify(pb.ClassifyRequest(pixels=bytes(784))).predictions) == 1  # on the same connection


def test_no_file_descriptor_left(server: BesetServer, answers: Answers) -> None:
    before = server.files()
    with grpc.insecure_channel(server.address) as channel, ExitStack() as held:
        classify = DigitsStub(channel).Classify
        request = pb.ClassifyRequest(pixels=answers.images[:1].tobytes(), probabilities=True)
        classify(request)
        with limited_to(server, before + 8):
            for _ in range(50):  # the system takes those that the server can't
                held.enter_context(server.connect())
            until(lambda: server.files() >= before + 7, "the server has no file descriptor left")
            # who is connected is served all the same
            assert list(classify(request).predictions) == answers.alone[:1]
            held.pop_all().close()
            answers.check(server.address)  # and so is a new one once there is room
