"""What the tests of training share: real runs on the UCI digits, which need no network."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from scanline.cli import main
from train import data
from train.batches import Digits
from train.command import split

Process = subprocess.Popen[str]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tests share the machine's cores, and the sums of a run depend on the number of its threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SCANLINE_TRAIN_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def mnist_folder() -> Path:
    folder = os.environ.get("SCANLINE_DATA")
    if not folder:
        pytest.skip("SCANLINE_DATA is not set: it should name the folder of MNIST's four files")
    return Path(folder)


@pytest.fixture(scope="session")
def uci() -> data.Dataset:
    return data.load(["uci"], None)


@pytest.fixture
def digits(uci: data.Dataset) -> Digits:
    return split(uci, hold_out=True, device=torch.device("cpu"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the smallest kind that reads digits."""
    run = tmp_path_factory.mktemp("runs") / "edge"
    assert main(["train", "--data", "uci", "--epochs", "24", "--seed", "3", "--out", str(run)]) == 0
    return run


@pytest.fixture
def spawn() -> Iterator[Callable[..., Process]]:
    """Start `python ...` as a process of its own, on one thread; what is left of it at the end is killed."""
    processes: list[Process] = []

    def start(*arguments: str) -> Process:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()
