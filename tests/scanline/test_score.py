"""Folders of image files to a table, a row a file."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from scanline import Reader, samples
from scanline.errors import ScanlineError, UsageError
from scanline.prediction import Prediction
from scanline.score import CHUNK, COLUMNS, find, score, writing
from serve.lifecycle import Server
from serve.settings import ServeSettings

PNG = samples.files()[0].read_bytes()


def command(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SCANLINE_")} | variables
    line = [sys.executable, "-m", "scanline", "score", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, env=environment, check=False)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def names(folder: Path, found: Iterable[Path]) -> list[str]:
    return [str(path.relative_to(folder)) for path in found]


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Folders with every sample, among files that are no images and two that are broken."""
    folder = tmp_path / "scans"
    for file in samples.files():
        target = folder / file.suffix[1:] / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    (folder / "notes.txt").write_text("not an image")
    (folder / "broken.PNG").write_text("not an image, though it says so")
    (folder / "png" / "cut.png").write_bytes(PNG[: len(PNG) // 2])
    return folder


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = Server(ServeSettings(listen="127.0.0.1:0"))
    server.start()
    life = threading.Thread(target=server.run_until_stopped)
    life.start()
    yield server.address
    server.ask_to_stop()
    life.join()


def test_folders_are_gone_through_in_order(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/10.JPG", "b/a/1.bmp", "a.d/x.jpeg", "z.png", "A.png", "c.tif", "d/only.txt", ".png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "lost.png").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to(tmp_path)
    expected = ["A.png", "lost.png", "z.png", "a.d/x.jpeg", "b/10.JPG", "b/2.png", "b/a/1.bmp"]
    assert names(tmp_path, find([str(tmp_path)])) == expected
    again = [str(tmp_path / "b"), str(tmp_path / "A.png"), str(tmp_path / "c.tif")]
    assert names(tmp_path, find(again)) == ["b/10.JPG", "b/2.png", "b/a/1.bmp", "A.png", "c.tif"]


def test_patterns_match_image_files(tmp_path: Path) -> None:
    for name in ("a/2.png", "a/1.png", "b/c/3.png", "b/c/3.txt", "b/[4].png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert names(tmp_path, find([str(tmp_path / "*/*.png")])) == ["a/1.png", "a/2.png", "b/[4].png"]
    assert names(tmp_path, find([str(tmp_path / "b/**")])) == ["b/[4].png", "b/c/3.png"]
    assert names(tmp_path, find([str(tmp_path / "b/[4].png")])) == ["b/[4].png"]  # a file's own name comes first
    with pytest.raises(UsageError, match=r"there is no file or folder '.*none'"):
        list(find([str(tmp_path / "none")]))


def test_a_folder_that_cannot_be_listed_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    (tmp_path / "open.png").touch()
    scandir = os.scandir

    def refusing(folder: str) -> Iterator[os.DirEntry[str]]:
        if folder == str(closed):  # by permissions this can't be had where the tests run as root
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    assert names(tmp_path, find([str(tmp_path)])) == ["open.png", "closed"]


def test_every_file_is_a_row_with_the_reader_s_answer(scans: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    result = command(scans, "--output", output)
    assert result.returncode == 1
    assert "2 of 14 files could not be read; their rows say why" in result.stderr
    rows = table(output)
    assert [row["path"] for row in rows] == [str(path) for path in find([str(scans)])]
    assert list(rows[0]) == ["path", "digit", "confidence", "status", "reason", "error"]
    with Reader() as reader:
        answers = reader.classify([row["path"] for row in rows])
    for row, answer in zip(rows, answers, strict=True):
        assert row["status"] == answer.status
        assert row["error"] == (answer.error or "")
        assert row["digit"] == ("" if answer.digit is None else str(answer.digit))
        assert row["confidence"] == ("" if answer.confidence is None else str(round(answer.confidence, 6)))
    broken = {Path(row["path"]).name: row for row in rows if row["status"] == "error"}
    assert broken["broken.PNG"]["error"] == "the file's format can't be read; expected PNG, JPEG, BMP, TIFF or WebP"
    assert broken["cut.png"]["error"].startswith("the image is damaged or cut short")
    assert not list(tmp_path.glob("*.partial"))


def test_json_lines_hold_the_same_as_csv(scans: Path, tmp_path: Path) -> None:
    files = list(find([str(scans)]))
    with Reader() as reader:
        for name in ("out.csv", "out.jsonl"):
            with writing(tmp_path / name) as write:
                assert score(files, reader, write, int) == Counter(ok=12, error=2)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [list(line) for line in lines] == [COLUMNS] * 14
    as_text = [{key: "" if value is None else str(value) for key, value in line.items()} for line in lines]
    assert as_text == table(tmp_path / "out.csv")
    assert {type(line["digit"]) for line in lines} == {int, type(None)}


def test_a_server_gives_the_same_rows(scans: Path, tmp_path: Path, address: str) -> None:
    assert command(scans, "--output", tmp_path / "local.csv").returncode == 1
    result = command(scans, "--output", tmp_path / "remote.csv", SCANLINE_SCORE_SERVER=address)
    assert result.returncode == 1, result.stderr
    local, remote = table(tmp_path / "local.csv"), table(tmp_path / "remote.csv")
    for one, other in zip(local, remote, strict=True):
        assert one["confidence"] == other["confidence"] == "" or float(one["confidence"]) == pytest.approx(
            float(other["confidence"]), abs=2e-6
        )
        assert {**one, "confidence": None} == {**other, "confidence": None}


def test_difficult_names_survive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    monkeypatch.chdir(folder)
    plain = ['quote",comma.png', "two\nlines.png", "größe 数字.png", "semi;colon.png"]
    for name in [*plain, "=1+1.png", "@x.png", os.fsdecode(b"caf\xe9.png")]:
        Path(name).write_bytes(PNG)
    files = sorted(path.name for path in Path().iterdir())
    with Reader() as reader, writing(tmp_path / "out.csv") as write:
        assert score(find(files), reader, write, int) == Counter(ok=len(files))
    found = [row["path"] for row in table(tmp_path / "out.csv")]
    assert set(plain) < set(found)
    assert set(found) - set(plain) == {"./=1+1.png", "./@x.png", r"caf\udce9.png"}


class GoneError(Exception):
    """Stands for whatever may end a run."""


def test_an_ended_run_leaves_the_old_table(tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    output.write_text("old")
    with pytest.raises(GoneError), writing(output):
        raise GoneError
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]
    assert output.read_text() == "old"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_said(tmp_path: Path) -> None:
    (tmp_path / "out.csv.partial").symlink_to("/dev/full")
    with (
        pytest.raises(ScanlineError, match=r"can't write .*out\.csv: No space left on device"),
        writing(tmp_path / "out.csv"),
    ):
        pass
    assert not list(tmp_path.iterdir())


class Counting:
    """A classifier that remembers how much it was given at once, and how far the file names have been read by then."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.seen: list[int] = []
        self.drawn = 0

    def paths(self, count: int) -> Iterator[Path]:
        for number in range(count):
            self.drawn += 1
            yield Path(f"{number}.png")

    def classify(self, images: Iterable[Path]) -> list[Prediction]:
        given = list(images)
        self.sizes.append(len(given))
        self.seen.append(self.drawn)
        return [Prediction(digit=int(path.stem) % 10, confidence=1.0) for path in given]


def test_memory_does_not_grow_with_the_files(tmp_path: Path) -> None:
    counting, done = Counting(), [0]
    with writing(tmp_path / "out.csv") as write:
        statuses = score(counting.paths(5 * CHUNK + 3), counting, write, done.append)
    assert counting.sizes == [CHUNK] * 5 + [3]
    assert counting.seen == [CHUNK, 2 * CHUNK, 3 * CHUNK, 4 * CHUNK, 5 * CHUNK, 5 * CHUNK + 3]
    assert sum(done) == statuses["ok"] == 5 * CHUNK + 3
    assert [row["digit"] for row in table(tmp_path / "out.csv")] == [str(n % 10) for n in range(5 * CHUNK + 3)]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["{scans}", "--output", "{out}/o.xls"], 2, "--output ends in .csv or .jsonl, not 'o.xls'"),
        (["{scans}", "--output", "{out}/none/o.csv"], 2, "can't write --output {out}/none/o.csv: No such file"),
        (["{scans}"], 2, "--output is missing"),
        (["{out}/none", "--output", "{out}/o.csv"], 2, "there is no file or folder '{out}/none'"),
        (
            ["{scans}/*.gif", "--output", "{out}/o.csv"],
            1,
            "there is no PNG, JPEG or BMP file in {scans}/*.gif",
        ),
        (["{scans}", "--output", "{out}/o.csv", "--model", "m", "--server", "s:1"], 2, "exclude each other"),
        (["{scans}", "--output", "{out}/o.csv", "--server", "127.0.0.1:1"], 1, "no answer from 127.0.0.1:1"),
    ],
    ids=["suffix", "no such folder", "no output", "no such input", "no match", "both engines", "no server"],
)
def test_wrong_use_is_said_and_writes_nothing(
    scans: Path, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    result = command(*(argument.format(scans=scans, out=tmp_path) for argument in arguments))
    assert result.returncode == code, result.stderr
    assert words.format(scans=scans, out=tmp_path) in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["scans"]


def test_a_folder_is_no_output(tmp_path: Path) -> None:
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(UsageError, match=r"out\.csv is a folder; expected a file"), writing(tmp_path / "out.csv"):
        pass


def test_all_read_is_exit_code_0(scans: Path, tmp_path: Path) -> None:
    result = command(scans / "jpg", scans / "bmp", "--output", tmp_path / "out.jsonl")
    assert result.returncode == 0, result.stderr
    assert "5 files in" in result.stdout
    assert result.stderr == ""
