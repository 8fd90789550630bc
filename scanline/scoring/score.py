"""The loop: entries to batches, batches to an engine, its answers to the journal."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from scanline.errors import InputError
from scanline.scoring.engine import Engine, batched
from scanline.scoring.entry import Entry
from scanline.scoring.journal import Journal
from scanline.scoring.tally import Tally


def score(entries: Iterator[Entry], engine: Engine, journal: Journal, advance: Callable[[int], object]) -> Tally:
    """Read what the journal does not hold yet, complete the table, and give what it amounts to.

    Args:
        entries: all that is to be read, from the first on.
        engine: reads them.
        journal: of the table.
        advance: is told how many files have been done since the last time.

    Raises:
        InputError: there was nothing to read.
        ScanlineError: the engine or the disk gave up; what was done is kept.
    """
    for batch, predictions in engine.run(batched(journal.rest(entries))):
        journal.add(batch, predictions)
        advance(len(predictions))
    tally = journal.state.tally
    if not any(tally.statuses.values()):  # an empty table in the place of an old one would be a loss
        raise InputError("there is nothing to read in the list on standard input; nothing was written")
    journal.finish()
    return tally
