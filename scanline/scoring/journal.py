"""What is done of a table, kept so that a kill at any moment loses no row and writes none twice.

While a run lasts, `OUTPUT.partial` is a folder:

    state.json      how many parts count, how many rows they hold, a checksum of what was read for them, and the tally
    000000.csv ...  the parts

A part is written and synced before a state that counts it takes the place of the last one; a part that no state counts
is written again. `--resume` goes past as many entries as the state has rows, and compares their checksum. At the end
the parts are joined into a file that takes the output's name in one step; only then does the folder go. A kill in
between has the parts joined again.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, Final

from scanline.errors import ScanlineError, UsageError
from scanline.lock import held
from scanline.prediction import Prediction
from scanline.scoring.engine import Batch
from scanline.scoring.entry import Entry
from scanline.scoring.formats import FORMATS, format_of
from scanline.scoring.rows import Columns, Row
from scanline.scoring.tally import Tally

# A part is closed when it has this many rows, which memory holds, or when rows come after this many seconds. A kill
# costs what no part has yet.
PART_ROWS: Final = 10_000
PART_SECONDS: Final = 5.0
PARTIAL: Final = ".partial"
STATE: Final = "state.json"
LOCK: Final = "lock"


@dataclass(frozen=True, slots=True)
class Kind:
    """What must be the same for two runs to write one table.

    Attributes:
        model: the version of the model that reads the files.
        min_confidence: answers of less confidence are rejected; None for the bound in the model's card.
        columns: the table's columns.
    """

    model: str
    min_confidence: float | None
    columns: Columns

    def said(self) -> list[str]:
        """Give each of them in words."""
        return [
            f"the model {self.model}",
            "no --min-confidence" if self.min_confidence is None else f"--min-confidence {self.min_confidence}",
            "labels" if self.columns.labels else "no labels",
            "--probabilities" if self.columns.probabilities else "no --probabilities",
        ]


@dataclass(slots=True)
class State:
    """What `state.json` holds.

    Attributes:
        kind: the run's, as JSON types.
        parts: how many parts count.
        rows: how many rows they hold.
        checksum: of the entries that they are of.
        tally: what they amount to.
    """

    kind: dict[str, Any]
    parts: int = 0
    rows: int = 0
    checksum: str = ""
    tally: Tally = field(default_factory=Tally)


class Journal:
    """Takes the rows of a table in the making; made by `journal`."""

    def __init__(self, output: Path, kind: Kind, state: State) -> None:
        self.state = state
        self._output = output
        self._folder = partial_folder(output)
        self._kind = kind
        self._format = format_of(output, kind.columns.names())
        self._checksum = blake2b(digest_size=16)
        self._rows: list[Row] = []
        self._since = time.monotonic()

    def rest(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        """Go past the entries whose rows are kept, and give the others.

        Raises:
            UsageError: the entries are not those of the kept rows.
        """
        gone = 0
        for entry in islice(entries, self.state.rows):
            self._note(entry)
            gone += 1
        if gone < self.state.rows or (gone and self._checksum.hexdigest() != self.state.checksum):
            raise UsageError(
                f"the files of the {self.state.rows:,} rows in {self._folder} are no longer the same: some were added, "
                f"renamed or taken away; start again without --resume"
            )
        return entries

    def add(self, batch: Batch, predictions: Sequence[Prediction]) -> None:
        """Take the rows of a batch.

        Raises:
            ScanlineError: the disk is full or gone.
        """
        for entry, prediction in zip(batch.entries, predictions, strict=True):
            self._note(entry)
            self._rows.append(self._kind.columns.row(entry, prediction, self._kind.model))
        self.state.tally.add(batch.entries, predictions)
        if len(self._rows) >= PART_ROWS or time.monotonic() - self._since >= PART_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Keep what was taken.

        Raises:
            ScanlineError: the disk is full or gone.
        """
        rows, self._rows = self._rows, []  # a commit that failed is not tried again: its rows would count twice
        self._since = time.monotonic()
        if not rows:
            return
        with self._writing():
            part = self._part(self.state.parts)
            self._format.write(part, rows)
            _sync(part)
            self.state.parts += 1
            self.state.rows += len(rows)
            self.state.checksum = self._checksum.hexdigest()
            new = self._folder / f"{STATE}.new"
            new.write_text(json.dumps(asdict(self.state)), encoding="utf-8")
            _sync(new)
            new.replace(self._folder / STATE)

    def finish(self) -> None:
        """Join the parts into the table.

        Raises:
            ScanlineError: the disk is full or gone.
        """
        self.commit()
        parts = map(self._part, range(self.state.parts))
        with self._writing():
            joined = self._folder / f"joined{self._output.suffix}"
            self._format.join(joined, parts)
            _sync(joined)
            joined.replace(self._output)
        (self._folder / STATE).unlink(missing_ok=True)  # first, since it can't be resumed from some of the parts
        _remove(self._folder)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ScanlineError(f"can't write {self._output}: {error.strerror or error}") from None

    def _part(self, number: int) -> Path:
        return self._folder / f"{number:06}{self._output.suffix}"

    def _note(self, entry: Entry) -> None:
        self._checksum.update(f"{entry.name}\0{entry.label}\0".encode(errors="surrogateescape"))


