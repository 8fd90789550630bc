from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from scanline.cli import main
from tests.train.conftest import Process
from train.loop import AGREE_EVERY
from train.processes import Processes

OPTIONS = ["--data", "uci", "--epochs", "1", "--seed", "5"]
LAUNCHER = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def test_shares_are_of_one_size_and_make_up_the_batch() -> None:
    batch = list(range(128))
    shares = [batch[Processes(rank, 4, torch.device("cpu")).share(128)] for rank in range(4)]
    assert [len(share) for share in shares] == [32] * 4
    assert [image for share in shares for image in share] == batch


def test_two_processes_agree_with_one(spawn: Callable[..., Process], tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    process = spawn(*LAUNCHER, "-m", "scanline", "train", *OPTIONS, "--out", str(two))
    assert main(["train", *OPTIONS, "--out", str(one)]) == 0
    _, shown = process.communicate()
    assert process.returncode == 0, shown
    assert json.loads((two / "config.json").read_text())["processes"] == 2
    weights = [load_file(run / "checkpoint.safetensors") for run in (one, two)]
    for name, expected in weights[0].items():
        torch.testing.assert_close(weights[1][name], expected, atol=1e-4, rtol=1e-3)
    losses = [json.loads((run / "metrics.jsonl").read_text())["loss"] for run in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_the_accuracy_on_a_batch_is_that_of_all_processes(spawn: Callable[..., Process], tmp_path: Path) -> None:
    options = ["--preset", "seed", "--data", "uci", "--epochs", "8", "--seed", "5", "--learning-rate", "1e-4"]
    process = spawn(*LAUNCHER, "-m", "scanline", "train", *options, "--out", str(tmp_path / "two"))
    assert main(["train", *options, "--out", str(tmp_path / "one")]) == 0
    _, shown = process.communicate()
    assert process.returncode == 0, shown
    one, two = (
        [json.loads(line)["batch_accuracy"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    assert two == pytest.approx(one, abs=0.01 + 1e-9)  # one image of 100


@pytest.fixture
def torchruns_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    words = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in words.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RANK", raising=False)


@pytest.mark.usefixtures("torchruns_words")
def test_a_signal_to_one_process_stops_all_after_the_same_step(
    spawn: Callable[..., Process], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run, started = tmp_path / "run", []
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        started.append(spawn("-m", "scanline", "train", "--data", "uci", "--epochs", "1000", "--out", str(run)))
    first, second = started
    assert first.stderr is not None
    assert any(line.startswith("step 20 ") for line in first.stderr)
    second.send_signal(signal.SIGTERM)
    advised = f"stopped; `torchrun --nproc-per-node 2 -m scanline train --resume --out {run}` goes on"
    said = first.communicate()[1]
    assert advised in said
    assert "Warning" not in said
    second.communicate()
    assert [first.returncode, second.returncode] == [128 + signal.SIGTERM] * 2
    assert torch.load(run / "state.pt", weights_only=True)["step"] % AGREE_EVERY == 0


STOPPED_IN_ITS_SECOND_EPOCH = """
import signal, sys
from scanline.cli import main
from train import augment
bend, steps = augment.bend, iter(range(1000))
def interrupted(*arguments):
    if next(steps) == 12:
        signal.raise_signal(signal.SIGTERM)
    return bend(*arguments)
augment.bend = interrupted
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.usefixtures("torchruns_words")
def test_the_loss_of_an_epoch_is_that_of_all_processes_even_where_it_was_stopped(
    spawn: Callable[..., Process], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    two_epochs = ["train", "--data", "uci", "--epochs", "2", "--seed", "5"]
    for command in (
        ["-c", STOPPED_IN_ITS_SECOND_EPOCH, *two_epochs, "--out", str(two)],
        ["-m", "scanline", "train", "--resume", "--out", str(two)],
    ):
        started = []
        for rank in "01":
            monkeypatch.setenv("RANK", rank)
            started.append(spawn(*command))
        shown = "".join(process.communicate()[1] for process in started)
    assert [process.returncode for process in started] == [0, 0], shown
    monkeypatch.delenv("WORLD_SIZE")
    assert main([*two_epochs, "--out", str(one)]) == 0
    losses = [
        [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (one, two)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.usefixtures("torchruns_words")
def test_half_of_torchrun_s_words_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *OPTIONS, "--out", str(tmp_path / "run")]) == 2
    assert "WORLD_SIZE is set, as torchrun does, but RANK is not" in capsys.readouterr().err


@pytest.mark.usefixtures("torchruns_words")
def test_without_its_number_on_the_machine_no_process_takes_the_first_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.delenv("LOCAL_RANK")
    assert main(["train", *OPTIONS, "--out", str(tmp_path / "run")]) == 2
    assert "WORLD_SIZE is set, as torchrun does, but LOCAL_RANK is not" in capsys.readouterr().err


def test_more_processes_than_gpus_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert main(["train", *OPTIONS, "--out", str(tmp_path / "run")]) == 2
    assert "process 1 of this machine has no GPU for itself: there are 1" in capsys.readouterr().err


def test_a_batch_that_processes_cant_share_is_refused(spawn: Callable[..., Process], tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
    options = ["--preset", "seed", "--data", "uci", "--out", str(tmp_path / "run")]
    process = spawn(*launcher, "-m", "scanline", "train", *options)
    _, shown = process.communicate()
    assert process.returncode != 0
    assert "a batch of 100 images can't be shared evenly by 3 processes" in shown


def test_the_tests_see_no_gpu(spawn: Callable[..., Process]) -> None:
    seen = "import os, tests.conftest; print(repr(os.environ['CUDA_VISIBLE_DEVICES']))"
    assert spawn("-c", f"import os; os.environ['CUDA_VISIBLE_DEVICES'] = '0'; {seen}").communicate()[0] == "''\n"
