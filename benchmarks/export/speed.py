"""Speed and size of the exported files against PyTorch's own export, side by side: `python -m benchmarks.export.speed`.

The plain export is `torch.onnx.export(dynamo=True)` as it comes, of the network as it is written down: it projects each
row by itself, and has no units beside its own. The variants take turns, so that what else the machine does meets all of
them alike; what counts is the median of the turns' ratios to the plain export. The weights are random: they don't
change the speed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import platform
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime as ort
import torch
from rich.table import Table

from benchmarks.ending import end_with
from benchmarks.tutorial import TutorialNetwork
from export import latency
from export.candidates import candidates
from export.network import from_model
from scanline import console
from scanline.contract import INPUT_NAME, OUTPUT_NAME, ModelCard
from scanline.model import open_session
from scanline.verify import Run, instruction_set, open_run
from train.model import Architecture, DigitLSTM
from train.recipe import PRESETS

ARCHITECTURES: Final = {name: PRESETS[name].architecture for name in ("seed", "edge", "accurate")}
PLAIN: Final = "plain export"
BATCHES: Final = (1, 8, 64, 256)
THREADS: Final = (1, 2)
TURN_SECONDS: Final = 0.02


def main() -> None:
    """Measure each preset and print a table for each number of threads, and one of sizes and load times."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--turns", type=int, default=25, help="how often each variant is measured (default: 25)")
    turns = options.parse_args().turns
    torch.manual_seed(0)
    console.out.print(
        f"{platform.processor() or platform.machine()}, {instruction_set()}, onnxruntime {ort.__version__}"
    )
    for preset, architecture in ARCHITECTURES.items():
        files = contents(architecture)
        console.out.print(_sizes(preset, files, turns))
        for threads in THREADS:
            runs = {name: open_run(content, Path(name), threads) for name, content in files.items()}
            console.out.print(_speeds(f"{preset}, threads: {threads}", runs, turns))


def contents(architecture: Architecture) -> dict[str, bytes]:
    """Export a network every way: the files' bytes by name, the plain export first."""
    model = TutorialNetwork(architecture).eval()
    card = ModelCard(
        name="benchmark",
        architecture=model.architecture.name,
        parameters=model.trained_weights(),
        dataset="none",
        dataset_sha256="0" * 64,
        seed=0,
        source_revision="unknown",
        accuracy=0.1,
        accuracy_method="not measured",
        reject={},
        verification={},
        producer={},
    )
    files = {one.name: one.content(card) for one in candidates(from_model(model)) if not one.step}
    return {PLAIN: _plain(model)} | files


def _plain(model: DigitLSTM) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plain.onnx"
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # the exporter talks
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model,
                (torch.zeros(2, 28, 28),),
                path,
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                external_data=False,
            )
        return path.read_bytes()


def _speeds(title: str, runs: Mapping[str, Run], turns: int) -> Table:
    headers = [f"{what} {size}" for size in BATCHES for what in ("µs of", "ratio at")]
    table = Table("file", *headers, title=title)
    cells: dict[str, list[str]] = {name: [] for name in runs}
    for size in BATCHES:
        rows = np.random.default_rng(0).random((size, 28, 28), dtype=np.float32)
        seconds = latency.in_turn(list(runs.values()), rows, turns, TURN_SECONDS)
        ratios = np.median(seconds[:, :1] / seconds, axis=0)
        for name, time_taken, ratio in zip(runs, np.median(seconds, axis=0), ratios, strict=True):
            cells[name] += [f"{time_taken * 1e6:,.0f}", f"{ratio:.2f}"]
    for name, row in cells.items():
        table.add_row(name, *row)
    return table


def _sizes(preset: str, contents: Mapping[str, bytes], turns: int) -> Table:
    table = Table("file", "bytes", "of plain", "load, ms", title=f"{preset}: size and load time")
    seconds = np.array([[_load(content) for content in contents.values()] for _ in range(turns)])
    for (name, content), load in zip(contents.items(), np.median(seconds, axis=0), strict=True):
        share = len(content) / len(contents[PLAIN])
        table.add_row(name, f"{len(content):,}", f"{share:.2f}", f"{load * 1e3:.2f}")
    return table


def _load(content: bytes) -> float:
    start = time.perf_counter()
    open_session(content, Path("model"), threads=1)
    return time.perf_counter() - start


if __name__ == "__main__":
    end_with(main)
