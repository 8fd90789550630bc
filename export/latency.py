"""How fast the files are on this machine, measured side by side."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scanline.verify import Run

BATCHES: Final = (1, 8, 64, 256)
ROUNDS: Final = 5
ROUND_SECONDS: Final = 0.01


def measure(runs: Mapping[str, Run], rows: NDArray[np.float32]) -> dict[str, dict[int, float]]:
    """Time each file at each batch size.

    The files take turns, so that what else the machine does meets all of them alike; the median of the turns counts.

    Args:
        runs: the loaded files by name.
        rows: images to compute, float32 [n, 28, 28], n >= 1; repeated up to the batch size.

    Returns:
        Seconds a batch, by file name and batch size.
    """
    times: dict[str, dict[int, float]] = {name: {} for name in runs}
    for size in BATCHES:
        batch = np.resize(rows, (size, *rows.shape[1:]))
        medians = np.median(in_turn(list(runs.values()), batch, ROUNDS, ROUND_SECONDS), axis=0)
        for name, seconds in zip(runs, medians.tolist(), strict=True):
            times[name][size] = seconds
    return times


def in_turn(runs: Sequence[Run], batch: NDArray[np.float32], rounds: int, seconds: float) -> NDArray[np.float64]:
    """Let files take turns of so many seconds or one batch, whichever is longer.

    Returns:
        Seconds a batch, [rounds, files].
    """
    return np.array([[_turn(run, batch, seconds) for run in runs] for _ in range(rounds)])


def _turn(run: Run, batch: NDArray[np.float32], seconds: float) -> float:
    start, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < seconds or count == 0:
        run(batch)
        count += 1
    return passed / count
