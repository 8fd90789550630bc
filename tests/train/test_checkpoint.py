from __future__ import annotations

import json
import resource
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from scanline.errors import ModelError
from train import checkpoint


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_a_finished_run_is_read_back(finished: Path) -> None:
    found = checkpoint.load(finished)
    assert not found.model.training
    assert found.config.preset == "edge"
    assert found.config.data == ("uci",)
    assert found.config.seed == 3
    assert found.config.recipe.epochs == 24
    assert found.config.parameters == found.model.trained_weights()
    assert 0.5 < found.figures.accuracy <= 1
    assert "360 test images" in found.figures.accuracy_method
    assert found.figures.temperature > 0


def test_a_run_of_before_the_test_data_had_a_checksum_is_read(run: Path) -> None:
    values = json.loads((run / "config.json").read_text())
    del values["test_sha256"]
    (run / "config.json").write_text(json.dumps(values))
    assert checkpoint.load(run).config.test_sha256 == ""


@pytest.mark.parametrize("units", [0, -5])
def test_a_network_that_cannot_be_is_damage(run: Path, units: int) -> None:
    values = json.loads((run / "config.json").read_text())
    values["architecture"]["hidden"] = units
    (run / "config.json").write_text(json.dumps(values))
    with pytest.raises(ModelError, match=r"config\.json is damaged"):
        checkpoint.load(run)


def test_an_unfinished_run_says_how_it_goes_on(run: Path) -> None:
    (run / "figures.json").unlink()
    checkpoint.save_config(run, replace(checkpoint.load_config(run), processes=2))
    command = f"torchrun --nproc-per-node 2 -m scanline train --resume --out {run}"
    with pytest.raises(ModelError, match=f"go on with `{command}`"):
        checkpoint.load(run)


def test_the_checkpoint_holds_weights_and_nothing_else(finished: Path) -> None:
    assert set(load_file(finished / "checkpoint.safetensors")) == set(checkpoint.load(finished).model.state_dict())


def test_a_full_disk_is_said_by_the_system_and_leaves_the_earlier_weights(run: Path) -> None:
    found, before = checkpoint.load(run), (run / "checkpoint.safetensors").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # bytes; a write beyond them fails as on a full disk
    try:
        with pytest.raises(OSError, match="File too large"):
            checkpoint.save(run, found.model, found.figures)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (run / "checkpoint.safetensors").read_bytes() == before


def test_a_missing_run_is_told_from_an_unfinished_one(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no training run"):
        checkpoint.load(tmp_path)
    (run / "figures.json").unlink()
    with pytest.raises(ModelError, match=r"is not finished, figures\.json is missing: .*--resume"):
        checkpoint.load(run)


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"\xff" * 1000])
def test_damaged_weights_are_refused(run: Path, content: bytes) -> None:
    (run / "checkpoint.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"checkpoint\.safetensors is damaged"):
        checkpoint.load(run)


def test_the_weights_of_another_network_are_refused(run: Path) -> None:
    save_file({"head.weight": torch.zeros(10, 5)}, run / "checkpoint.safetensors")
    with pytest.raises(ModelError, match=r"is not the network of config\.json"):
        checkpoint.load(run)


@pytest.mark.parametrize("name", ["config.json", "figures.json"])
def test_damaged_json_is_refused(run: Path, name: str) -> None:
    (run / name).write_text("{")
    with pytest.raises(ModelError, match=f"{name} is damaged"):
        checkpoint.load(run)


def test_a_wrong_value_is_named(run: Path) -> None:
    values = json.loads((run / "config.json").read_text())
    values["architecture"]["hidden"] = "many"
    del values["seed"]
    (run / "config.json").write_text(json.dumps(values))
    with pytest.raises(ModelError, match=r"architecture\.hidden: .*integer.*; seed: Field required"):
        checkpoint.load(run)
