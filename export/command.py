"""`scanline export`: builds a run's files, sends each through the gate, and writes those that passed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich import box
from rich.table import Column, Table
from rich.text import Text

from export import golden, latency, publish, report
from export.candidates import WHOLE_FILE, candidates
from export.evidence import Evidence, gather
from export.gate import Outcome, blank_card, examine
from export.settings import Settings
from scanline import console, manifest, signals, verify
from scanline.errors import GateError
from train import checkpoint

__all__ = ["Settings", "run"]

SHOWN_BATCH: Final = 64  # whose images/s the table shows


def run(settings: Settings) -> int:
    """Export a run.

    Returns:
        0, or 1 where a file failed its checks and was left out.

    Raises:
        GateError: the float32 model failed, so nothing was written.
        UsageError: the destination can't be written, or something else is there.
        KeyboardInterrupt, SystemExit: Ctrl-C, SIGTERM; an earlier export is left as it was.
    """
    # What a signal's handler raises can be lost in a library's hands: it is noted, and heeded between the files.
    with signals.deferred() as asked, publish.replacing_folder(settings.out) as folder:
        trained = checkpoint.load(settings.run)
        evidence = gather(trained, settings.data_dir)
        card = blank_card(trained)
        with console.progress("files") as progress:
            bench = progress.track(candidates(evidence.network), description="checking")
            outcomes = []
            for candidate in bench:
                _heed(asked)
                outcomes.append(examine(candidate, card, evidence))
        passed = [outcome for outcome in outcomes if outcome.passed]
        failed = [outcome for outcome in outcomes if not outcome.passed]
        if failed:
            console.err.print(_failures(failed))
        if not any(outcome.candidate.name == WHOLE_FILE for outcome in passed):
            raise GateError(f"{WHOLE_FILE} failed its checks, so nothing was written to {settings.out}")
        times = _write(folder, outcomes, evidence)
        _heed(asked)
    console.out.print(_artifacts(passed, times))
    console.out.print(
        f"{len(passed)} files in {settings.out}, {len(failed)} left out; {settings.out / publish.REPORT} has more"
    )
    return 1 if failed else 0


def _heed(asked: Sequence[int]) -> None:
    """End where a signal, by its number, has asked for it."""
    if asked:
        raise signals.ending(asked[0])


def _write(folder: Path, outcomes: Sequence[Outcome], evidence: Evidence) -> report.Times:
    for outcome in outcomes:
        if outcome.content is not None:
            (folder / outcome.candidate.name).write_bytes(outcome.content)
    golden.write(folder, outcomes)
    manifest.write(folder, outcomes[0].card.name, [path.name for path in folder.iterdir()])
    runs = {path.name: verify.open_run(path.read_bytes(), path) for path in sorted(folder.glob("digits*"))}
    times = latency.measure(runs, evidence.rows)
    report.write(folder / publish.REPORT, outcomes, times, evidence)
    return times


def _artifacts(passed: Sequence[Outcome], times: report.Times) -> Table:
    headers = ("bytes", Text("µs\nfor 1"), Text(f"images/s\nby {SHOWN_BATCH}"), "accuracy", "changed", "checks")
    table = Table(
        Column("file", no_wrap=True),
        *(Column(header, justify="right", no_wrap=True) for header in headers),
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
    )
    for outcome in passed:
        name, figures = outcome.candidate.name, outcome.card.verification
        table.add_row(
            name,
            f"{len(outcome.content or b''):,}",
            f"{times[name][1] * 1e6:,.0f}",
            f"{SHOWN_BATCH / times[name][SHOWN_BATCH]:,.0f}",
            f"{figures['accuracy']:.2%}",
            f"{figures['changed_digits']}",
            str(len(outcome.checks)),
        )
    return table


def _failures(failed: Sequence[Outcome]) -> Table:
    table = Table("file", "check", "what is wrong", title="left out")
    for outcome in failed:
        for check in outcome.checks:
            if not check.passed:
                table.add_row(outcome.candidate.name, check.name, check.detail)
    return table
