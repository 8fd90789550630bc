"""`scanline score` as a process of its own, and the table that it writes."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path


def environment(**variables: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("SCANLINE_")} | variables


def line(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "scanline", "score", *map(str, arguments)]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
