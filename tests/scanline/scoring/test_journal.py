"""What is kept through a kill, an error and a second run."""

from __future__ import annotations

import csv
import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import IO, Any, NoReturn

import pytest

from scanline.errors import ScanlineError, UsageError
from scanline.prediction import Prediction
from scanline.scoring import journal as module
from scanline.scoring.engine import BATCH_FILES, Batch
from scanline.scoring.entry import Entry
from scanline.scoring.journal import Kind, journal, place
from scanline.scoring.rows import Columns
from scanline.scoring.score import score
from tests.scanline.scoring.kills import Fake

KIND = Kind("fake", None, Columns())


def entries(number: int) -> Iterator[Entry]:
    return (Entry(f"{number}.png") for number in range(number))


def run(output: Path, found: Iterator[Entry], engine: Fake, *, kind: Kind = KIND, resume: bool = True) -> None:
    with place(output, kind.columns), journal(output, kind, resume=resume) as kept:
        score(found, engine, kept, int)


def paths(output: Path) -> list[str]:
    with output.open(newline="") as file:
        return [row["path"] for row in csv.DictReader(file)]


class Failing(Fake):
    """Ends with an error after a number of batches; remembers what it was given."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.given: list[str] = []

    def run(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, list[Prediction]]]:
        for number, (batch, predictions) in enumerate(super().run(batches)):
            if number == self.after:
                raise ScanlineError("the server is gone")
            self.given += map(str, batch.images)
            yield batch, predictions


def test_a_kill_at_any_moment_loses_no_row_and_writes_none_twice(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "tests.scanline.scoring.kills", str(tmp_path / "out.csv")]
    result = subprocess.run(line, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 30


def test_an_error_keeps_what_was_done_and_the_old_table(tmp_path: Path) -> None:
    output, engine = tmp_path / "out.csv", Failing(after=2)
    output.write_text("old")
    with pytest.raises(ScanlineError, match="the server is gone"):
        run(output, entries(500), engine)
    assert output.read_text() == "old"
    rest = Failing(after=10)
    run(output, entries(500), rest)
    assert engine.given + rest.given == paths(output) == [f"{n}.png" for n in range(500)]
    assert len(engine.given) == 2 * BATCH_FILES
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_without_resume_it_starts_anew(tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    with pytest.raises(ScanlineError):
        run(output, entries(500), Failing(after=2))
    engine = Failing(after=10)
    run(output, entries(300), engine, resume=False)
    assert engine.given == paths(output) == [f"{n}.png" for n in range(300)]


def test_a_run_that_did_nothing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ScanlineError):
        run(tmp_path / "out.csv", entries(10), Failing(after=0))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("found", "kind", "words"),
    [
        ([*(f"{n}.png" for n in range(100)), "new.png"], KIND, "the files of the 256 rows .* are no longer the same"),
        ([f"{n}.png" for n in range(99)], KIND, "the files of the 256 rows .* are no longer the same"),
        ([], Kind("other", None, Columns()), "were made with the model fake, not the model other; start again without"),
        ([], Kind("fake", 0.5, Columns()), "with no --min-confidence, not --min-confidence 0.5; start again without"),
        (
            [],
            Kind("fake", None, Columns(labels=True, probabilities=True)),
            "with no labels, no --probabilities, not labels, --probabilities; start again without",
        ),
    ],
)
def test_another_run_is_not_gone_on_with(tmp_path: Path, found: list[str], kind: Kind, words: str) -> None:
    output = tmp_path / "out.csv"
    with pytest.raises(ScanlineError):
        run(output, entries(500), Failing(after=2))
    with pytest.raises(UsageError, match=words):
        run(output, iter([Entry(name) for name in found] * 3), Fake(), kind=kind)
    run(output, entries(500), Fake())
    assert len(paths(output)) == 500


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"{}", b'{"tally": {}}', b'{"tally": {}, "kind": 1}'])
def test_a_damaged_state_is_not_gone_on_with(tmp_path: Path, content: bytes) -> None:
    output = tmp_path / "out.csv"
    with pytest.raises(ScanlineError):
        run(output, entries(500), Failing(after=2))
    (tmp_path / "out.csv.partial" / "state.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"state\.json is damaged; start again without --resume"):
        run(output, entries(500), Fake())
    run(output, entries(500), Fake(), resume=False)
    assert len(paths(output)) == 500


def test_two_runs_do_not_write_one_table(tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    with place(output, KIND.columns), pytest.raises(UsageError, match=r"another run is writing .*out\.csv"):
        run(output, entries(1), Fake())


@pytest.mark.parametrize("again", [False, True])
def test_a_lock_that_an_ending_run_has_removed_holds_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    lock, flock = tmp_path / "out.csv.partial" / "lock", fcntl.flock

    def flock_late(file: IO[str], how: int) -> None:
        lock.unlink()  # by a run that ends between our opening and our locking it
        if again:
            lock.touch()  # by a third that begins
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", flock_late)
    with pytest.raises(UsageError, match=r"another run is writing .*out\.csv"):
        run(tmp_path / "out.csv", entries(1), Fake())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("file", ["000000.csv", "state.json.new", "joined.csv"])
def test_a_full_disk_is_said_and_costs_nothing(tmp_path: Path, file: str) -> None:
    output, folder = tmp_path / "out.csv", tmp_path / "out.csv.partial"
    folder.mkdir()
    (folder / file).symlink_to("/dev/full")
    with pytest.raises(ScanlineError, match=r"can't write .*out\.csv: No space left on device"):
        run(output, entries(500), Fake())
    (folder / file).unlink(missing_ok=True)
    run(output, entries(500), Fake())
    assert paths(output) == [f"{n}.png" for n in range(500)]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("after", [0, 10])
def test_a_file_system_that_keeps_open_files_hinders_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    output, lock, remove = tmp_path / "out.csv", tmp_path / "out.csv.partial" / "lock", os.rmdir

    def remove_as_on_nfs(path: str | Path, **options: Any) -> None:
        for file in Path("/proc/self/fd").iterdir():
            with suppress(FileNotFoundError):
                if str(file.readlink()).startswith(str(lock)):
                    raise OSError(errno.ENOTEMPTY, "Directory not empty", path)
        remove(path, **options)

    monkeypatch.setattr(os, "rmdir", remove_as_on_nfs)
    with nullcontext() if after else pytest.raises(ScanlineError, match="the server is gone"):
        run(output, entries(300), Failing(after))
    assert [path.name for path in tmp_path.iterdir()] == (["out.csv"] if after else [])


def test_a_folder_that_cannot_be_removed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str | Path, **_: Any) -> NoReturn:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "rmdir", refuse)
    with pytest.raises(PermissionError):
        run(tmp_path / "out.csv", entries(10), Fake())


def test_a_folder_is_no_output(tmp_path: Path) -> None:
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(UsageError, match=r"out\.csv is a folder; expected a file"):
        run(tmp_path / "out.csv", entries(1), Fake())


def test_parts_are_bounded_in_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "out.csv"
    monkeypatch.setattr(module, "PART_ROWS", 2 * BATCH_FILES)
    with place(output, KIND.columns), journal(output, KIND, resume=False) as kept:
        for number, (batch, predictions) in enumerate(Fake().run(_batches(5))):
            kept.add(batch, predictions)
            assert kept.state.rows == (number + 1) // 2 * 2 * BATCH_FILES


def _batches(number: int) -> Iterator[Batch]:
    for _ in range(number):
        yield Batch(list(entries(BATCH_FILES)), [f"{n}.png" for n in range(BATCH_FILES)])
