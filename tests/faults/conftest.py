"""One server a module for each transport; every test must leave it unharmed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tests.faults.server import ROOM_MIB, Answers, BesetServer, running, until

TRANSPORTS = ("threads", "loop")


@pytest.fixture(scope="module", params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def shared_server(transport: str) -> Iterator[BesetServer]:
    # whatever the memory of the machine that runs the tests
    limits = ("--max-streams", "32", "--max-calls", "1024", "--max-message-bytes", str(16 * 2**20))
    with running("--transport", transport, *limits) as server:
        yield server


@pytest.fixture(scope="module")
def answers(shared_server: BesetServer) -> Answers:
    chance = np.random.default_rng(5)
    noise = chance.integers(0, 256, (40, 28, 28), dtype=np.uint8)
    return Answers(shared_server.address, np.where(chance.random((40, 28, 28)) < 0.8, np.uint8(0), noise))


@pytest.fixture
def server(shared_server: BesetServer, answers: Answers) -> Iterator[BesetServer]:
    """A server that, after the test, must answer rightly and have given back what it held."""
    memory, files = shared_server.memory(), shared_server.files()
    yield shared_server
    assert shared_server.process.poll() is None, shared_server.events[-5:]
    answers.check(shared_server.address)
    until(lambda: shared_server.files() <= files + 4, "connections are closed")  # gRPC may keep an epoll set or two
    until(lambda: shared_server.memory() < memory + ROOM_MIB, "memory comes back")
