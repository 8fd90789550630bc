"""Models that change, or are damaged, under full load: nobody's call fails, nobody gets another's answer."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from scanline import Reader, manifest
from scanline.model import SHIPPED
from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsStub
from scanline.verify import GOLDEN
from tests.faults.server import BesetServer, running, until
from tests.serve.conftest import PATIENCE
from tests.serve.published import FLOAT32, INT8, publish

RELOADS = 1000
CALLERS = 8
# By how much the memory of the last quarter of the reloads may be above that of the second: readings wander by 10 MiB
# to either side with what the callers ask, and a model that stayed with every reload would be 100 MiB and more.
MOST_GROWTH_MIB = 8
KINDS = (INT8, FLOAT32)


class Load:
    """Callers who ask all the time and hold every answer to those of the models that may be there."""

    def __init__(self, address: str) -> None:
        chance = np.random.default_rng(11)
        strokes = chance.integers(0, 256, (200, 28, 28), dtype=np.uint8)
        self.images = np.where(chance.random((200, 28, 28)) < 0.85, np.uint8(0), strokes)
        self.right = [self._confidences(SHIPPED / names[0]) for names in KINDS]
        self.address = address
        self.over = threading.Event()

    def _confidences(self, model: Path) -> NDArray[np.float64]:
        return np.array([answer.confidence for answer in Reader(model).classify(self.images)])

    def call(self, seed: int) -> int:
        """Call until it is over; give how often."""
        chance, calls = random.Random(seed), 0
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(self.address, options) as channel:
            classify = DigitsStub(channel).Classify
            while not self.over.is_set():
                count = chance.choice([1, 1, 5, 70])
                start = chance.randrange(len(self.images) - count)
                request = pb.ClassifyRequest(pixels=self.images[start : start + count].tobytes())
                found = [answer.confidence for answer in classify(request, timeout=PATIENCE).predictions]
                # all of a call by one model, even where it went in pieces
                assert any(np.allclose(found, right[start : start + count], atol=1e-4) for right in self.right)
                calls += 1
        return calls


@contextmanager
def loaded(address: str) -> Iterator[list[Future[int]]]:
    """Load a server from all callers; a call that fails ends the test."""
    load = Load(address)
    with ThreadPoolExecutor(CALLERS) as pool:
        callers = [pool.submit(load.call, seed) for seed in range(CALLERS)]
        try:
            yield callers
        finally:
            load.over.set()
        assert all(caller.result(PATIENCE) > 0 for caller in callers)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    publish(tmp_path / "models", 1)
    return tmp_path / "models"


@pytest.mark.timeout(1800)
def test_a_thousand_reloads_under_full_load_cost_no_call_and_no_memory(models: Path) -> None:
    with running("--model", str(models), "--model-poll", "0.005") as server, loaded(server.address) as callers:
        memory = []
        for number in range(1, RELOADS + 1):
            publish(models, 1, KINDS[number % 2])
            until(lambda: loads(server) >= number, f"reload {number}")  # noqa: B023 - called before the next
            assert not any(caller.done() for caller in callers), "a call has failed"
            memory.append(server.memory())
    second, last = (sum(memory[start : start + RELOADS // 4]) for start in (RELOADS // 4, 3 * RELOADS // 4))
    assert (last - second) / (RELOADS // 4) < MOST_GROWTH_MIB, memory[:: RELOADS // 20]


def loads(server: BesetServer) -> int:
    return sum(event["event"] == "version loaded" for event in server.events)


def test_damaged_models_under_full_load_are_refused_and_end_nothing(models: Path) -> None:
    chance = random.Random(5)

    def damage(folder: Path) -> None:
        """Cut the model short or turn some of its bits, and make a manifest that fits."""
        content = bytearray((folder / INT8[0]).read_bytes())
        if chance.random() < 0.5:
            del content[chance.randrange(len(content)) :]
        for _ in range(20):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8) if content else 0
        (folder / INT8[0]).write_bytes(content)
        manifest.write(folder, "test", [*INT8, GOLDEN])

    with running("--model", str(models), "--model-poll", "0.005") as server, loaded(server.address):
        for number in range(2, 42):
            publish(models, number, INT8, damage)
            until(lambda: refused(server, number), f"version {number} is refused")  # noqa: B023 - called before the loop goes on


def refused(server: BesetServer, number: int) -> bool:
    return any(event["event"] == "version refused" and event["version"] == str(number) for event in server.events)
