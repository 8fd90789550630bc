"""Many callers at once over both protocols, who cancel and run out of time: each gets its own answer or none."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from scanline.inference import open_inference_pb2 as oip
from scanline.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
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
        self.triton = GRPCInferenceServiceStub(channel)
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

    def infer(self) -> None:
        """Do as in `call`, over the Open Inference Protocol."""
        due = [self.pick() for _ in range(AT_ONCE)]
        calls = [
            self.triton.ModelInfer.future(inference(request), timeout=self.chance.choice([PATIENCE, PATIENCE, 0.005]))
            for request, _ in due
        ]
        calls[0].exception()
        self.chance.choice(calls).cancel()
        for call, (_, expected) in zip(calls, due, strict=True):
            if call.code() is grpc.StatusCode.OK:
                assert inferred(call.result()) == inferred_of(expected)
                self.answered += 1
            else:
                assert call.code() in GONE, call.details()

    def infer_stream(self) -> None:
        """Do as in `stream`, over the Open Inference Protocol."""
        due = [self.pick() for _ in range(6)]
        responses = self.triton.ModelStreamInfer(iter([inference(request) for request, _ in due]), timeout=PATIENCE)
        stay = self.chance.choice([1, 3, 6])
        for response, (_, expected) in zip(responses, due[:stay], strict=False):
            assert response.error_message == ""
            assert inferred(response.infer_response) == inferred_of(expected)
            self.answered += 1
        responses.cancel()

    def live(self) -> int:
        """Go through a caller's life; give how many of its calls were answered."""
        for _ in range(ROUNDS):
            self.chance.choice([self.call, self.call, self.infer, self.infer, self.stream, self.infer_stream])()
        return self.answered


def inference(request: pb.ClassifyRequest) -> oip.ModelInferRequest:
    """Ask the same over the Open Inference Protocol."""
    tensor = oip.ModelInferRequest.InferInputTensor(name="rows", datatype="FP32", shape=[-1, 28, 28])
    pixels = np.frombuffer(request.pixels, np.uint8)
    tensor.shape[0] = len(pixels) // 784
    rows = np.divide(pixels, 255, dtype=np.float32)
    return oip.ModelInferRequest(model_name="digits", inputs=[tensor], raw_input_contents=[rows.tobytes()])


def inferred(response: oip.ModelInferResponse) -> list[bytes]:
    """Give the bits of probabilities, digits and whether they are rejected."""
    assert [output.name for output in response.outputs] == ["logits", "probabilities", "digit", "rejected"]
    return [*response.raw_output_contents[1:]]


def inferred_of(expected: list[pb.Prediction]) -> list[bytes]:
    """Give the bits that they must have."""
    return [
        np.array([[*answer.probabilities] for answer in expected], "<f4").tobytes(),
        np.array([answer.digit for answer in expected], "<i8").tobytes(),
        bytes([answer.rejected for answer in expected]),
    ]


@pytest.mark.parametrize("seed", [1, 2])
def test_every_caller_gets_its_own_answer_bit_for_bit(server: BesetServer, answers: Answers, seed: int) -> None:
    with grpc.insecure_channel(server.address) as channel, ThreadPoolExecutor(CALLERS) as pool:
        callers = [Caller(100 * seed + number, channel, answers) for number in range(CALLERS)]
        answered = sum(pool.map(Caller.live, callers))
    assert answered > CALLERS * ROUNDS  # that is, not nearly all of them were dropped
