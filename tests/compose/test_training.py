"""The whole loop in compose: train, export into the shared volume, and the running server takes the new version."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import pytest

from scanline import Client, samples
from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsStub
from tests.compose.conftest import ON_AN_ENGINE, ROOT, Projects, inspect
from tests.faults.server import until

pytestmark = ON_AN_ENGINE

log = logging.getLogger(__name__)  # pytest --log-cli-level=INFO shows how long the calls took
PAUSE = 0.01  # seconds between two calls
SLOW = 0.1  # seconds
TORCH = "torch==2.13.0+cpu"  # deploy/lock/train-cpu.txt's


@pytest.fixture(scope="module")
def wheels() -> Path:
    """The CPU build of torch, in the folder where the image's build looks for it."""
    folder = ROOT / "deploy" / "wheels"
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), TORCH]
    if not list(folder.glob("torch-*.whl")) and subprocess.run(download, capture_output=True, check=False).returncode:
        pytest.skip(f"pip finds no {TORCH}, and the build for GPUs takes gigabytes")
    return folder


class SteadyCaller(threading.Thread):
    """Asks for one image a call, from one thread and with no retries, until it is told that it is over.

    Attributes:
        answered: the version that answered each call, and in how many seconds.
        failed: the statuses of the calls that failed.
    """

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.answered: list[tuple[str, float]] = []
        self.failed: list[str] = []
        self._port = port
        self._over = threading.Event()

    def run(self) -> None:
        request = pb.ClassifyRequest(pixels=bytes(784))
        with grpc.insecure_channel(f"127.0.0.1:{self._port}") as channel:
            stub = DigitsStub(channel)
            while not self._over.wait(PAUSE):
                began = time.perf_counter()
                try:
                    version = stub.Classify(request, timeout=60).model_version
                    self.answered.append((version, time.perf_counter() - began))
                except grpc.RpcError as error:
                    self.failed.append(f"{error.code()}: {error.details()}")

    def stop(self) -> None:
        self._over.set()
        self.join()


def version_of(port: int) -> str:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        return DigitsStub(channel).GetModel(pb.GetModelRequest(), timeout=30).model_version


def test_the_loop_from_training_to_serving(project_of: Projects, wheels: Path) -> None:
    project = project_of("loop", {"SCANLINE_MODEL": "/models"}, TORCH="cpu")
    project.up()
    assert version_of(project.port) == "1"  # a new volume begins with the shipped model
    started = inspect(project.containers()[0])["State"]["StartedAt"]

    project.run("build", "train")
    caller = SteadyCaller(project.port)
    caller.start()
    train = ("train", "--data", "uci", "--epochs", "1", "--out", "/runs/latest")
    project.run("run", "--rm", "--no-TTY", "train", *train)
    project.run("run", "--rm", "--no-TTY", "export", check=False)  # 1 where a file other than the float32 one failed
    until(lambda: version_of(project.port) == "2", "the server has taken the new version")
    until(lambda: caller.answered[-1][0] == "2", "the caller has been answered by it")
    caller.stop()

    assert caller.failed == []
    versions = [version for version, _ in caller.answered]
    assert versions == sorted(versions)  # never back to the old one
    seconds = sorted(took for _, took in caller.answered)
    slow, median = sum(took > SLOW for took in seconds), seconds[len(seconds) // 2]
    log.info("%d calls: median %.4f s, slowest %.4f s, %d above %s s", len(seconds), median, seconds[-1], slow, SLOW)
    assert inspect(project.containers()[0])["State"]["StartedAt"] == started
    with Client(f"127.0.0.1:{project.port}") as client:
        assert client.model().card.dataset == "uci"
        assert len(client.classify(samples.files())) == len(samples.files())
