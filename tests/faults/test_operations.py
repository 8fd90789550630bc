"""What goes wrong around a server: a broken certificate, a killed worker, a client that never reads."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from scanline.inference import open_inference_pb2 as oip
from scanline.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from scanline.reader import Reader
from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsStub
from tests.faults.server import ROOM_MIB, BesetServer, ask, running, until
from tests.serve.conftest import PATIENCE
from tests.serve.test_credentials import HOST, NEW_CONNECTION, Files
from tests.serve.test_workers import Shared

CALLERS = 2
STREAMS = 4
UNREAD = 500  # images of a request whose answer nobody reads


class Callers:
    """Callers that go on until they are told to stop, each with images of its own, on a new connection for each call.

    A call that fails in a way that is allowed is made again.
    """

    def __init__(self, connect: Callable[[], grpc.Channel], allowed: set[grpc.StatusCode]) -> None:
        self.answered = 0
        self.failed = 0
        self._connect = connect
        self._allowed = allowed
        self._over = threading.Event()
        self._lock = threading.Lock()

    def go_on(self, seed: int) -> None:
        """Call again and again; every answer must be that of the model in this process."""
        images = np.random.default_rng(seed).integers(0, 256, (8, 28, 28), dtype=np.uint8)
        with Reader() as reader:
            expected = [(answer.digit, answer.confidence) for answer in reader.classify(images)]
        while not self._over.is_set():
            try:
                found = self._classify(images)
            except grpc.RpcError as error:
                assert error.code() in self._allowed, error  # noqa: PT017 - another status is a failure
                with self._lock:
                    self.failed += 1
                continue
            assert found == expected
            with self._lock:
                self.answered += 1

    def wait_for_more(self, calls: int) -> None:
        """Wait until so many more calls are answered."""
        before = self.answered
        until(lambda: self.answered >= before + calls, f"{calls} more calls are answered")

    def stop(self) -> None:
        self._over.set()

    def _classify(self, images: NDArray[np.uint8]) -> list[tuple[int, float]]:
        request = pb.ClassifyRequest(pixels=images.tobytes())
        with self._connect() as channel:
            response = DigitsStub(channel).Classify(request, timeout=PATIENCE)
        return [(answer.digit, answer.confidence) for answer in response.predictions]


@contextmanager
def calling(connect: Callable[[], grpc.Channel], *allowed: grpc.StatusCode) -> Iterator[Callers]:
    """Have callers call; a wrong answer of any of them fails the test."""
    callers = Callers(connect, set(allowed))
    with ThreadPoolExecutor(CALLERS) as pool:
        running: list[Future[None]] = [pool.submit(callers.go_on, seed) for seed in range(CALLERS)]
        try:
            callers.wait_for_more(CALLERS)
            yield callers
        finally:
            callers.stop()
        for caller in running:
            caller.result(PATIENCE)


def have_been(server: BesetServer, event: str, times: int) -> bool:
    """Say whether the log has told of an event so often."""
    return [line["event"] for line in list(server.events)].count(event) == times


def test_a_certificate_rotated_to_a_broken_one_costs_no_call(tmp_path: Path, transport: str) -> None:
    files = Files(tmp_path)
    credentials = grpc.ssl_channel_credentials(files.authority.cert_pem.bytes())
    good = files.certificate.read_bytes()
    with (
        running("--transport", transport, *files.flags()) as server,
        calling(lambda: grpc.secure_channel(server.address, credentials, NEW_CONNECTION)) as callers,
    ):
        of_another_key = files.authority.issue_cert(HOST).cert_chain_pems[0].bytes()
        for number, broken in enumerate((b"", good[: len(good) // 2], of_another_key), 1):
            beside = tmp_path / "new"
            beside.write_bytes(broken)
            beside.rename(files.certificate)
            until(partial(have_been, server, "reload refused", number), "the broken certificate is refused")
            callers.wait_for_more(5)
        files.issue(files.authority)
        until(lambda: have_been(server, "reloaded", 1), "a good certificate is taken")
        callers.wait_for_more(5)
        assert callers.failed == 0
        server.events[:] = [event for event in server.events if event["event"] != "reload refused"]  # these were due


def test_a_worker_killed_under_load_costs_no_answer(transport: str) -> None:
    server = BesetServer("--transport", transport, "--workers", "2", "--metrics-listen", "127.0.0.1:0")
    try:
        shared = Shared(server.process, next(event for event in server.events if event["event"] == "serving"))
        connect = partial(grpc.insecure_channel, shared.address, NEW_CONNECTION)
        with calling(connect, grpc.StatusCode.UNAVAILABLE) as callers:
            for kills in range(1, 3):
                os.kill(min(shared.workers()), signal.SIGKILL)
                until(partial(shared.has, "scanline_worker_restarts_total", kills), "it is started again")
                until(partial(shared.has, "scanline_workers", 2), "both serve")
                callers.wait_for_more(5)
        assert server.process.poll() is None
        server.process.terminate()
        assert server.process.wait(PATIENCE) == 0
    finally:
        server.kill()


def digits_stream(channel: grpc.Channel, endless: Iterator[bytes]) -> object:
    """Stream images without reading an answer, over our own protocol."""
    requests = (pb.ClassifyRequest(pixels=pixels, probabilities=True) for pixels in endless)
    return DigitsStub(channel).ClassifyStream(requests)


def inference_stream(channel: grpc.Channel, endless: Iterator[bytes]) -> object:
    """Do the same over the Open Inference Protocol."""
    tensor = oip.ModelInferRequest.InferInputTensor(name="rows", datatype="UINT8", shape=[UNREAD, 28, 28])
    requests = (
        oip.ModelInferRequest(model_name="digits", inputs=[tensor], raw_input_contents=[pixels]) for pixels in endless
    )
    return GRPCInferenceServiceStub(channel).ModelStreamInfer(requests)


@pytest.mark.parametrize("stream", [digits_stream, inference_stream])
def test_a_client_that_never_reads_holds_up_nobody_and_not_the_end(
    transport: str, stream: Callable[[grpc.Channel, Iterator[bytes]], object]
) -> None:
    sent = 0

    def without_end() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield bytes(784 * UNREAD)

    small_window = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65536), *NEW_CONNECTION]
    image = np.zeros((1, 28, 28), np.uint8)
    server = BesetServer("--transport", transport, "--grace", "0.5")
    try:
        with grpc.insecure_channel(server.address, small_window) as greedy:
            with grpc.insecure_channel(server.address, NEW_CONNECTION) as channel:
                [alone] = ask(channel, image)
                held = [stream(greedy, without_end()) for _ in range(STREAMS)]

                def stands_still() -> bool:
                    before = sent
                    for _ in range(20):
                        assert ask(channel, image) == [alone]
                    return sent == before

                until(stands_still, "the server stops reading what it can't answer")
                memory = server.memory()
                for _ in range(50):
                    assert ask(channel, image) == [alone]
                assert server.memory() < memory + ROOM_MIB
            server.process.terminate()
            assert server.process.wait(PATIENCE) == 0
            assert len(held) == STREAMS  # as long as they are held, nothing cancels them
    finally:
        server.kill()