def partial_folder(output: Path) -> Path:
    """Give the folder of an output in the making."""
    return output.with_name(f"{output.name}{PARTIAL}")


def is_partial(name: str) -> bool:
    """Say whether a folder's name is that of an output in the making."""
    return name.endswith(tuple(suffix + PARTIAL for suffix in FORMATS))


def kept_rows(output: Path) -> Path | None:
    """Give the folder with the rows that a run has kept of an output; None where there are none."""
    folder = partial_folder(output)
    return folder if (folder / STATE).exists() else None


@contextmanager
def place(output: Path, columns: Columns) -> Iterator[None]:
    """Hold the place of a table, for `journal`; rows that an earlier run kept there stay as they are.

    Args:
        output: the table.
        columns: its columns.

    Raises:
        UsageError: nothing can be written there, or another run is writing it.
        MissingExtraError: what writes such a table is not installed.
    """
    format_of(output, columns.names())
    if output.is_dir():
        raise UsageError(f"--output {output} is a folder; expected a file")
    folder = partial_folder(output)
    with ExitStack() as end:
        end.callback(_tidy, folder, output)  # first: an end may come at any moment from here
        try:
            folder.mkdir(exist_ok=True)
            lock = (folder / LOCK).open("w")
        except NotADirectoryError:
            file = next(place for place in output.parents if place.exists())
            raise UsageError(f"can't write --output {output}: {file} is a file; expected a folder") from None
        except OSError as error:
            raise UsageError(f"can't write --output {output}: {error.strerror}") from None
        end.enter_context(held(lock, output))
        yield


@contextmanager
def journal(output: Path, kind: Kind, *, resume: bool) -> Iterator[Journal]:
    """Open the journal of a table. What was committed stays when the block ends with an error, for `resume`.

    Args:
        output: the table, whose `place` is held; an old one is replaced when the new one is complete.
        kind: what the run does.
        resume: whether to go on after the rows that an earlier run kept; where there are none it starts anew.

    Raises:
        UsageError: the earlier run was of another kind, or its state is damaged.
        ScanlineError: the disk is full or gone.
    """
    kept = Journal(output, kind, _state(partial_folder(output), kind, resume=resume))
    try:
        yield kept
    except ScanlineError:
        kept.commit()
        raise


def _remove(folder: Path) -> None:
    """Remove a folder unless something stays in it: NFS keeps an open file, such as the lock, under another name."""
    try:
        shutil.rmtree(folder)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise


def _tidy(folder: Path, output: Path) -> None:
    """Remove a folder without rows, unless another run has it."""
    with suppress(OSError, UsageError), (folder / LOCK).open("a") as lock, held(lock, output):
        if not (folder / STATE).exists():
            shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # where the lock, while it was open, stayed under another name
        folder.rmdir()


def _state(folder: Path, kind: Kind, *, resume: bool) -> State:
    """Read an earlier run's state, or begin a new one, which overwrites the parts that are there."""
    path = folder / STATE
    if not (resume and path.exists()):
        path.unlink(missing_ok=True)
        return State(asdict(kind))
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        state = State(**content | {"tally": Tally(**content["tally"])})
        earlier = Kind(**state.kind | {"columns": Columns(**state.kind["columns"])})
    except (ValueError, TypeError, KeyError):
        raise UsageError(f"{path} is damaged; start again without --resume") from None
    if earlier != kind:
        pairs = [pair for pair in zip(earlier.said(), kind.said(), strict=True) if pair[0] != pair[1]]
        were, are = (", ".join(words) for words in zip(*pairs, strict=True))
        raise UsageError(f"the rows in {folder} were made with {were}, not {are}; start again without --resume")
    return state


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
