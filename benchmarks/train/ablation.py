"""The trials behind the presets: one change at a time, measured on the validation split of MNIST.

    SCANLINE_DATA=... python -m benchmarks.train.ablation VARIANT SEED ...

Prints a JSON line for each trial: the accuracy on the last 5,000 training images after training on the other 55,000.
The test set is not touched. docs/trials.md has the table of what came out.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks.ending import end_with
from train import evaluate, loop, processes
from train.command import split
from train.data import load
from train.model import Architecture
from train.recipe import PRESETS, Distortion, Preset
from train.settings import Settings

EDGE: Final = PRESETS["edge"]
WIDE: Final = Architecture(hidden=128)
DISTORTION: Final = Distortion(degrees=13, scale=0.12, shear=0.15, shift=2, elastic=1.6)  # whatever the presets' is
# 40 epochs in bfloat16, so that a trial is cheap
BASE: Final = replace(
    EDGE.recipe,
    epochs=40,
    precision="bfloat16",
    distortion=DISTORTION,
    degradation=None,
    negatives=0,
)
VARIANTS: Final = {
    "base": Preset(architecture=WIDE, recipe=BASE),
    "float32": Preset(architecture=WIDE, recipe=replace(BASE, precision="float32")),
    "elastic": Preset(
        architecture=WIDE,
        recipe=replace(BASE, distortion=replace(DISTORTION, elastic=2.4)),
    ),
    "long": Preset(architecture=WIDE, recipe=replace(BASE, epochs=100)),
    "narrow": Preset(architecture=EDGE.architecture, recipe=replace(BASE, epochs=100)),
    "negatives": Preset(architecture=EDGE.architecture, recipe=replace(BASE, epochs=100, negatives=16)),
    "degraded": Preset(architecture=EDGE.architecture, recipe=replace(EDGE.recipe, precision="bfloat16")),
    "large": Preset(  # 649,162 weights
        architecture=Architecture(hidden=128, bidirectional=True, convolutions=(32, 64, 64)),
        recipe=replace(
            PRESETS["accurate"].recipe, epochs=30, distortion=DISTORTION, degradation=None, precision="bfloat16"
        ),
    ),
}


def main() -> None:
    """Run the trials that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument("seeds", nargs="+", type=int)
    chosen = parser.parse_args()
    trials(chosen.variant, chosen.seeds)


def trials(name: str, seeds: Sequence[int]) -> None:
    """Run a variant's trials, a line each."""
    variant = VARIANTS[name]
    data = load(["mnist"], Settings(out=Path()).data_dir)
    with processes.join("auto") as here:
        part = split(data, hold_out=True, device=here.device)
        for seed in seeds:
            with tempfile.TemporaryDirectory() as run:
                done = loop.fit(variant.architecture, variant.recipe, part, seed=seed, run=Path(run), processes=here)
            answers = evaluate.logits(done.average, part.held_out_images)
            accuracy = evaluate.accuracy(answers, part.held_out_labels)
            print(json.dumps({"variant": name, "seed": seed, "accuracy": accuracy, "seconds": round(done.seconds)}))


if __name__ == "__main__":
    end_with(main)
