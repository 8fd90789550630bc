"""What a server counts of its calls."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from scanline import samples
from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsStub
from serve.errors import (
    BadRequestError,
    CallError,
    CancelledError,
    ExpiredError,
    FullError,
    ModelRunError,
    StoppingError,
)
from serve.lifecycle import Server
from serve.statistics import Counts, Snapshot, Statistics, Times
from tests.faults.server import until
from tests.serve.conftest import PATIENCE, serving


@pytest.fixture
def server(transport: str) -> Iterator[Server]:
    """A server that has counted nothing yet."""
    with serving(transport=transport, max_batch_size=16, instances=1) as running:
        yield running


def counts(server: Server, name: str) -> Counts:
    [found] = [counts for (model, _), counts in server.statistics.snapshot().models.items() if model == name]
    return found


def test_answered_requests_are_counted_with_their_images_and_times(
    server: Server, stub: DigitsStub, images: NDArray[np.uint8]
) -> None:
    for count in (1, 40):
        stub.Classify(pb.ClassifyRequest(pixels=images[:count].tobytes()), timeout=PATIENCE)
    digits = counts(server, "digits")
    assert (digits.success, digits.images, digits.failed) == (2, 41, {})
    assert digits.runs == {1: 1, 16: 2, 8: 1}  # no more than 16 in a run
    assert sum(digits.run_times.values()) == 4
    assert sum(digits.total_times.values()) == sum(digits.queue_times.values()) == 2
    assert min(digits.input, digits.queue, digits.infer, digits.output) > 0
    assert digits.total == pytest.approx(digits.input + digits.queue + digits.infer + digits.output)
    assert digits.infer >= sum(digits.run_total.values())  # what a piece waits for the next is in it, too
    assert digits.last > 0
    assert counts(server, "digits-image") == Counts()


def test_image_files_are_counted_as_a_model_of_their_own(server: Server, stub: DigitsStub) -> None:
    first, second = samples.files()[:2]
    files = [first.read_bytes(), b"no image", second.read_bytes()]
    stub.Classify(pb.ClassifyRequest(files=pb.EncodedImages(files=files)), timeout=PATIENCE)
    stub.Classify(pb.ClassifyRequest(files=pb.EncodedImages(files=[b"no image"])), timeout=PATIENCE)
    files_model, digits = counts(server, "digits-image"), counts(server, "digits")
    assert (files_model.success, files_model.images) == (2, 2)
    assert digits.success == 0
    assert digits.runs == {2: 1}  # the runs are the one network's


def test_a_request_that_makes_no_sense_is_counted_as_failed(server: Server, stub: DigitsStub) -> None:
    with pytest.raises(grpc.RpcError):
        stub.Classify(pb.ClassifyRequest(pixels=bytes(784 * 1025)), timeout=PATIENCE)
    digits = counts(server, "digits")
    assert (digits.success, digits.failed) == (0, {"OTHER": 1})
    assert digits.failed_total > 0


def test_calls_are_in_flight_until_they_are_over(server: Server, stub: DigitsStub) -> None:
    over = threading.Event()

    def rows() -> Iterator[pb.ClassifyRowsRequest]:
        yield pb.ClassifyRowsRequest(rows=bytes(28))
        over.wait(PATIENCE)

    answers = stub.ClassifyRows(rows(), timeout=PATIENCE)
    next(answers)
    assert server.statistics.snapshot().in_flight == 1
    over.set()
    until(lambda: server.statistics.snapshot().in_flight == 0, "the call is over")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FullError("full", 1.0), "REJECTED"),
        (StoppingError("stopping"), "REJECTED"),
        (ExpiredError("late"), "REJECTED"),
        (CancelledError("gone"), "CANCELED"),
        (ModelRunError("broken"), "BACKEND"),
        (BadRequestError("nonsense"), "OTHER"),
    ],
)
def test_failures_have_the_reasons_that_dashboards_know(error: CallError, reason: str) -> None:
    statistics = Statistics()
    statistics.of("digits", "1").failed(error, 0.5)
    counted = statistics.snapshot().models["digits", "1"]
    assert (counted.failed, counted.failed_total) == ({reason: 1}, 0.5)


@pytest.mark.parametrize(("seconds", "bucket"), [(0.0, 0), (50e-6, 0), (51e-6, 1), (5.0, 15), (5.1, 16)])
def test_a_time_is_in_the_bucket_whose_upper_end_it_does_not_pass(seconds: float, bucket: int) -> None:
    statistics = Statistics()
    statistics.of("digits", "1").ran(1, seconds)
    assert statistics.snapshot().models["digits", "1"].run_times == {bucket: 1}


def test_what_several_processes_count_adds_up() -> None:
    processes = [Statistics(), Statistics()]
    for number, statistics in enumerate(processes):
        statistics.in_flight = lambda: 2
        counter = statistics.of("digits", "a")
        statistics.pending = lambda: {("digits", "a"): 3}
        counter.ran(4, 0.25)
        counter.ran(8 + number, 0.5)
        counter.succeeded(4, Times(came=0.0, queued=1.0, begun=3.0, ended=6.0, had=10.0))
        counter.failed(FullError("full", 1.0), 0.5)
        counter.rejected(["blank"])
        statistics.reloaded("model", "refused")
        statistics.call_failed("NOT_FOUND")
    processes[1].of("digits", "b").rejected(["several"])
    total = Snapshot()
    for statistics in processes:
        total += statistics.snapshot()
    assert total.in_flight == 4
    assert total.calls_failed == {"NOT_FOUND": 2}
    assert total.reloads == {("model", "refused"): 2}
    assert total.models["digits", "b"].rejected == {"several": 1}
    both = total.models["digits", "a"]
    assert (both.success, both.images, both.pending) == (2, 8, 6)
    assert (both.input, both.queue, both.infer, both.output, both.total) == (2.0, 4.0, 6.0, 8.0, 20.0)
    assert (both.failed, both.failed_total, both.rejected) == ({"REJECTED": 2}, 1.0, {"blank": 2})
    assert (both.runs, both.run_total) == ({4: 2, 8: 1, 9: 1}, {4: 0.5, 8: 0.5, 9: 0.5})
    assert both.last == max(statistics.snapshot().models["digits", "a"].last for statistics in processes)


def test_a_model_that_is_loaded_again_goes_on_counting() -> None:
    statistics = Statistics()
    statistics.of("digits", "a").rejected(["blank"])
    statistics.of("digits", "a").rejected(["blank", "several"])
    assert statistics.snapshot().models["digits", "a"].rejected == {"blank": 2, "several": 1}
