"""Runs that are stopped, by Ctrl-C or without warning, and go on."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import train.command
from scanline.cli import main
from tests.train.conftest import Process
from train import checkpoint
from train.batches import Digits
from train.model import DigitLSTM
from train.recipe import PRESETS

OPTIONS = ["--data", "uci", "--epochs", "6", "--seed", "5"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    assert main(["train", *OPTIONS, "--out", str(run)]) == 0
    return run


def stop(process: Process, number: signal.Signals, *, wait: bool = True) -> str:
    """Send a signal as soon as the run has shown its second epoch, so that it strikes in or about the third."""
    assert process.stderr is not None
    shown = []
    for line in process.stderr:
        shown.append(line)
        if line.startswith("step 20 "):
            break
    process.send_signal(number)
    return "".join(shown) + (process.communicate()[1] if wait else "")


def assert_same(run: Path, uninterrupted: Path) -> None:
    assert (run / "checkpoint.safetensors").read_bytes() == (uninterrupted / "checkpoint.safetensors").read_bytes()
    histories = [json.loads((path / "report.json").read_text())["history"] for path in (run, uninterrupted)]
    for line in histories[0] + histories[1]:
        del line["seconds"]
    assert histories[0] == histories[1]


def test_a_killed_run_goes_on_to_the_same_result(
    spawn: Callable[..., Process], tmp_path: Path, uninterrupted: Path
) -> None:
    process = spawn("-m", "scanline", "train", *OPTIONS, "--out", str(tmp_path / "run"))
    stop(process, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()
    (tmp_path / "run" / ".state.pt.abcd1234").touch()  # as a kill amid the writing of it leaves
    assert main(["train", "--resume", "--out", str(tmp_path / "run")]) == 0
    assert_same(tmp_path / "run", uninterrupted)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {path.name for path in uninterrupted.iterdir()}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "docker-stop"])
def test_a_stopped_run_is_saved_and_says_how_to_go_on(
    spawn: Callable[..., Process], tmp_path: Path, uninterrupted: Path, number: signal.Signals
) -> None:
    run = tmp_path / "a run of mine"
    process = spawn("-m", "scanline", "train", *OPTIONS, "--out", str(run))
    shown = stop(process, number)
    assert process.returncode == 128 + number
    assert "Traceback" not in shown
    advised = shlex.split(re.findall("stopped; `scanline (.*)` goes on", shown)[0])
    assert advised == ["train", "--resume", "--out", str(run)]
    assert main(advised) == 0
    assert_same(run, uninterrupted)


STOPPED_WHILE_MEASURING = """
import signal, sys
from scanline.cli import main
from train import measure
measure.measure = lambda *_: signal.raise_signal(signal.SIGTERM)
sys.exit(main(sys.argv[1:]))
"""


def test_a_run_that_is_stopped_after_its_last_step_goes_on_too(spawn: Callable[..., Process], tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    process = spawn("-c", STOPPED_WHILE_MEASURING, "train", "--preset", "seed", "--data", "uci", "--out", run)
    shown = process.communicate(timeout=120)[1]
    assert process.returncode == 143
    assert shown.endswith(f"stopped; `scanline train --resume --out {run}` goes on\n")
    assert main(["train", "--resume", "--out", run]) == 0
    assert (tmp_path / "run" / "report.html").exists()


def test_a_folder_is_one_run_s_alone(
    spawn: Callable[..., Process], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "run")
    process = spawn("-m", "scanline", "train", *OPTIONS, "--out", run)
    stop(process, signal.SIGSTOP, wait=False)
    assert main(["train", "--resume", "--out", run]) == 2
    assert f"another run is writing {run}" in capsys.readouterr().err
    assert main(["train", *OPTIONS, "--out", run]) == 2
    assert "holds a run already" in capsys.readouterr().err
    process.kill()
    process.wait()
    assert main(["train", "--resume", "--out", run]) == 0


def test_only_what_the_run_began_with_may_be_given_again(
    spawn: Callable[..., Process], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "run")
    process = spawn("-m", "scanline", "train", *OPTIONS, "--out", run)
    stop(process, signal.SIGKILL)
    assert main(["train", "--resume", "--out", run, "--epochs", "9", "--seed", "5"]) == 2
    assert "began with other options: --epochs was 6, not 9" in capsys.readouterr().err

    state = tmp_path / "run" / "state.pt"
    state.write_bytes(state.read_bytes()[:1000])
    assert main(["train", "--resume", *OPTIONS, "--out", run]) == 1
    assert "state.pt is damaged" in capsys.readouterr().err


def test_the_number_of_epochs_can_t_be_given_later(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = replace(checkpoint.load_config(finished), preset="seed", recipe=PRESETS["seed"].recipe)  # 501 steps
    checkpoint.save_config(tmp_path, begun)
    assert main(["train", "--resume", "--out", str(tmp_path), "--epochs", "1"]) == 2
    assert "began with other options: --epochs was not given, not 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("device", "processes", "words", "command"),
    [
        ("cuda", 1, "cuda, in 1 process: on cpu, in 1 process, it", "scanline train --resume --device cuda --out"),
        (
            "cpu",
            2,
            "cpu, in 2 processes: on cpu, in 1 process, it",
            "torchrun --nproc-per-node 2 -m scanline train --resume --device cpu --out",
        ),
    ],
)
def test_a_run_goes_on_where_it_began(
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    device: str,
    processes: int,
    words: str,
    command: str,
) -> None:
    checkpoint.save_config(tmp_path, replace(checkpoint.load_config(finished), device=device, processes=processes))
    assert main(["train", "--resume", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert f"began on {words} would come to another network" in error
    assert f"`{command} {tmp_path}` goes on" in error


def test_a_run_that_began_on_the_cpu_goes_on_there_beside_a_gpu(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = checkpoint.load_config(finished)
    checkpoint.save_config(tmp_path, replace(config, recipe=replace(config.recipe, epochs=1)))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert main(["train", "--resume", "--out", str(tmp_path)]) == 0


def test_the_machine_that_a_run_goes_on_with_is_shown(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = checkpoint.load_config(finished)
    begun = replace(config, hardware="another machine", recipe=replace(config.recipe, epochs=1))
    checkpoint.save_config(tmp_path, begun)
    assert main(["train", "--resume", "--out", str(tmp_path)]) == 0
    assert f"in 10 steps, on {config.hardware}\n" in capsys.readouterr().err
    assert checkpoint.load_config(tmp_path) == begun


def test_a_finished_run_needs_no_data(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    checkpoint.save_config(run, replace(checkpoint.load_config(finished), data=(f"folder:{tmp_path / 'gone'}",)))
    assert main(["train", "--resume", "--out", str(run)]) == 0
    assert f"{run} is finished already" in capsys.readouterr().err


def test_a_run_that_was_killed_as_it_began_its_folder_may_begin_again(tmp_path: Path) -> None:
    for name in ("lock", ".config.json.abcd1234", ".state.pt.abcd1234"):
        (tmp_path / name).touch()
    assert main(["train", "--data", "uci", "--epochs", "1", "--out", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith((".", "lock"))} == set()


def test_a_command_line_with_paths_may_be_given_again(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own, trial, teacher = (
        f"folder:{tmp_path / 'own'}",
        str(tmp_path / "runs" / "trial"),
        str(tmp_path / "runs" / "teach"),
    )
    begun = replace(
        checkpoint.load_config(finished), data=("uci", own), calibrated_by=trial, teacher=(teacher, teacher)
    )
    checkpoint.save_config(tmp_path, begun)
    monkeypatch.chdir(tmp_path)
    teachers = ["--teacher", "runs/teach", "--teacher", teacher]
    options = ["--data", "uci", "--data", "folder:own", "--calibrated-by", "runs/trial", *teachers]
    assert main(["train", "--resume", *options, "--out", "."]) == 2
    assert f"--data {own}: there is no such folder" in capsys.readouterr().err  # as it is where only --resume is given

    assert main(["train", "--resume", "--data", "uci", "--data", "folder:other", "--out", "."]) == 2
    assert f"--data was uci and {own}, not uci and folder:other" in capsys.readouterr().err


def test_a_run_that_another_has_just_finished_is_left_alone(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    checkpoint.save_config(run, checkpoint.load_config(finished))
    split = train.command.split

    def meanwhile(*arguments: Any, **options: Any) -> Digits:
        shutil.copytree(finished, run, dirs_exist_ok=True)
        return split(*arguments, **options)

    monkeypatch.setattr(train.command, "split", meanwhile)
    assert main(["train", "--resume", "--out", str(run)]) == 2
    assert f"another run has just finished {run}: there is nothing left to do" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in run.iterdir()} == {
        path.name: path.read_bytes() for path in finished.iterdir()
    }


def test_a_run_goes_on_with_the_data_that_it_began_with(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SCANLINE_DATA", raising=False)
    config = checkpoint.load_config(finished)
    checkpoint.save_config(tmp_path, replace(config, dataset_sha256="0" * 64))
    assert main(["train", "--resume", "--out", str(tmp_path)]) == 1
    assert f"its checksum was {'0' * 64}, now it is {config.dataset_sha256}" in capsys.readouterr().err

    checkpoint.save_config(tmp_path, replace(config, test_sha256="0" * 64))
    assert main(["train", "--resume", "--out", str(tmp_path)]) == 1
    expected = f"began with other test data: its checksum was {'0' * 64}, now it is {config.test_sha256}"
    assert expected in capsys.readouterr().err

    folder = str(tmp_path / "mnist")
    checkpoint.save_config(tmp_path, replace(config, data=("mnist",), data_dir=folder))
    assert main(["train", "--resume", "--out", str(tmp_path)]) == 2
    assert f"{folder} holds neither train-images-idx3-ubyte" in capsys.readouterr().err


@pytest.mark.parametrize("content", [[1], {"network": 5}])
def test_a_state_of_other_things_is_damage(
    finished: Path, tmp_path: Path, content: object, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint.save_config(tmp_path, checkpoint.load_config(finished))
    torch.save(content, tmp_path / "state.pt")
    assert main(["train", "--resume", "--out", str(tmp_path)]) == 1
    assert f"{tmp_path / 'state.pt'} is damaged" in capsys.readouterr().err


def test_what_is_no_damage_to_the_state_is_not_called_that(
    finished: Path, tmp_path: Path, spawn: Callable[..., Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save_config(tmp_path, checkpoint.load_config(finished))
    (tmp_path / "state.pt").mkdir()  # can't be read
    process = spawn("-m", "scanline", "train", "--resume", "--out", str(tmp_path))
    assert process.communicate()[1].endswith(f"error: {tmp_path / 'state.pt'}: Is a directory\n")
    assert process.returncode == 1

    (tmp_path / "state.pt").rmdir()
    torch.save(dict.fromkeys(("network", "average", "optimizer", "schedule")), tmp_path / "state.pt")

    def too_large(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(DigitLSTM, "load_state_dict", too_large)
    with pytest.raises(torch.OutOfMemoryError):
        main(["train", "--resume", "--out", str(tmp_path)])


def test_nothing_to_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--resume", "--out", str(tmp_path)]) == 1
    assert "holds no training run" in capsys.readouterr().err
