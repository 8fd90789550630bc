from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from scanline.cli import main
from tests.train.conftest import Process
from train.processes import Processes

OPTIONS = ["--data", "uci", "--epochs", "1", "--seed", "5"]


def test_shares_are_of_one_size_and_make_up_the_batch() -> None:
    batch = list(range(128))
    shares = [batch[Processes(rank, 4, torch.device("cpu")).share(128)] for rank in range(4)]
    assert [len(share) for share in shares] == [32] * 4
    assert [image for share in shares for image in share] == batch


def test_two_processes_agree_with_one(spawn: Callable[..., Process], tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = spawn(*launcher, "-m", "scanline", "train", *OPTIONS, "--out", str(two))
    assert main(["train", *OPTIONS, "--out", str(one)]) == 0
    _, shown = process.communicate()
    assert process.returncode == 0, shown
    assert json.loads((two / "config.json").read_text())["processes"] == 2
    weights = [load_file(run / "checkpoint.safetensors") for run in (one, two)]
    for name, expected in weights[0].items():
        torch.testing.assert_close(weights[1][name], expected, atol=1e-4, rtol=1e-3)
    losses = [json.loads((run / "metrics.jsonl").read_text())["loss"] for run in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_a_batch_that_processes_cant_share_is_refused(spawn: Callable[..., Process], tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
    options = ["--preset", "seed", "--data", "uci", "--out", str(tmp_path / "run")]
    process = spawn(*launcher, "-m", "scanline", "train", *options)
    _, shown = process.communicate()
    assert process.returncode != 0
    assert "a batch of 100 images can't be shared evenly by 3 processes" in shown
