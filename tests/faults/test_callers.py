"""Many callers at once, who cancel and run out of time as they please: each gets its own answer or none."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsStub
from tests.faults.server import Answers, BesetServer, running
from tests.serve.conftest import PATIENCE

CALLERS = 24
ROUNDS = 6
AT_ONCE = 8  # calls of one caller on their way together: 192 in all
GONE = {grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED}


@pytest.fixture(scope="module")
def shared_server(transport: str) -> Iterator[BesetServer]:
    """A server that has room for what all of them ask at once: here nobody is to be refused."""
    with running("--transport", transport, "--max-queue-images", "100000") as server:
        yield server


@pytest.fixture(scope="module")
def answers(shared_server: BesetServer) -> Answers:
    """Eight hundred distinct images, so that an answer that went astray would be seen."""
    chance = np.random.default_rng(7)
    strokes = chance.integers(0, 256, (800, 28, 28), dtype=np.uint8)
    return Answers(shared_server.address, np.where(chance.random((800, 28, 28)) < 0.85, np.uint8(0), strokes))


class Caller:
    """One who calls in every way there is."""

    def __init__(self, seed: int, channel: grpc.Channel, answers: Answers) -> None:
        self.chance = random.Random(seed)
        self.stub = DigitsStub(channel)
        self.answers = answers
        self.answered = 0

    def pick(self) -> tuple[pb.ClassifyRequest, list[pb.Prediction]]:
        """Choose images, few or many; give the request and the answers that are due."""
        count = self.chance.choice([1, 1, 1, 2, 7, 65, 200])
        start = self.chance.randrange(len(self.answers.images) - count)
        images = self.answers.images[start : start + count]
        return pb.ClassifyRequest(pixels=images.tobytes(), probabilities=True), self.answers.alone[
            start : start + count
        ]

    def call(self) -> None:
        """Make a few calls at once, some of them with hardly any time, and cancel some when the first is back."""
        due = [self.pick() for _ in range(AT_ONCE)]
        calls = [
            self.stub.Classify.future(request, timeout=self.chance.choice([PATIENCE, PATIENCE, 0.001, 0.005, 0.02]))
            for request, _ in due
        ]
        calls[0].exception()
        for call in self.chance.sample(calls, 2):
            call.cancel()
        for call, (_, expected) in zip(calls, due, strict=True):
            if call.code() is grpc.StatusCode.OK:
                assert list(call.result().predictions) == expected
                self.answered += 1
            else:
                assert call.code() in GONE, call.details()

    def stream(self) -> None:
        """Stream a few requests, and leave at times before the last answer."""
        due = [self.pick() for _ in range(6)]
        responses = self.stub.ClassifyStream(iter([request for request, _ in due]), timeout=PATIENCE)
        stay = self.chance.choice([1, 3, 6])
        for response, (_, expected) in zip(responses, due[:stay], strict=False):
            assert list(response.predictions) == expected
            self.answered += 1
        responses.cancel()

    def live(self) -> int:
        """Go through a caller's life; give how many of its calls were answered."""
        for _ in range(ROUNDS):
            (self.call if self.chance.random() < 0.7 else self.stream)()
        return self.answered


@pytest.mark.parametrize("seed", [1, 2])
def test_every_caller_gets_its_own_answer_bit_for_bit(server: BesetServer, answers: Answers, seed: int) -> None:
    with grpc.insecure_channel(server.address) as channel, ThreadPoolExecutor(CALLERS) as pool:
        callers = [Caller(100 * seed + number, channel, answers) for number in range(CALLERS)]
        answered = sum(pool.map(Caller.live, callers))
    assert answered > CALLERS * ROUNDS  # that is, not nearly all of them were dropped
