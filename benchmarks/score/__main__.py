"""What scoring files costs beside reading them: `python -m benchmarks.score`, or with `--memory` what it holds.

Each line is a whole command, its start included, over the same 28x28 PNG files on the same cores; the commands take
turns and the medians are given. `--memory` is benchmarks.score.memory.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.table import Table

from benchmarks.ending import end_with
from benchmarks.score import ENVIRONMENT
from benchmarks.score.files import make
from benchmarks.score.memory import memory
from scanline.console import out


def main() -> None:
    """Make the files, run the commands, print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--files", type=int, default=50_000, help="how many (default: 50000)")
    options.add_argument("--repeats", type=int, default=3, help="how often each command runs (default: 3)")
    options.add_argument("--memory", action="store_true", help="compare the memory of few and of many files")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="scanline-score-") as folder:
        if given.memory:
            memory(Path(folder))
        else:
            _speed(Path(folder), given.files, given.repeats)


def _speed(folder: Path, files: int, repeats: int) -> None:
    scans, output, cores = folder / "scans", folder / "out.csv", len(os.sched_getaffinity(0))
    make(scans, files)
    with _server() as address:
        score = ["-m", "scanline", "score", str(scans), "--output", str(output)]
        commands = {
            f"decoding and preprocessing alone, {cores} processes": [
                "-m",
                "benchmarks.score.alone",
                str(scans),
                str(cores),
            ],
            f"scanline score, {cores} processes": [*score, "--processes", str(cores)],
            "scanline score --server": [*score, "--server", address],
            "plain loop, 1 process": ["-m", "benchmarks.score.plain", str(scans), str(output)],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(repeats):
            for name, command in commands.items():
                started = time.perf_counter()
                subprocess.run([sys.executable, *command], check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
                seconds[name].append(time.perf_counter() - started)
    alone, *_, plain = (files / statistics.median(taken) for taken in seconds.values())
    table = Table("command", "images/s", "to decoding alone", "to the plain loop")
    for name, taken in seconds.items():
        rate = files / statistics.median(taken)
        table.add_row(name, f"{rate:,.0f}", f"{rate / alone:.2f}", f"{rate / plain:.2f}")
    out.print(table)


@contextmanager
def _server() -> Iterator[str]:
    command = [sys.executable, "-m", "scanline", "serve", "--listen", "127.0.0.1:0", "--log-format", "json"]
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            yield next(event["address"] for event in map(json.loads, process.stderr) if event["event"] == "serving")
        finally:
            process.terminate()


if __name__ == "__main__":
    end_with(main)
