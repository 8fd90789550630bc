"""Full load for a long time: the memory must stay where it is, and every answer must be right."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np

from benchmarks.serving.load import Load, apply
from benchmarks.serving.processes import Running, serving, two_cores
from benchmarks.serving.protocols import DIGITS, some_images
from scanline import console

SERVER: Final = "loop"
ROUND: Final = Load(connections=8, callers=4, images=1, calls=20_000)
# Buffers grow to their size under the load's first moments; what comes after is measured against their end.
WARM_UP_ROUNDS: Final = 5
MOST_DRIFT: Final = 0.05
SAMPLES_A_TABLE: Final = 10


def soak(seconds: float) -> int:
    """Load a server for so many seconds, and report; give the exit code, 1 where its memory or an answer was wrong."""
    server_core, load_core = two_cores()
    memory: list[float] = []
    with serving(SERVER, server_core) as server, console.progress("seconds") as progress:
        task = progress.add_task("full load", total=round(seconds))
        started = time.monotonic()
        while (gone := time.monotonic() - started) < seconds or len(memory) <= WARM_UP_ROUNDS:
            progress.update(task, completed=round(min(gone, seconds)))
            _round(server, load_core)
            memory.append(server.resident_mb())
    level = memory[WARM_UP_ROUNDS - 1]
    drift = max(abs(value / level - 1) for value in memory[WARM_UP_ROUNDS:])
    calls = len(memory) * ROUND.calls
    every = max(len(memory) // SAMPLES_A_TABLE, 1)
    console.out.print(f"resident MB along the way: {', '.join(f'{value:.1f}' for value in memory[::every])}")
    console.out.print(f"{calls:,} calls of one image in {seconds / 60:.0f} minutes, every one answered")
    console.out.print(f"memory after the first {WARM_UP_ROUNDS * ROUND.calls:,}: within {drift:.1%} of {level:.1f} MB")
    return 0 if drift <= MOST_DRIFT else 1


def _round(server: Running, core: int) -> None:
    """Make the load's calls, and distinct ones besides, whose answers are looked at."""
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(apply, ROUND, server, core)
        for image in some_images(200):
            DIGITS.answer(server.address, image[np.newaxis])
        load.result()
