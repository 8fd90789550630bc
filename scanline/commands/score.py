"""`scanline score`: reads folders of image files into a CSV or JSON lines file."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from rich.table import Table

from scanline import console
from scanline.commands.engine import EngineSettings, engine
from scanline.errors import InputError
from scanline.score import find, score, writing
from scanline.settings import POSITIONAL


class Settings(EngineSettings):
    """Read every PNG, JPEG and BMP file in folders into a table: path, digit, confidence, status, reason, error.

    A file that can't be read is a row with its error; the exit code is then 1.
    """

    model_config = SettingsConfigDict(env_prefix="SCANLINE_SCORE_")

    paths: tuple[str, ...] = Field(
        description="folders, image files, or patterns such as 'scans/**/*.png'", json_schema_extra={POSITIONAL: True}
    )
    output: Path = Field(description="the table to write, OUT.csv or OUT.jsonl; an old one is replaced at the end")


def run(settings: Settings) -> int:
    """Write the table and print how it went; 1 if some files could not be read."""
    # Walking the folders twice is cheap beside reading the files, and keeps no list of them in memory.
    total = sum(1 for _ in find(settings.paths))
    if not total:
        raise InputError(f"there is no PNG, JPEG or BMP file in {', '.join(settings.paths)}")
    with (
        engine(settings) as reader,
        writing(settings.output) as write,
        console.progress("files") as progress,
    ):
        started = time.perf_counter()
        task = progress.add_task("scoring", total=total)
        statuses = score(find(settings.paths), reader, write, lambda done: progress.advance(task, done))
        seconds = time.perf_counter() - started
    console.out.print(_summary(statuses, seconds))
    console.out.print(f"written to {settings.output}", markup=False)
    if statuses["error"]:
        console.error(f"{statuses['error']:,} of {statuses.total():,} files could not be read; their rows say why")
    return int(statuses["error"] > 0)


def _summary(statuses: Counter[str], seconds: float) -> Table:
    table = Table("status", "files", title=f"{statuses.total():,} files in {seconds:,.1f} s")
    table.columns[1].justify = "right"
    for status in ("ok", "rejected", "error"):
        table.add_row(status, f"{statuses[status]:,}")
    table.caption = f"{statuses.total() / seconds:,.0f} files/s"
    return table
