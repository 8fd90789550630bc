from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from train import augment, batches, evaluate, loop
from train.processes import Processes
from train.recipe import PRESETS, Distortion

ALONE = Processes(rank=0, count=1, device=torch.device("cpu"))
EDGE = PRESETS["edge"]


def test_the_accurate_preset_learns(digits: batches.Digits, tmp_path: Path) -> None:
    preset = PRESETS["accurate"]
    recipe = replace(preset.recipe, batch=32, steps=30, report_every=29, learning_rate=1e-3)
    history = loop.fit(preset.architecture, recipe, digits, seed=1, run=tmp_path, processes=ALONE).history
    assert history[1]["loss"] < history[0]["loss"]


def test_every_image_is_shown_once_an_epoch(digits: batches.Digits, tmp_path: Path) -> None:
    few = replace(digits, images=digits.images[:64].clone(), labels=digits.labels[:64])
    recipe = replace(
        EDGE.recipe,
        batch=16,
        epochs=40,
        learning_rate=2e-3,
        distortion=None,
        degradation=None,
        average_decay=0.0,
        negatives=0,
    )
    network = loop.fit(EDGE.architecture, recipe, few, seed=1, run=tmp_path, processes=ALONE).average
    assert evaluate.accuracy(evaluate.logits(network, few.images), few.labels) == 1


def test_the_average_follows_the_weights(digits: batches.Digits, tmp_path: Path) -> None:
    recipe = replace(EDGE.recipe, steps=6, average_decay=0.999)
    training = loop.fit(EDGE.architecture, recipe, digits, seed=1, run=tmp_path, processes=ALONE)
    distances = [
        (mean - weights).abs().max().item()
        for mean, weights in zip(training.average.parameters(), training.network.parameters(), strict=True)
    ]
    assert 0 < max(distances) < 0.1

    (tmp_path / "plain").mkdir()
    recipe = replace(recipe, average_decay=0.0)
    training = loop.fit(EDGE.architecture, recipe, digits, seed=1, run=tmp_path / "plain", processes=ALONE)
    for mean, weights in zip(training.average.parameters(), training.network.parameters(), strict=True):
        assert torch.equal(mean, weights)


def test_bfloat16_computes_coarsely_and_keeps_float32_weights(digits: batches.Digits, tmp_path: Path) -> None:
    losses = {}
    for precision in ("float32", "bfloat16"):
        recipe = replace(EDGE.recipe, batch=16, steps=30, report_every=29, precision=precision)
        (tmp_path / precision).mkdir()
        training = loop.fit(EDGE.architecture, recipe, digits, seed=1, run=tmp_path / precision, processes=ALONE)
        assert {parameter.dtype for parameter in training.average.parameters()} == {torch.float32}
        losses[precision] = training.history[-1]["loss"]
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)


def test_the_distortion_falls_steadily(digits: batches.Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    degrees = []
    draw = augment.draw

    def watched(distortion: Distortion, batch: int, device: torch.device) -> torch.Tensor:
        degrees.append(distortion.degrees)
        return draw(distortion, batch, device)

    monkeypatch.setattr(augment, "draw", watched)
    monkeypatch.setattr(batches, "GROUP", 30)
    bent = Distortion(degrees=10, scale=0, shear=0, shift=0, elastic=0)
    recipe = replace(EDGE.recipe, batch=16, steps=100, distortion=bent, last_distortion=0.2)
    loop.fit(EDGE.architecture, recipe, digits, seed=1, run=tmp_path, processes=ALONE)
    assert degrees == pytest.approx([10 - 8 * step / 100 for step in (0, 30, 60, 82)])  # an epoch has 82 steps


def test_ctrl_c_finishes_the_step_and_loses_nothing(
    digits: batches.Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(EDGE.recipe, batch=16, epochs=1, steps=30)
    (tmp_path / "whole").mkdir()
    whole = loop.fit(EDGE.architecture, recipe, digits, seed=1, run=tmp_path / "whole", processes=ALONE)

    calls = iter(range(30))
    bend = augment.bend

    def interrupted(images: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        if next(calls) == 12:
            signal.raise_signal(signal.SIGINT)  # amid the 13th of the 82 steps of an epoch
        return bend(images, weights)

    monkeypatch.setattr(augment, "bend", interrupted)
    with pytest.raises(KeyboardInterrupt):
        loop.fit(EDGE.architecture, recipe, digits, seed=1, run=tmp_path, processes=ALONE)
    assert next(calls) == 13
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 13

    monkeypatch.undo()
    resumed = loop.fit(EDGE.architecture, recipe, digits, seed=1, run=tmp_path, processes=ALONE)
    assert resumed.step == 30
    for found, expected in zip(resumed.average.parameters(), whole.average.parameters(), strict=True):
        assert torch.equal(found, expected)
