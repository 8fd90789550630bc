"""Servers for the tests: in this process where a test looks inside, as processes where it sends signals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from scanline.model import Model
from scanline.v1.digits_pb2_grpc import DigitsStub
from serve.lifecycle import Server
from serve.settings import ServeSettings

PATIENCE = 30.0


@contextmanager
def serving(**settings: Any) -> Iterator[Server]:
    """Run a server in this process, on a free port if the settings name none."""
    server = Server(ServeSettings(**{"listen": "127.0.0.1:0"} | settings))
    server.start()
    life = threading.Thread(target=server.run_until_stopped)
    life.start()
    try:
        yield server
    finally:
        server.ask_to_stop()
        life.join(PATIENCE)
        assert not life.is_alive()


@pytest.fixture(scope="module", params=["loop", "threads"])
def transport(request: pytest.FixtureRequest) -> str:
    """Both transports, which must behave alike."""
    return str(request.param)


@pytest.fixture(scope="module")
def server(transport: str) -> Iterator[Server]:
    with serving(transport=transport) as running:
        yield running


@pytest.fixture
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as open_channel:
        yield open_channel


@pytest.fixture
def stub(channel: grpc.Channel) -> DigitsStub:
    return DigitsStub(channel)


@pytest.fixture
def images() -> NDArray[np.uint8]:
    """Forty distinct images: strokes and noise; what digit the model sees in them does not matter."""
    chance = np.random.default_rng(5)
    drawn = chance.integers(0, 256, (40, 28, 28), dtype=np.uint8)
    return np.where(chance.random((40, 28, 28)) < 0.8, np.uint8(0), drawn)


class ServerProcess:
    """`scanline serve` as a process of its own."""

    def __init__(self, *arguments: str, **variables: str) -> None:
        command = [sys.executable, "-m", "scanline", "serve", "--listen", "127.0.0.1:0", *arguments]
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("SCANLINE_")
        } | variables
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        self.events: list[dict[str, Any]] = []

    def wait_for(self, event: str) -> dict[str, Any]:
        """Read log lines until one tells of an event; give its fields."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.events.append(json.loads(line))
            if self.events[-1]["event"] == event:
                return self.events[-1]
        raise AssertionError(f"the server ended without {event!r}; it said {self.events}")

    def end(self) -> tuple[int, str]:
        """Wait for the end; give the exit code and the rest of the log."""
        _, rest = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, rest


@pytest.fixture
def start_server(transport: str) -> Iterator[Callable[..., ServerProcess]]:
    """Start server processes; whatever still runs at the end of the test is killed."""
    started: list[ServerProcess] = []

    def start(*arguments: str, **variables: str) -> ServerProcess:
        started.append(ServerProcess("--transport", transport, *arguments, **variables))
        return started[-1]

    yield start
    for server_process in started:
        if server_process.process.poll() is None:
            server_process.process.kill()
        server_process.process.communicate()


class HeldModel:
    """Takes the place of Model.run: waits until it is let go, or fails. No real model does so when it is told to."""

    def __init__(self) -> None:
        self.started = threading.Semaphore(0)
        self.allowed = threading.Semaphore(0)
        self.failure: Exception | None = None
        self.images: list[int] = []  # in each run

    def __call__(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        self.images.append(len(rows))
        self.started.release()
        assert self.allowed.acquire(timeout=PATIENCE)
        if self.failure is not None:
            raise self.failure
        return np.zeros((len(rows), 10), np.float32)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[HeldModel]:
    model = HeldModel()
    monkeypatch.setattr(Model, "run", lambda _, rows: model(rows))
    model.allowed.release()  # for the warm-up
    yield model
    model.allowed.release(1000)


@pytest.fixture
def held_server(held: HeldModel, transport: str) -> Iterator[Server]:
    with serving(transport=transport, max_queue_images=1024, instances=1) as server:
        assert held.started.acquire(timeout=PATIENCE)  # the warm-up
        yield server
