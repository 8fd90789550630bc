"""`scanline score`: reads folders, archives and lists of image files into a CSV, JSON lines or Parquet file."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict
from rich.table import Column, Table

from scanline import console, signals
from scanline.commands.engine import EngineSettings, engine
from scanline.contract import LABELS
from scanline.decode import FORMATS
from scanline.errors import InputError, ScanlineError, UsageError
from scanline.machine import cores
from scanline.scoring import formats
from scanline.scoring.engine import Engine, open_reader
from scanline.scoring.inputs import Others, count, find, manifests
from scanline.scoring.journal import Kind, journal, kept_rows, place
from scanline.scoring.rows import Columns
from scanline.scoring.score import score
from scanline.scoring.tally import Tally, accuracy
from scanline.settings import POSITIONAL, flag, given


class Settings(EngineSettings):
    """Read images into a table, a row a file: path, digit, confidence, status, reason, error, model.

    A file that can't be read is a row with its error; the exit code is then 1.
    """

    model_config = SettingsConfigDict(env_prefix="SCANLINE_SCORE_")

    paths: tuple[str, ...] = Field(
        description="folders, image files, patterns such as 'scans/**/*.png', .zip and .tar archives, IDX files, "
        "CSV files with the columns path and label, and - for a list on standard input",
        json_schema_extra={POSITIONAL: True},
    )
    output: Path = Field(
        description="the table to write, OUT.csv, OUT.jsonl or OUT.parquet; an old one is replaced at the end"
    )
    resume: bool = Field(False, description="go on where an earlier run of the same command ended or was killed")
    probabilities: bool = Field(False, description="add the columns p0 to p9")
    engine: Literal["local", "ray"] = Field(
        "local", description="who reads: processes here, or the Ray cluster that RAY_ADDRESS names"
    )
    processes: int = Field(default_factory=cores, ge=1, description="how many the local engine starts")

    @field_validator("output")
    @classmethod
    def _is_table(cls, value: Path) -> Path:
        target = Path(os.path.realpath(value)) if value.is_symlink() else value
        if target.suffix not in formats.FORMATS:
            leads = ", and so should what it leads to" if target != value else ""
            raise ValueError(f"should end in {', '.join(formats.FORMATS)}{leads}")
        return target

    @model_validator(mode="after")
    def _replaces_no_input(self) -> Self:
        if self.output.exists():
            for path in map(Path, (*self.paths, *manifests(self.paths))):
                if path.exists() and path.samefile(self.output):
                    raise ValueError(f"{flag('output')} {self.output} is what is to be read; name another file")
        return self

    @model_validator(mode="after")
    def _has_one_engine(self) -> Self:
        if self.engine == "ray" and self.server is not None:
            raise ValueError("--engine ray and --server exclude each other: either a cluster reads or a server does")
        if "processes" in self.model_fields_set and (self.engine == "ray" or self.server is not None):
            other = "--engine ray" if self.server is None else "--server"
            raise ValueError(f"{given(self, ['processes'])} with {other}: only the local engine starts processes")
        return self


def run(settings: Settings) -> int:
    """Write the table and print how it went; 1 if some files could not be read."""
    signals.end_in_good_order()  # a second signal ends the process at once, which loses no row either
    labels, others = any(manifests(settings.paths)), Others()
    columns = Columns(labels=labels, probabilities=settings.probabilities)
    try:
        with _engine(settings) as reader, place(settings.output, columns):  # it gets ready while the files are counted
            total = count(settings.paths)
            if total == 0:
                named = ", ".join(settings.paths)
                hint = "; in a pattern [b] is one letter, a name's [ is written [[]" if "[" in named else ""
                raise InputError(f"there is nothing to read in {named}; expected {FORMATS} files{hint}")
            kind = Kind(reader.version, settings.min_confidence, columns)
            with journal(settings.output, kind, resume=settings.resume) as kept, console.progress("files") as progress:
                before, started = kept.state.rows, time.perf_counter()
                task = progress.add_task("scoring", total=total, completed=before)
                tally = score(find(settings.paths, others), reader, kept, lambda done: progress.advance(task, done))
                seconds = time.perf_counter() - started
    except (ScanlineError, KeyboardInterrupt, SystemExit) as error:
        if not isinstance(error, UsageError) and (folder := kept_rows(settings.output)) is not None:
            console.err.print(f"the rows so far are in {folder}; the same command with --resume goes on")
        elif not isinstance(error, ScanlineError):
            console.err.print("no row is kept yet")
        raise
    files = sum(tally.statuses.values())
    console.out.print(_summary(tally, before, seconds))
    if labels:
        _print_labels(tally)
    if others.number:
        console.out.print(f"passed over: {others.number:,} {'file' if others.number == 1 else 'files'} of other kinds")
    console.out.print(f"written to {settings.output}")
    if errors := tally.statuses["error"]:
        for line in tally.errors:
            console.err.print(line)
        console.error(f"{errors:,} of {files:,} files could not be read; their rows say why")
    return int(errors > 0)


@contextmanager
def _engine(settings: Settings) -> Iterator[Engine]:
    if settings.server is not None:
        from scanline.client import Client
        from scanline.scoring.remote import Remote

        with engine(settings) as client:
            assert isinstance(client, Client)  # a server is named
            yield Remote(client, probabilities=settings.probabilities)
        return

    load = partial(open_reader, settings.model, settings.min_confidence)
    if settings.engine == "ray":
        from scanline.scoring.cluster import Cluster

        yield Cluster(load, probabilities=settings.probabilities)
    else:
        from scanline.scoring.local import Local

        with Local(load, processes=settings.processes, probabilities=settings.probabilities) as local:
            yield local


def _summary(tally: Tally, before: int, seconds: float) -> Table:
    done = sum(tally.statuses.values()) - before
    earlier = f", after {before:,} of earlier runs" if before else ""
    table = Table("status", "files", title=f"{done:,} {'file' if done == 1 else 'files'} in {seconds:,.1f} s{earlier}")
    table.columns[1].justify = "right"
    for status, number in tally.statuses.items():
        table.add_row(status, f"{number:,}")
    table.caption = f"{done / seconds:,.0f} files/s"
    return table


def _print_labels(tally: Tally) -> None:
    if any(map(any, tally.confusion)):
        console.out.print(_confusion(tally))
        console.out.print(f"labelled files: {accuracy(tally.confusion)}; without rejected: {accuracy(tally.accepted)}")
    if tally.unread:
        console.out.print(f"labelled files that could not be read: {tally.unread:,}")


def _confusion(tally: Tally) -> Table:
    # up to 999999 of each digit fit a terminal of 80 columns; where they don't, they are folded, not cut
    columns = [Column(digit, justify="right", min_width=5, overflow="fold") for digit in LABELS]
    table = Table("label", *columns, title="labels, and as what they were read", box=None, padding=(0, 1, 0, 0))
    for label, numbers in zip(LABELS, tally.confusion, strict=True):
        table.add_row(label, *(str(number or "") for number in numbers))
    return table
