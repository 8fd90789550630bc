"""What serving costs, beside a plain grpc.server that calls session.run in each handler (benchmarks/serving/plain.py).

    python -m benchmarks.serving                # about five minutes on two idle cores
    python -m benchmarks.serving --soak 30      # full load for 30 minutes instead: memory and answers

The server has one core and the load generator (h2load, in Debian's package nghttp2-client) another. All servers answer
with the shipped int8 model, in turn, several times over; the medians are reported, and ratios within a run, since the
same machine drifts by 15 % between runs. docs/benchmarks.md has what came out.
"""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from typing import Final

from pydantic import Field
from rich.table import Table

from benchmarks.serving.load import Load, apply
from benchmarks.serving.processes import PLAIN, SERVERS, pinned, serving, two_cores
from benchmarks.serving.soak import soak
from scanline import console
from scanline.errors import ScanlineError
from scanline.settings import Settings, parse

SMALL: Final = Load(connections=8, callers=4, images=1, calls=20_000)
LARGE: Final = Load(connections=4, callers=1, images=32, calls=3_000)
LONE: Final = Load(connections=1, callers=1, images=1, calls=5_000)
ALONE: Final = "onnxruntime"
COLUMNS: Final = {
    "cpu": "32 callers\nof 1 image\nCPU us/image",
    "rate": "4 callers\nof 32 images\nimages/s",
    "p50": "1 caller\nof 1 image\np50 us",
    "ready": "start\nto answer\ns",
    "resident": "\nresident\nMB",
}

Figures = dict[tuple[str, str], list[float]]


class ServingBenchmark(Settings):
    """Compare Scanline's server with a plain one, or hold it under full load."""

    repeats: int = Field(5, ge=1, description="how often each server is measured")
    soak: float | None = Field(None, gt=0, description="minutes of full load; nothing else is measured then")


def measure(repeats: int) -> Figures:
    """Measure every server in turn, again and again; give each figure's values by its name and the server's."""
    server_core, load_core = two_cores()
    figures: Figures = defaultdict(list)
    with console.progress("servers") as progress:
        task = progress.add_task("measuring", total=repeats * (len(SERVERS) + 1))
        for _ in range(repeats):
            with pinned(("-m", "benchmarks.serving.alone"), server_core) as alone:
                figures["rate", ALONE].append(float(alone.communicate()[0]))
            progress.advance(task)
            for name in SERVERS:
                with serving(name, server_core) as server:
                    figures["ready", name].append(server.ready)
                    figures["p50", name].append(apply(LONE, server, load_core).p50_us)
                    figures["cpu", name].append(apply(SMALL, server, load_core).cpu_us)
                    figures["rate", name].append(apply(LARGE, server, load_core).rate)
                    figures["resident", name].append(server.resident_mb())
                progress.advance(task)
    return figures


def table(figures: Figures) -> Table:
    """Give the medians as a table, each beside its ratio to what it is compared with."""
    medians = {key: statistics.median(values) for key, values in figures.items()}
    result = Table("server", title="medians, and ratios to the plain server (images/s: to onnxruntime)")
    for heading in COLUMNS.values():
        result.add_column(heading, justify="right", no_wrap=True)
    for name in (*SERVERS, ALONE):
        cells = []
        for key in COLUMNS:
            reference = medians[key, ALONE if key == "rate" else PLAIN]
            value = medians.get((key, name))
            cells.append("" if value is None else f"{value:,.{2 if value < 10 else 0}f}  {value / reference:.2f}")
        result.add_row(name, *cells)
    return result


def main() -> int:
    """Run what the command line asks for."""
    try:
        settings = parse(ServingBenchmark, "benchmarks.serving", sys.argv[1:])
        if settings.soak is not None:
            return soak(settings.soak * 60)
        console.out.print(table(measure(settings.repeats)))
    except ScanlineError as error:
        console.error(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
