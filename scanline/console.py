"""What a person sees: tables and progress on a terminal, plain lines elsewhere; errors in red."""

from __future__ import annotations

import re
from typing import Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def visible(text: str) -> str:
    """Write control characters out as Python does: one in a file's name could clear the terminal, or break a table."""
    return CONTROL.sub(lambda control: repr(control[0])[1:-1], text)


def error(message: str) -> None:
    """Print an error on one line of stderr."""
    err.print("[bold red]error:[/]", end=" ")
    err.print(visible(message), markup=False)


class _RateColumn(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(self._unit if speed is None else f"{self._unit}, {speed:,.0f}/s")


def progress(unit: str) -> Progress:
    """Give a progress bar on stderr that shows count, rate and time left, and nothing where there is no terminal."""
    return Progress(
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
        disable=not err.is_terminal,
    )
