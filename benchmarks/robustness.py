"""What a model bears: `python -m benchmarks.robustness [MODEL ...] [--picture FILE]`, edge and accurate by default.

MNIST's test images are made worse in the ways and to the degrees of train/distortions.py and go to each model as raw
pixels; SCANLINE_DATA names the folder, else they are downloaded. Rejected answers count too, as everywhere.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.progress import track
from rich.table import Table
from torch import Tensor

from benchmarks.ending import end_with
from scanline import console
from scanline.model import Model
from train import augment, distortions
from train.data import load
from train.settings import Settings

BATCH: Final = 64
COLUMNS: Final = 3  # of panels in the picture


class Found(NamedTuple):
    """The shares that the models read rightly of images with one distortion."""

    distortion: str
    unit: str
    strength: float
    shares: list[float]


def main() -> None:
    """Measure what the command line asks for."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("models", nargs="*", default=["edge", "accurate"], help="model files, folders or names")
    options.add_argument("--picture", type=Path, help="where to write the curves")
    given = options.parse_args()
    measure(given.models, given.picture)


def measure(paths: Sequence[str], picture: Path | None) -> None:
    """Measure, print the table and draw the picture."""
    models = {path: Model(path) for path in paths}
    data = load(["mnist"], Settings(out=Path()).data_dir)
    rows, labels = augment.to_rows(torch.tensor(data.test_images)), data.test_labels
    cases = [(distort, unit, strength) for distort, unit, strengths in distortions.GRID for strength in strengths]
    clean = [_right(model, rows, labels) for model in models.values()]
    table = Table("distortion", "strength", *models)
    table.add_row("none", "", *(f"{share:.2%}" for share in clean))
    found = []
    for distort, unit, strength in track(
        cases, "distortions", console=console.err, disable=not console.err.is_terminal
    ):
        worse = distort(rows, strength)
        shares = [_right(model, worse, labels) for model in models.values()]
        table.add_row(distort.__name__, f"{strength:g} {unit}", *(f"{share:.2%}" for share in shares))
        found.append(Found(distort.__name__, unit, strength, shares))
    console.out.print(table)
    if picture is not None:
        _draw(picture, list(models), clean, found)


def _right(model: Model, rows: Tensor, labels: NDArray[np.int64]) -> float:
    """Give the share of images, float32 [n, 28, 28], whose largest logit is at the label."""
    answers = [model.run(batch.numpy()).argmax(axis=1) for batch in torch.split(rows, BATCH)]
    return float((np.concatenate(answers) == labels).mean())


def _draw(picture: Path, names: list[str], clean: list[float], found: list[Found]) -> None:
    """Draw a panel for each distortion, a line for each model, with the undistorted images in their place."""
    kinds = [(name, list(cases)) for name, cases in groupby(found, key=lambda case: case.distortion)]
    figure = Figure(figsize=(9, 5.4))
    panels = figure.subplots(-(-len(kinds) // COLUMNS), COLUMNS, sharey=True)
    lowest = math.floor(10 * min(min(case.shares) for case in found)) * 10  # what is near 100 % is looked at
    for (name, cases), axes in zip(kinds, panels.flat, strict=True):
        nothing = 1.0 if name == distortions.contrast.__name__ else 0.0
        for place, label in enumerate(names):
            points = sorted([(nothing, clean[place]), *((case.strength, case.shares[place]) for case in cases)])
            axes.plot(*zip(*((strength, 100 * share) for strength, share in points), strict=True), ".-", label=label)
        axes.set(title=name, xlabel=cases[0].unit, ylim=(lowest, 100.5))
        axes.spines[["top", "right"]].set_visible(False)
    for first in panels[:, 0]:
        first.set_ylabel("read rightly, %")
    panels[0, 0].legend(frameon=False, fontsize=8, loc="lower center")
    figure.tight_layout()
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    end_with(main)
