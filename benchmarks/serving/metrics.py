"""What metrics cost: the server as it is, scraped every second, beside one that counts nothing.

    python -m benchmarks.serving.metrics        # about three minutes on two idle cores

The same load and the same figure as the first column of `python -m benchmarks.serving`. Both are up all the time and
take short turns, each of which has its ratio, since the same machine drifts by more than metrics cost within a minute.
docs/benchmarks.md has what came out.
"""

from __future__ import annotations

import statistics
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from pydantic import Field

from benchmarks.ending import end_with
from benchmarks.serving.__main__ import SMALL
from benchmarks.serving.load import apply
from benchmarks.serving.processes import COUNTED, PATIENCE, UNCOUNTED, Running, serving, two_cores
from scanline import console
from scanline.settings import Settings, parse

MOST: Final = 1.05
SHORT: Final = replace(SMALL, calls=4_000)  # a second
EVERY: Final = 1.0  # seconds between scrapes: fifteen times as often as Prometheus does by itself


class MetricsBenchmark(Settings):
    """Measure what metrics cost in CPU time an image."""

    turns: int = Field(60, ge=2, description="how often each server is measured")


@contextmanager
def scraping(server: Running) -> Iterator[None]:
    """Scrape a server again and again."""
    over = threading.Event()

    def scrape() -> None:
        while not over.wait(EVERY):
            with urllib.request.urlopen(f"http://{server.metrics_address}/metrics", timeout=PATIENCE) as answer:
                answer.read()

    scraper = threading.Thread(target=scrape)
    scraper.start()
    try:
        yield
    finally:
        over.set()
        scraper.join()


def measure(turns: int) -> list[tuple[float, float]]:
    """Give both servers' CPU time an image, in microseconds, in each turn: uncounted, and as it is."""
    server_core, load_core = two_cores()
    with (
        serving(UNCOUNTED, server_core) as uncounted,
        serving(COUNTED, server_core) as counted,
        scraping(counted),
    ):
        for server in (uncounted, counted):
            apply(SMALL, server, load_core)  # buffers grow to their size
        return [
            (apply(SHORT, uncounted, load_core).cpu_us, apply(SHORT, counted, load_core).cpu_us) for _ in range(turns)
        ]


def main() -> int:
    """Measure, and say what came out; give 1 where it is more than is promised."""
    turns = measure(parse(MetricsBenchmark, "benchmarks.serving.metrics", sys.argv[1:]).turns)
    low, ratio, high = statistics.quantiles((counted / uncounted for uncounted, counted in turns), n=4)
    uncounted, counted = (statistics.median(column) for column in zip(*turns, strict=True))
    console.out.print(
        f"CPU us an image: {uncounted:.1f} uncounted, {counted:.1f} as it is; "
        f"median of the turns' ratios {ratio:.3f}, half of them from {low:.3f} to {high:.3f}"
    )
    return 0 if ratio <= MOST else 1


if __name__ == "__main__":
    end_with(main)
