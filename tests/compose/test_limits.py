"""A container whose memory callers try to fill: it refuses, and is not ended by the kernel."""

from __future__ import annotations

import io
import json
import threading
import time
from collections import Counter

import grpc
import pytest
from PIL import Image

from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsStub
from tests.compose.conftest import ON_AN_ENGINE, Project, Projects, inspect

pytestmark = ON_AN_ENGINE

CALLERS = 150
SECONDS = 10.0
ONE = pb.ClassifyRequest(pixels=bytes(784))


@pytest.fixture
def project(request: pytest.FixtureRequest, project_of: Projects) -> Project:
    memory, cpus = request.param
    project = project_of(f"limits-{memory}", MEMORY=memory, CPUS=cpus)
    project.up()
    return project


def largest(address: str, max_pixels: int) -> list[pb.ClassifyRequest]:
    """Give the largest messages that the server takes: of pictures, of what is none, of pixels."""
    with grpc.insecure_channel(address) as channel:
        limits = DigitsStub(channel).GetModel(pb.GetModelRequest()).limits
    room = limits.max_message_bytes - 1024
    buffer = io.BytesIO()
    side = int(max_pixels**0.5)
    Image.new("RGB", (side, side), (250, 250, 250)).save(buffer, "PNG")
    picture = buffer.getvalue()
    return [
        pb.ClassifyRequest(files=pb.EncodedImages(files=[picture] * (room // (len(picture) + 16)))),
        pb.ClassifyRequest(files=pb.EncodedImages(files=[b"\x89PNG\r\n\x1a\n" + bytes(room - 64)])),
        pb.ClassifyRequest(pixels=bytes(784 * min(limits.max_images, room // 784)), probabilities=True),
    ]


def bomb(address: str, messages: list[pb.ClassifyRequest]) -> Counter[str]:
    """Send them from many connections at once, as calls and in streams; give what came of it."""
    outcomes: Counter[str] = Counter()
    end = time.monotonic() + SECONDS

    def call(number: int) -> None:
        with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = DigitsStub(channel)
            while time.monotonic() < end:
                try:
                    if number % 4 == 3:
                        outcomes["answered"] += sum(1 for _ in stub.ClassifyStream(iter(messages[2:] * 20), timeout=15))
                    else:
                        stub.Classify(messages[number % 4], timeout=10)
                        outcomes["answered"] += 1
                except grpc.RpcError as error:
                    outcomes[error.code().name] += 1

    callers = [threading.Thread(target=call, args=(number,)) for number in range(CALLERS)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return outcomes


@pytest.mark.parametrize("project", [("512m", "1")], indirect=True)
def test_a_bomb_of_the_largest_messages_does_not_end_it(project: Project) -> None:
    address = f"127.0.0.1:{project.port}"
    serving = next(event for event in project.events() if event["event"] == "serving")
    outcomes = bomb(address, largest(address, serving["max_pixels"]))
    assert outcomes["RESOURCE_EXHAUSTED"] > 0, outcomes  # it was too much, and was refused
    state, container = project.state(), inspect(project.containers()[0])
    assert (state["OOMKilled"], state["Running"], container["RestartCount"]) == (False, True, 0), json.dumps(outcomes)
    with grpc.insecure_channel(address) as channel:
        assert len(DigitsStub(channel).Classify(ONE, timeout=30).predictions) == 1


@pytest.mark.parametrize("project", [("160m", "0.5")], indirect=True)
def test_a_board_s_worth_of_memory_serves_and_says_what_it_chose(project: Project) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{project.port}") as channel:
        full = pb.ClassifyRequest(pixels=bytes(784 * 1024))
        assert len(DigitsStub(channel).Classify(full, timeout=60).predictions) == 1024
    serving = next(event for event in project.events() if event["event"] == "serving")
    chosen = {name: serving[name] for name in ("memory", "instances", "max_message_bytes", "max_calls", "max_streams")}
    assert chosen == {
        "memory": 160 * 2**20, "instances": 1, "max_message_bytes": 2**20, "max_calls": 8, "max_streams": 1
    }  # fmt: skip
    assert not project.state()["OOMKilled"]
