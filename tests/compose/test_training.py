"""The whole loop in compose: train, export into the shared volume, and the running server takes the new version."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from scanline import Client, samples
from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsStub
from tests.compose.conftest import ON_AN_ENGINE, ROOT, Projects, inspect
from tests.faults.server import until

pytestmark = ON_AN_ENGINE

TORCH = "torch==2.13.0+cpu"  # deploy/lock/train-cpu.txt's


@pytest.fixture(scope="module")
def wheels() -> Path:
    """The CPU build of torch, in the folder where the image's build looks for it."""
    folder = ROOT / "deploy" / "wheels"
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), TORCH]
    if not list(folder.glob("torch-*.whl")) and subprocess.run(download, capture_output=True, check=False).returncode:
        pytest.skip(f"pip finds no {TORCH}, and the build for GPUs takes gigabytes")
    return folder


def version_of(port: int) -> str:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        return DigitsStub(channel).GetModel(pb.GetModelRequest(), timeout=30).model_version


def test_the_loop_from_training_to_serving(project_of: Projects, wheels: Path) -> None:
    project = project_of("loop", {"SCANLINE_MODEL": "/models"}, TORCH="cpu")
    project.up()
    assert version_of(project.port) == "1"  # a new volume begins with the shipped model
    started = inspect(project.containers()[0])["State"]["StartedAt"]

    project.run("build", "train")
    train = ("train", "--data", "uci", "--epochs", "1", "--out", "/runs/latest")
    project.run("run", "--rm", "--no-TTY", "train", *train)
    project.run("run", "--rm", "--no-TTY", "export", check=False)  # 1 where a file other than the float32 one failed

    until(lambda: version_of(project.port) == "2", "the server has taken the new version")
    assert inspect(project.containers()[0])["State"]["StartedAt"] == started
    with Client(f"127.0.0.1:{project.port}") as client:
        assert client.model().card.dataset == "uci"
        assert len(client.classify(samples.files())) == len(samples.files())
