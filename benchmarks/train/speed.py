"""Images a second in training: Scanline's loop, a bare loop, and the tutorials' way, side by side.

    python -m benchmarks.train.speed

For the presets `edge` and `seed`, which is the tutorial's own network: all three train the preset's network on the same
digits with batches of one size, in turns, on the device that `scanline train` would take. The clock runs from the first
step to the last: the start of a process, loading data and drawing the made-up negatives, which happens once a run, are
outside. The bare loop is forward, backward and step on float data that lies on the device; it neither shuffles nor
distorts, and keeps no average; once with the network as Scanline computes it, once with PyTorch's layers as they are.
The tutorials' way is a DataLoader over Pillow images: one with nothing but the conversion to a tensor, one that turns,
scales and shifts each image as well (without elastic distortion). As in the tutorials, its layers are as they are, such
as the projection of each row by itself, and its optimizer is not fused.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from PIL import Image
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from benchmarks.ending import end_with
from benchmarks.tutorial import TutorialNetwork
from scanline import console
from train import augment, batches, data, initialise, loop, origin, processes, state
from train.command import split
from train.model import DigitLSTM
from train.objective import Objective
from train.recipe import PRESETS, Preset

Precision = Literal["float32", "bfloat16"]
STEPS: Final = 120
TURNS: Final = 10
TRAIN: Final = "scanline train"
BARE: Final = "bare loop"
PLAIN: Final = "bare loop, layers as they are"
PILLOW: Final = "DataLoader, Pillow"


class PillowDigits(TorchDataset[tuple[Tensor, int]]):
    """Digits as Pillow images that become tensors one by one, as in the tutorials."""

    def __init__(self, digits: batches.Digits, *, distorted: bool) -> None:
        self.images = [Image.fromarray(image) for image in digits.images.cpu().numpy()]
        self.labels = digits.labels.tolist()
        self.distorted = distorted
        self.chance = np.random.default_rng(0)

    def __len__(self) -> int:
        """The number of digits."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """One digit, float32 [28, 28], and its label."""
        image = self.images[index]
        if self.distorted:
            angle, scale = self.chance.uniform(-13, 13), self.chance.uniform(0.88, 1.12)
            right, down = self.chance.integers(-2, 3, 2).tolist()
            image = image.rotate(angle, Image.Resampling.BILINEAR, translate=(right, down))
            side = round(28 * scale)
            image = image.resize((side, side), Image.Resampling.BILINEAR).crop((0, 0, 28, 28))
        return torch.from_numpy(np.asarray(image, np.float32) / 255), self.labels[index]


def batch_of(preset: Preset) -> int:
    """The images that a step of a preset computes."""
    return preset.recipe.batch + preset.recipe.negatives


def scanline_loop(digits: batches.Digits, here: processes.Processes, preset: Preset, precision: Precision) -> float:
    """Train for some steps as `scanline train` does, and give the seconds that they took, as all of these do."""
    with tempfile.TemporaryDirectory() as run:
        recipe = replace(preset.recipe, steps=STEPS, precision=precision)
        return loop.fit(preset.architecture, recipe, digits, seed=0, run=Path(run), processes=here).seconds


def bare_loop(
    digits: batches.Digits,
    here: processes.Processes,
    preset: Preset,
    precision: Precision,
    kind: type[DigitLSTM] = DigitLSTM,
) -> float:
    """Train for the same steps with nothing around the network."""
    rows = augment.to_rows(digits.images)
    step, batch = _stepper(kind, here, preset, precision), batch_of(preset)
    began = time.perf_counter()
    for number in range(STEPS):
        chosen = slice(number * batch, (number + 1) * batch)
        step(rows[chosen], digits.labels[chosen])
    return _since(began, here)


def pillow_loop(digits: batches.Digits, here: processes.Processes, preset: Preset, *, distorted: bool) -> float:
    """Train for the same steps from a DataLoader."""
    loader = DataLoader(PillowDigits(digits, distorted=distorted), batch_of(preset), shuffle=True)
    step = _stepper(TutorialNetwork, here, preset, "float32", fused=False)
    began = time.perf_counter()
    for _, (rows, labels) in zip(range(STEPS), loader, strict=False):
        step(rows.to(here.device), labels.to(here.device))
    return _since(began, here)


def _since(began: float, here: processes.Processes) -> float:
    here.wait()
    return time.perf_counter() - began


def _stepper(
    kind: type[DigitLSTM], here: processes.Processes, preset: Preset, precision: Precision, *, fused: bool = True
) -> Callable[[Tensor, Tensor], None]:
    network = kind(preset.architecture)
    network.load_state_dict(initialise.draw(preset.architecture, preset.recipe).state_dict())
    network.to(here.device)
    objective: nn.Module = Objective(network, preset.recipe).to(here.device)
    optimizer = state.optimizer(network, preset.recipe, fused=fused)

    def step(rows: Tensor, labels: Tensor) -> None:
        with torch.autocast(here.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            loss: Tensor = objective(rows, labels)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()

    return step


def ways(digits: batches.Digits, here: processes.Processes, preset: Preset) -> dict[str, Callable[[], float]]:
    """What is compared, by name: functions that train for the same steps and give the seconds that they took."""
    return {
        TRAIN: lambda: scanline_loop(digits, here, preset, "float32"),
        BARE: lambda: bare_loop(digits, here, preset, "float32"),
        PLAIN: lambda: bare_loop(digits, here, preset, "float32", TutorialNetwork),
        PILLOW: lambda: pillow_loop(digits, here, preset, distorted=False),
        f"{PILLOW}, distorted": lambda: pillow_loop(digits, here, preset, distorted=True),
        f"{TRAIN}, bfloat16": lambda: scanline_loop(digits, here, preset, "bfloat16"),
        f"{BARE}, bfloat16": lambda: bare_loop(digits, here, preset, "bfloat16"),
        f"{PLAIN}, bfloat16": lambda: bare_loop(digits, here, preset, "bfloat16", TutorialNetwork),
    }


def main() -> None:
    """Take turns, and show the medians of what each turn found."""
    with processes.join("auto") as here:
        few = split(data.load(["uci"], None), hold_out=False, device=here.device)
        for name in ("edge", "seed"):
            preset = PRESETS[name]
            repeats = -(-STEPS * batch_of(preset) // len(few.labels))
            digits = replace(few, images=few.images.repeat(repeats, 1, 1), labels=few.labels.repeat(repeats))
            compared = ways(digits, here, preset)
            speeds: dict[str, list[float]] = {way: [] for way in compared}
            for turn in range(TURNS + 1):
                for way, train in compared.items():
                    seconds = train()
                    if turn:  # the first turn warms up
                        speeds[way].append(STEPS * batch_of(preset) / seconds)
            console.out.print(_table(f"{name} on {origin.hardware(here.device)}", speeds))


def _table(title: str, speeds: dict[str, list[float]]) -> Table:
    table = Table("way", "images/s", "of a bare loop's", "of the DataLoader's", title=title)
    for way, found in speeds.items():
        own = way.replace(TRAIN, BARE).replace(PLAIN, BARE)
        bare = "" if own == way else f"{_ratio(found, speeds[own]):.2f}"
        table.add_row(way, f"{statistics.median(found):,.0f}", bare, f"{_ratio(found, speeds[PILLOW]):.2f}")
    return table


def _ratio(speeds: list[float], base: list[float]) -> float:
    """The median of the turns' ratios: what disturbs the machine for longer than a turn falls out."""
    return statistics.median(own / other for own, other in zip(speeds, base, strict=True))


if __name__ == "__main__":
    end_with(main)
