"""Clients and servers that are killed, halted, or never read what they asked for."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest

from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsStub
from tests.faults.server import Answers, BesetServer, until
from tests.serve.conftest import PATIENCE

STREAMS = 32  # --max-streams in conftest.py
LARGE = 500  # images; the answer to them, probabilities included, fills the window of a stream


@contextmanager
def streaming_client(server: BesetServer) -> Iterator[subprocess.Popen[str]]:
    """Start a client that holds all of the server's streams."""
    command = [sys.executable, "-m", "tests.faults.client", server.address, str(STREAMS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        try:
            assert client.stdout is not None
            assert client.stdout.readline() == "streaming\n"
            yield client
        finally:
            client.kill()


def all_streams_are_free(server: BesetServer) -> bool:
    """Say whether as many streams as may be open can be opened, and answer."""
    with grpc.insecure_channel(server.address) as channel:
        held = [
            DigitsStub(channel).ClassifyRows(iter([pb.ClassifyRowsRequest(rows=bytes(28))])) for _ in range(STREAMS)
        ]
        try:
            return [len(list(call)) for call in held] == [1] * STREAMS
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # noqa: PT017 - another status is a failure
            return False


def test_a_client_that_is_killed_in_mid_stream_gives_its_places_back(server: BesetServer, answers: Answers) -> None:
    for _ in range(2):
        with streaming_client(server) as client:
            answers.check(server.address)
            client.kill()
            client.wait()
            until(lambda: all_streams_are_free(server), "the dead client's streams are free again")


def test_a_client_that_is_halted_holds_up_nobody_else(server: BesetServer, answers: Answers) -> None:
    with streaming_client(server) as client:
        client.send_signal(signal.SIGSTOP)  # from here on its buffers fill
        for _ in range(20):
            answers.check(server.address)


def test_a_stream_that_is_not_read_is_not_read_ahead_of(server: BesetServer, answers: Answers) -> None:
    offered = 100
    taken = 0

    def requests() -> Iterator[pb.ClassifyRequest]:
        nonlocal taken
        for _ in range(offered):
            taken += 1
            yield request

    few = len(answers.images)
    repeated = answers.images.repeat(LARGE // few + 1, axis=0)[:LARGE]
    expected = [answer for answer in answers.alone for _ in range(LARGE // few + 1)][:LARGE]
    request = pb.ClassifyRequest(pixels=repeated.tobytes(), probabilities=True)
    # the client takes no more than this before it is asked to; as it comes, gRPC lets the measured bandwidth decide
    small_window = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65536)]
    with grpc.insecure_channel(server.address, small_window) as channel:
        responses = DigitsStub(channel).ClassifyStream(requests(), timeout=PATIENCE)
        # the stream has come to a stand once so many other calls went by without its moving
        until(lambda: not moves(lambda: taken, server, answers), "the server stops reading the stream")
        assert taken < offered
        assert all(list(response.predictions) == expected for response in responses)
        assert taken == offered


def moves(position: Callable[[], int], server: BesetServer, answers: Answers) -> bool:
    """Say whether a stream gets on while other callers are answered."""
    before = position()
    for _ in range(20):
        answers.check(server.address)
    return position() != before


def test_a_server_that_was_halted_goes_on_where_it_was(server: BesetServer, answers: Answers) -> None:
    with grpc.insecure_channel(server.address) as channel, ThreadPoolExecutor(1) as pool:
        classify = DigitsStub(channel).Classify
        request = pb.ClassifyRequest(pixels=answers.images.tobytes(), probabilities=True)
        classify(request)
        server.process.send_signal(signal.SIGSTOP)
        try:
            patient = pool.submit(classify, request, timeout=PATIENCE)
            with pytest.raises(grpc.RpcError) as error:
                classify(request, timeout=0.2)
            assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        finally:
            server.process.send_signal(signal.SIGCONT)
        assert list(patient.result(PATIENCE).predictions) == answers.alone


def test_a_lone_stream_of_the_largest_requests_is_slowed_down_and_not_refused(
    server: BesetServer, answers: Answers
) -> None:
    request = pb.ClassifyRequest(pixels=bytes(784 * 1024))  # the server's --max-images
    with grpc.insecure_channel(server.address) as channel:
        responses = list(DigitsStub(channel).ClassifyStream(iter([request] * 20), timeout=PATIENCE))
    assert [len(response.predictions) for response in responses] == [1024] * 20
