"""A run that is killed at each thing that it does to the disk, in turn; test_journal starts it as a process.

    python -m tests.scanline.scoring.kills OUTPUT

For each moment a child makes the table and kills itself there, another resumes, and the table must be as if nothing had
happened. It ends when a child gets through unharmed, and prints how many were killed.
"""

from __future__ import annotations

import math
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path

from scanline.prediction import Prediction
from scanline.scoring import journal as journal_module
from scanline.scoring.engine import Batch
from scanline.scoring.entry import Entry
from scanline.scoring.journal import Kind, journal, place
from scanline.scoring.rows import Columns
from scanline.scoring.score import score

FILES = 700  # a few batches
DISK = ("open", "os.", "shutil.")


class Fake:
    """Answers with the last digit of the name."""

    version = "fake"

    def run(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, list[Prediction]]]:
        for batch in batches:
            yield batch, [Prediction(digit=int(str(image)[-5]), confidence=0.5) for image in batch.images]


def make(output: Path) -> None:
    entries = (Entry(f"{number}.png", label=number // 10 % 10) for number in range(FILES))
    columns = Columns(labels=True)
    with place(output, columns), journal(output, Kind("fake", None, columns), resume=True) as kept:
        tally = score(entries, Fake(), kept, int)
    assert sum(tally.statuses.values()) == FILES
    assert sum(map(sum, tally.confusion)) == FILES


def die_at(moment: int) -> None:
    moments = count(1)

    def hook(event: str, arguments: object) -> None:
        if event.startswith(DISK) and next(moments) == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def in_a_child(output: Path, moment: int = 0) -> int:
    """Make the table in a process of its own, killed at a moment; give its wait status."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    die_at(moment)
    make(output)
    os._exit(0)


def main() -> None:
    journal_module.PART_ROWS = 200  # type: ignore[misc] # several parts
    journal_module.PART_SECONDS = math.inf  # type: ignore[misc] # the same ones however slow the machine
    output = Path(sys.argv[1])
    in_a_child(output)
    whole = output.read_bytes()
    output.unlink()
    for moment in count(1):
        if not in_a_child(output, moment):
            break
        assert in_a_child(output) == 0, f"killed at {moment}, it can't be resumed"
        assert output.read_bytes() == whole, f"killed at {moment}, the table differs"
        assert [path.name for path in output.parent.iterdir()] == [output.name]
        output.unlink()
    assert output.read_bytes() == whole
    sys.stdout.write(f"{moment - 1}\n")


if __name__ == "__main__":
    main()
