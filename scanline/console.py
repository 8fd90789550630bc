"""What a person sees: tables and progress on a terminal, plain lines elsewhere; errors in red."""

from __future__ import annotations

import os
import re
from typing import Any, Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

# Control characters, and what stands for bytes of a file's name that are no UTF-8.
UNFIT: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

# The characters of a line where there is no edge to fold it at: files and programs get a row of a table on one line.
UNFOLDED: Final = 2**16


def visible(text: str) -> str:
    """Write characters out as Python does that a terminal must not get: one of a file's name could clear it."""
    return UNFIT.sub(lambda character: repr(character[0])[1:-1], text)


class PlainConsole(Console):
    """Takes a string for what others may have written: it is one line, without markup, and `visible`.

    What has a style or several lines is a `rich.text.Text`.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=True)
        is_told = os.environ.get("COLUMNS", "").strip("0").isdigit()  # 0 is what a terminal says that does not know
        if not is_told and (self.width == 0 or not self.is_terminal):
            self.width = UNFOLDED

    def render_str(self, text: str, **options: Any) -> Text:
        """Give a string of a line, a table or a title as a `Text`."""
        return super().render_str(visible(text), **options)


out = PlainConsole()
err = PlainConsole(stderr=True)


def error(message: str) -> None:
    """Print an error on one line of stderr."""
    err.print(Text("error:", "bold red"), message)


class _NameColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(visible(task.description), "progress.description")


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
        _NameColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
        disable=not err.is_terminal,
    )
