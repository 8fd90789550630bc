"""Streams on a server whose model is held: what they read ahead, and what they wait for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from scanline import samples
from scanline.preprocess import Steps, steps
from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsStub
from serve import core
from serve.batcher import Batcher, Ticket
from serve.errors import FullError
from serve.lifecycle import Server
from tests.faults.server import until
from tests.serve.conftest import PATIENCE, HeldModel

ONE_IMAGE = pb.ClassifyRequest(pixels=bytes(784))


def fill(stub: DigitsStub, held: HeldModel, server: Server) -> tuple[Any, Any]:
    """Have the model run for one call and the queue full of another; give both."""
    running = stub.Classify.future(ONE_IMAGE)
    assert held.started.acquire(timeout=PATIENCE)
    full = stub.Classify.future(pb.ClassifyRequest(pixels=bytes(784 * 1024)))
    until(lambda: server.statistics.pending()["digits", "1"] == 1, "the queue is full")
    return running, full


def test_a_stream_that_waits_for_room_reads_its_files_once(
    held: HeldModel, held_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[bytes] = []
    submit, asked = Batcher.submit, threading.Semaphore(0)

    def read(file: bytes, most: int) -> Steps:
        reads.append(file)
        return steps(file, most)

    def ask(batcher: Batcher, *given: Any) -> Ticket:
        asked.release()
        return submit(batcher, *given)

    with grpc.insecure_channel(held_server.address) as channel:
        stub = DigitsStub(channel)
        running, full = fill(stub, held, held_server)
        monkeypatch.setattr(core, "steps", read)
        monkeypatch.setattr(Batcher, "submit", ask)
        file = samples.files()[0].read_bytes()
        stream = stub.ClassifyStream(iter([pb.ClassifyRequest(files=pb.EncodedImages(files=[file]))]))
        for _ in range(3):
            assert asked.acquire(timeout=PATIENCE)
        held.allowed.release(100)
        assert len(list(stream)) == 1
        assert (len(running.result().predictions), len(full.result().predictions)) == (1, 1024)
    assert reads == [file]
    assert all(not model.failed for model in held_server.statistics.snapshot().models.values())


def test_what_a_stream_has_read_ahead_counts_as_cancelled_when_its_caller_goes(
    held: HeldModel, held_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, submitted, over = Batcher.submit, threading.Semaphore(0), threading.Event()

    def see(batcher: Batcher, *given: Any) -> Ticket:
        ticket = submit(batcher, *given)
        submitted.release()
        return ticket

    def requests() -> Iterator[pb.ClassifyRequest]:
        yield from [ONE_IMAGE] * 3
        over.wait(PATIENCE)

    monkeypatch.setattr(Batcher, "submit", see)

    with grpc.insecure_channel(held_server.address) as channel:
        stream = DigitsStub(channel).ClassifyStream(requests())
        for _ in range(3):
            assert submitted.acquire(timeout=PATIENCE)
        stream.cancel()
        until(lambda: held_server.statistics.in_flight() == 0, "the call is over")
        over.set()
        held.allowed.release(100)

        def cancelled() -> int:
            return held_server.statistics.snapshot().models["digits", "1"].failed.get("CANCELED", 0)

        until(lambda: cancelled() == 3, "all three count")


def test_a_stream_that_waits_for_room_is_over_when_its_caller_goes(
    held: HeldModel, held_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, refused = Batcher.submit, threading.Semaphore(0)

    def see(batcher: Batcher, *given: Any) -> Ticket:
        try:
            return submit(batcher, *given)
        except FullError:
            refused.release()
            raise

    with grpc.insecure_channel(held_server.address) as channel:
        stub = DigitsStub(channel)
        running, full = fill(stub, held, held_server)
        monkeypatch.setattr(Batcher, "submit", see)
        stream = stub.ClassifyStream(iter([ONE_IMAGE]))
        assert refused.acquire(timeout=PATIENCE)
        stream.cancel()

        def failed() -> dict[str, int]:
            return held_server.statistics.snapshot().models["digits", "1"].failed

        until(lambda: failed() == {"CANCELED": 1}, "it is dropped while the queue is full")
        held.allowed.release(100)
        assert (len(running.result().predictions), len(full.result().predictions)) == (1, 1024)
