"""A container whose memory callers try to fill: it refuses, and is not ended by the kernel."""

from __future__ import annotations

import json
import logging

import grpc
import pytest

from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsStub
from tests.compose.bomb import Largest, bomb
from tests.compose.conftest import ON_AN_ENGINE, Project, Projects, inspect

pytestmark = ON_AN_ENGINE

log = logging.getLogger(__name__)  # pytest --log-cli-level=INFO shows how much memory it took
BOARD = ("160m", "0.5")
LIMITS = [("256m", "2"), ("512m", "1"), ("1g", "2")]  # 160 MB are too few to survive it every time: docs/edge.md
# What the cgroup has held at most: version 2, version 1.
PEAK = """
from pathlib import Path
files = Path("/sys/fs/cgroup/memory.peak"), Path("/sys/fs/cgroup/memory/memory.max_usage_in_bytes")
print(next(file.read_text() for file in files if file.exists()))
"""
ONE = pb.ClassifyRequest(pixels=bytes(784))


@pytest.fixture(scope="module")
def project(request: pytest.FixtureRequest, project_of: Projects) -> Project:
    memory, cpus = request.param
    project = project_of(f"limits-{memory}", MEMORY=memory, CPUS=cpus)
    project.up()
    return project


@pytest.mark.parametrize("project", LIMITS, ids=lambda limits: limits[0], indirect=True)
def test_a_bomb_of_the_largest_of_everything_does_not_end_it(project: Project) -> None:
    address = f"127.0.0.1:{project.port}"
    serving = next(event for event in project.events() if event["event"] == "serving")
    outcomes = bomb(address, Largest.of(address, serving["max_pixels"]))
    assert outcomes["RESOURCE_EXHAUSTED"] > 0, outcomes  # it was too much, and was refused
    state, container = project.state(), inspect(project.containers()[0])
    assert (state["OOMKilled"], state["Running"], container["RestartCount"]) == (False, True, 0), json.dumps(outcomes)
    with grpc.insecure_channel(address) as channel:
        assert len(DigitsStub(channel).Classify(ONE, timeout=30).predictions) == 1
    peak = int(project.inside(PEAK).stdout)
    log.info("at most %d MB of %d; %s", peak // 2**20, serving["memory"] // 2**20, dict(outcomes))


@pytest.mark.parametrize("project", [BOARD], indirect=True)
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
