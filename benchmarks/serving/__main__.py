"""What serving costs, beside a plain grpc.server that calls session.run in each handler (benchmarks/serving/plain.py).

    python -m benchmarks.serving                    # about five minutes on two idle cores
    python -m benchmarks.serving --protocol oip     # the same over the Open Inference Protocol
    python -m benchmarks.serving --protocol oip --perf-analyzer FILE    # with perf_analyzer for h2load
    python -m benchmarks.serving --soak 30          # full load for 30 minutes instead: memory and answers

The server has one core and the load generator (h2load, in Debian's package nghttp2-client) another. All servers answer
with the shipped int8 model, in turn, several times over; the medians are reported, and ratios within a run, since the
same machine drifts by 15 % between runs. docs/benchmarks.md has what came out.
"""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from dataclasses import fields
from pathlib import Path
from typing import Final, Literal

from pydantic import Field
from rich.table import Table

from benchmarks.ending import end_with
from benchmarks.serving.load import Load, Measured, analyze, apply
from benchmarks.serving.processes import PLAIN, SERVERS, pinned, serving, two_cores
from benchmarks.serving.protocols import PROTOCOLS
from benchmarks.serving.soak import soak
from scanline import console
from scanline.errors import UsageError
from scanline.settings import Settings, parse

SMALL: Final = Load(connections=8, callers=4, images=1, calls=20_000)
LARGE: Final = Load(connections=4, callers=1, images=32, calls=3_000)
LONE: Final = Load(connections=1, callers=1, images=1, calls=5_000)
ALONE: Final = "onnxruntime"
ROWS: Final = {
    "cpu": "32 callers of 1 image, CPU us/image",
    "rate": "4 callers of 32 images, images/s",
    "cpu large": "4 callers of 32 images, CPU us/image",
    "p50": "1 caller of 1 image, p50 us",
    "ready": "start to answer, s",
    "resident": "resident, MB",
}

Figures = dict[tuple[str, str], list[float]]


class ServingBenchmark(Settings):
    """Compare Scanline's server with a plain one, or hold it under full load."""

    repeats: int = Field(5, ge=1, description="how often each server is measured")
    protocol: Literal["digits", "oip"] = Field("digits", description="scanline.v1 or the Open Inference Protocol")
    perf_analyzer: Path | None = Field(
        None, description="perf_analyzer in its environment, to take the place of h2load; Scanline alone is measured"
    )
    soak: float | None = Field(None, gt=0, description="minutes of full load; nothing else is measured then")


def measure(settings: ServingBenchmark) -> Figures:
    """Measure every server in turn, again and again; give each figure's values by its name and the server's."""
    repeats, protocol = settings.repeats, PROTOCOLS[settings.protocol]
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
                    figures["p50", name].append(apply(LONE, server, load_core, protocol).p50_us)
                    figures["cpu", name].append(apply(SMALL, server, load_core, protocol).cpu_us)
                    large = apply(LARGE, server, load_core, protocol)
                    figures["rate", name].append(large.rate)
                    figures["cpu large", name].append(large.cpu_us)
                    figures["resident", name].append(server.resident_mb())
                progress.advance(task)
    return figures


def table(figures: Figures) -> Table:
    """Give the medians as a table, each beside its ratio to what it is compared with."""
    medians = {key: statistics.median(values) for key, values in figures.items()}
    result = Table("", title="medians, and ratios to the plain server (images/s: to onnxruntime)")
    for name in (*SERVERS, ALONE):
        result.add_column(name, justify="right", no_wrap=True)
    for key, heading in ROWS.items():
        reference = medians[key, ALONE if key == "rate" else PLAIN]
        values = [medians.get((key, name)) for name in (*SERVERS, ALONE)]
        result.add_row(
            heading,
            *(
                "" if value is None else f"{value:,.{2 if value < 10 else 0}f}  {value / reference:.2f}"
                for value in values
            ),
        )
    return result


def analyzed(analyzer: Path, repeats: int) -> Table:
    """Measure Scanline's server with perf_analyzer; give the medians as a table."""
    server_core, load_core = two_cores()
    result = Table("load", "CPU us/image", "images/s", "p50 us", title="perf_analyzer, --transport loop; medians")
    for name, load in (("32 callers of 1 image", SMALL), ("4 callers of 32 images", LARGE), ("1 caller", LONE)):
        with serving("loop", server_core) as server:
            found = [analyze(analyzer, load, server, load_core) for _ in range(repeats)]
        medians = [statistics.median(getattr(each, field.name) for each in found) for field in fields(Measured)]
        result.add_row(name, *(f"{value:,.{1 if value < 1000 else 0}f}" for value in medians))
    return result


def check(settings: ServingBenchmark) -> None:
    """Refuse what would be left aside.

    Raises:
        UsageError: options that don't go together.
    """
    if settings.soak is not None and settings.model_fields_set != {"soak"}:
        raise UsageError("--soak takes no other option: h2load calls scanline.v1 for so many minutes")
    if settings.perf_analyzer is not None and settings.protocol != "oip":
        raise UsageError("--perf-analyzer speaks the Open Inference Protocol alone: give --protocol oip as well")


def main() -> int:
    """Run what the command line asks for."""
    settings = parse(ServingBenchmark, "benchmarks.serving", sys.argv[1:])
    check(settings)
    if settings.soak is not None:
        return soak(settings.soak * 60)
    if settings.perf_analyzer is not None:
        console.out.print(analyzed(settings.perf_analyzer, settings.repeats))
    else:
        console.out.print(table(measure(settings)))
    return 0


if __name__ == "__main__":
    end_with(main)
