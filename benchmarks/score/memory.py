"""The memory that scoring takes: few files against many, in folders, in a .zip archive and by a pattern.

It is the largest of all processes together (their proportional set size), looked at four times a second.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from rich.table import Table

from benchmarks.score import ENVIRONMENT
from benchmarks.score.files import make
from scanline.console import out

FEW: Final = 10_000
# What grows with the files shows with fewer of them.
MANY_IN_FOLDERS: Final = 1_000_000
MANY: Final = 200_000
LOOK_SECONDS: Final = 0.25


def memory(folder: Path) -> None:
    """Make the files, score them, print the table."""
    table = Table("what", "files", "memory MB", "bytes a file more")
    kinds: list[tuple[str, int, Callable[[Path, int], str]]] = [
        ("folders", MANY_IN_FOLDERS, _folders),
        ("a .zip archive", MANY, _archive),
        ("a pattern", MANY, _pattern),
    ]
    for kind, many, prepare in kinds:
        first = 0.0
        for files in (FEW, many):
            argument = prepare(folder / f"{prepare.__name__}{files}", files)
            peak = _peak(argument, folder / "out.csv")
            more = f"{(peak - first) / (many - FEW):,.0f}" if first else ""
            table.add_row(kind, f"{files:,}", f"{peak / 1e6:.0f}", more)
            first = peak
    out.print(table)


def _folders(place: Path, files: int) -> str:
    make(place, files)
    return str(place)


def _archive(place: Path, files: int) -> str:
    make(place, files)
    path = place.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(place.rglob("*.png")):
            archive.write(file, file.relative_to(place))
    return str(path)


def _pattern(place: Path, files: int) -> str:
    make(place, files)
    return f"{place}/*/*.png"


def _peak(argument: str, output: Path) -> float:
    """Score, and give the largest memory of the process and its children, in bytes."""
    command = [sys.executable, "-m", "scanline", "score", argument, "--output", str(output)]
    peak = 0.0
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            with suppress(FileNotFoundError):
                peak = max(peak, sum(map(_resident, [process.pid, *map(int, children.read_text().split())])))
            with suppress(subprocess.TimeoutExpired):
                process.wait(LOOK_SECONDS)
    assert process.returncode == 0
    return peak


def _resident(pid: int) -> int:
    with suppress(FileNotFoundError, ProcessLookupError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return 0
