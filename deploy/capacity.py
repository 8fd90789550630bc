"""How many servers a load takes: docs/capacity.md's arithmetic, with your own figures.

    python deploy/capacity.py 1000
    python deploy/capacity.py 1000 --cpu-us 140 --cores 4 --busy 0.6 --spare 1

The cost of an image is the server's CPU time for it: `python -m benchmarks.serving` measures it on your machine.
"""

from __future__ import annotations

import argparse
import sys
from math import ceil
from typing import Final

SECOND: Final = 1_000_000  # microseconds
BYTES_AN_IMAGE: Final = 784 + 100  # the pixels, and what HTTP/2, gRPC and the answer add to a call of one image


def main() -> None:
    """Print the arithmetic, a line a step."""
    parser = argparse.ArgumentParser(description="How many servers a load takes.")
    parser.add_argument("images", type=float, help="images a second at the busiest hour")
    parser.add_argument(
        "--cpu-us", type=float, default=220, help="server's CPU time an image, microseconds (default: 220)"
    )
    parser.add_argument("--cores", type=int, default=2, help="cores of a machine (default: 2)")
    parser.add_argument("--busy", type=float, default=0.5, help="share of the cores that may be busy (default: 0.5)")
    parser.add_argument("--spare", type=int, default=1, help="machines that may fail at once (default: 1)")
    given = parser.parse_args()
    if min(given.images, given.cpu_us, given.cores, given.busy) <= 0 or given.busy > 1 or given.spare < 0:
        parser.error(
            "images, --cpu-us and --cores are more than 0, --busy is more than 0 and at most 1, --spare at least 0"
        )
    needed = given.images * given.cpu_us / SECOND
    provided = needed / given.busy
    machines = ceil(provided / given.cores)
    megabits = given.images * BYTES_AN_IMAGE * 8 / 1e6
    sys.stdout.write(
        f"{given.images:,.0f} images/s x {given.cpu_us:g} us = {needed:,.3g} cores of work\n"
        f"{needed:,.3g} / {given.busy:g} busy = {provided:,.3g} cores\n"
        f"{provided:,.3g} / {given.cores} cores a machine = {machines:,}, and {given.spare} to spare: "
        f"{machines + given.spare:,} machines\n"
        f"{given.images:,.0f} images/s x {BYTES_AN_IMAGE} bytes = {megabits:,.3g} Mbit/s in all\n"
    )


main()
