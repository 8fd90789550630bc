"""`scanline score` as a person runs it: processes, files, exit codes."""

from __future__ import annotations

import csv
import gzip
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scanline import Reader, samples
from scanline.scoring.inputs import find
from tests.serve.conftest import serving

PNG = samples.files()[0].read_bytes()
COLUMNS = ["path", "digit", "confidence", "status", "reason", "error", "model"]


def environment(**variables: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("SCANLINE_")} | variables


def line(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "scanline", "score", *map(str, arguments)]


def command(*arguments: str | Path, given: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        line(*arguments), capture_output=True, text=True, env=environment(**variables), check=False, input=given
    )


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


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


def test_every_file_is_a_row_with_the_reader_s_answer(scans: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    result = command(scans, "--output", output)
    assert result.returncode == 1
    first, second, last = result.stderr.splitlines()
    assert first.startswith(f"{scans}/broken.PNG: the file's format can't be read; expected PNG")
    assert second.startswith(f"{scans}/png/cut.png: the image is damaged or cut short")
    assert last == "error: 2 of 14 files could not be read; their rows say why"
    rows = table(output)
    assert [row["path"] for row in rows] == [entry.name for entry in find([str(scans)])]
    assert list(rows[0]) == COLUMNS
    with Reader() as reader:
        answers, version = reader.classify([row["path"] for row in rows]), reader.model().file
    for row, answer in zip(rows, answers, strict=True):
        assert row["status"] == answer.status
        assert row["error"] == (answer.error or "")
        assert row["digit"] == ("" if answer.digit is None else str(answer.digit))
        assert row["confidence"] == ("" if answer.confidence is None else str(round(answer.confidence, 6)))
        assert row["model"] == ("" if answer.error else version)
    broken = {Path(row["path"]).name: row for row in rows if row["status"] == "error"}
    assert broken["broken.PNG"]["error"].startswith("the file's format can't be read; expected PNG, JPEG")
    assert broken["cut.png"]["error"].startswith("the image is damaged or cut short")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "scans"]


def test_json_lines_and_parquet_hold_the_same_as_csv(scans: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra parquet")
    for suffix in ("csv", "jsonl", "parquet"):
        result = command(scans, "--output", tmp_path / f"out.{suffix}", "--probabilities")
        assert "2 of 14 files could not be read" in result.stderr
    lines = [json.loads(text) for text in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [list(row) for row in lines] == [[*COLUMNS, *(f"p{digit}" for digit in range(10))]] * 14
    as_text = [{key: "" if value is None else str(value) for key, value in row.items()} for row in lines]
    rows = table(tmp_path / "out.csv")
    # a small float is written in another way by csv
    assert [{key: _number(value) for key, value in row.items()} for row in rows] == [
        {key: _number(value) for key, value in row.items()} for row in as_text
    ]
    stored = parquet.read_table(tmp_path / "out.parquet")
    assert stored.to_pylist() == lines
    assert [str(stored.schema.field(name).type) for name in ("path", "digit", "p9")] == ["string", "int8", "double"]
    ok = [row for row in lines if row["status"] == "ok"]
    assert all(sum(row[f"p{digit}"] for digit in range(10)) == pytest.approx(1, abs=1e-4) for row in ok)


def _number(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def test_a_server_gives_the_same_rows(scans: Path, tmp_path: Path) -> None:
    assert command(scans, "--output", tmp_path / "local.csv").returncode == 1
    with serving() as server:
        result = command(scans, "--output", tmp_path / "remote.csv", SCANLINE_SCORE_SERVER=server.address)
    assert result.returncode == 1, result.stderr
    local, remote = table(tmp_path / "local.csv"), table(tmp_path / "remote.csv")
    for one, other in zip(local, remote, strict=True):
        assert one["confidence"] == other["confidence"] == "" or float(one["confidence"]) == pytest.approx(
            float(other["confidence"]), abs=2e-6
        )
        assert one | {"confidence": None} == other | {"confidence": None}


def test_difficult_names_survive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    monkeypatch.chdir(folder)
    plain = ['quote",comma.png', "two\nlines.png", "größe 数字.png", "semi;colon.png"]
    for name in [*plain, "=1+1.png", "@x.png", os.fsdecode(b"caf\xe9.png")]:
        Path(name).write_bytes(PNG)
    assert command(*sorted(path.name for path in Path().iterdir()), "--output", tmp_path / "out.csv").returncode == 0
    found = [row["path"] for row in table(tmp_path / "out.csv")]
    assert set(plain) < set(found)
    assert set(found) - set(plain) == {"./=1+1.png", "./@x.png", r"caf\udce9.png"}


def test_labels_give_accuracy_and_a_confusion_matrix(tmp_path: Path) -> None:
    files = samples.files()
    lines = [f"{file},{samples.label(file)}" for file in files]
    lines[0] = f"{files[0]},{(samples.label(files[0]) + 1) % 10}"
    lines += [f"{files[1]},", "gone.png,3"]
    (tmp_path / "m.csv").write_text("path,label\n" + "\n".join(lines))
    result = command(tmp_path / "m.csv", "--output", tmp_path / "out.csv")
    assert result.returncode == 1
    assert "labelled files: 11 of 12 right, 91.67%; without rejected: 11 of 12 right, 91.67%\n" in result.stdout
    assert "labelled files that could not be read: 1\n" in result.stdout
    assert "labels, and as what they were read" in result.stdout
    assert "1 of 14 files could not be read" in result.stderr
    rows = table(tmp_path / "out.csv")
    assert list(rows[0]) == ["path", "label", *COLUMNS[1:]]
    assert [row["label"] for row in rows[-2:]] == ["", "3"]
    assert rows[-1]["path"] == str(tmp_path / "gone.png")


def test_labels_of_files_that_cannot_be_read_draw_no_matrix(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path,label\ngone.png,3\nlost.png,4\nfree.png,\n")
    result = command(tmp_path / "m.csv", "--output", tmp_path / "out.csv")
    assert result.returncode == 1
    assert "labelled files that could not be read: 2\n" in result.stdout
    assert "as what they were read" not in result.stdout


def test_an_empty_list_replaces_no_table(tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    output.write_text("old")
    result = command("-", "--output", output)
    assert result.returncode == 1
    assert result.stderr == "error: there is nothing to read in the list on standard input; nothing was written\n"
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out.csv", "old")]


def test_a_list_with_null_characters_is_refused(scans: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    result = command("-", "--output", output, given="\0".join(str(file) for file in samples.files()) + "\0")
    assert result.returncode == 2
    assert result.stderr == (
        "error: the list on standard input has null characters; expected a path a line, "
        "as `find` prints them without -print0\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["scans"]


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [(signal.SIGINT, 130, "no row is kept yet\ninterrupted\n"), (signal.SIGTERM, 143, "no row is kept yet\n")],
)
def test_an_end_at_the_start_is_said(tmp_path: Path, number: signal.Signals, code: int, words: str) -> None:
    process = subprocess.Popen(
        line("-", "--output", tmp_path / "out.csv"),
        env=environment(),
        stdin=subprocess.PIPE,  # the list that never comes
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while len(workers(process)) < 2 and process.poll() is None:  # the pool's own helper, and the first reader
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.01)
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)  # as a terminal does
    out, err = process.communicate()  # to the end of all that write there
    assert (process.returncode, out, err) == (code, "", words)
    assert not list(tmp_path.iterdir())


def test_a_list_archives_and_idx_files_in_one_run(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(samples.files()[0], "in/0.png")
    (tmp_path / "b.zip").write_bytes(b"no archive")
    pixels = np.zeros((3, 28, 28), np.uint8)
    pixels[:, 4:24, 12:16] = 255
    (tmp_path / "i-ubyte.gz").write_bytes(gzip.compress(struct.pack(">4I", 0x803, 3, 28, 28) + pixels.tobytes()))
    output, listed = tmp_path / "out.csv", samples.files()[3:5]
    first, last = [tmp_path / "a.zip", tmp_path / "b.zip"], tmp_path / "i-ubyte.gz"
    result = command(*first, "-", last, "--output", output, given="\n".join(map(str, listed)))
    assert result.returncode == 1
    assert "1 of 7 files could not be read" in result.stderr
    rows = table(output)
    names = ["a.zip/in/0.png", "b.zip", *(str(file) for file in listed), *(f"i-ubyte.gz/{n}" for n in range(3))]
    assert [row["path"].removeprefix(f"{tmp_path}/") for row in rows] == names
    assert [row["digit"] for row in rows[4:]] == ["1"] * 3


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 small pictures in folders, two of them broken."""
    folder = tmp_path_factory.mktemp("many")
    small = [Image.open(file).convert("L").resize((28, 28)) for file in samples.files()]
    for number in range(400):
        path = folder / f"{number % 7}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        small[number % len(small)].save(path, compress_level=1)
        if number % 200 == 3:
            path.write_bytes(b"broken")
    return folder


def start(folder: Path, output: Path, *options: str) -> subprocess.Popen[bytes]:
    """Run the command in batches and parts of a few rows, so that a kill finds it everywhere."""
    code = (
        "import sys; from scanline.cli import main; from scanline.scoring import engine, journal; "
        "engine.BATCH_FILES = 16; journal.PART_ROWS = 1; sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["score", str(folder), "--output", str(output), "--resume", "--processes", "2", *options]
    with output.with_name("log").open("a") as log:
        return subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment(), stdout=log, stderr=log)


def workers(process: subprocess.Popen[Any]) -> list[int]:
    with suppress(FileNotFoundError):
        return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    return []


def alive(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_kills_at_random_moments_lose_no_row_and_write_none_twice(many: Path, tmp_path: Path, suffix: str) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow", reason="needs the extra parquet")
    whole, output, chance = tmp_path / f"whole.{suffix}", tmp_path / f"out.{suffix}", random.Random(8)
    assert start(many, whole).wait() == 1
    kept, kills, seen = 0, 0, []
    while True:
        process = start(many, output)
        state = output.with_name(f"{output.name}.partial") / "state.json"
        goal = kept + chance.randrange(1, 300)
        while process.poll() is None and (kept := _rows(state, kept)) < goal:
            with suppress(subprocess.TimeoutExpired):  # a look every few milliseconds, at no fixed moment
                process.wait(chance.random() / 50)
        seen += workers(process)
        process.send_signal(signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:
            break
        kills += 1
    assert process.returncode == 1
    assert kills
    assert _content(output) == _content(whole)
    while any(map(alive, seen)):  # they leave with their parents; the test's own time limit bounds the wait
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", output.name, whole.name]
    assert "semaphore" not in (tmp_path / "log").read_text()


def _rows(state: Path, before: int) -> int:
    with suppress(FileNotFoundError):
        return int(json.loads(state.read_text())["rows"])
    return before


def _content(path: Path) -> Any:
    if path.suffix == ".csv":
        return path.read_bytes()

    from pyarrow import parquet

    return parquet.read_table(path)


def test_an_interrupted_run_says_how_to_go_on(many: Path, tmp_path: Path) -> None:
    folder, output = tmp_path / "longer", tmp_path / "out.csv"
    for copy in range(25):  # seconds of work, so that the signal comes before the end
        shutil.copytree(many, folder / f"{copy:02}", symlinks=True)
    process = start(folder, output)
    state = tmp_path / "out.csv.partial" / "state.json"
    while process.poll() is None and not _rows(state, 0):
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    entries = list(find([str(folder)]))
    assert 0 < (kept := _rows(state, 0)) < len(entries)
    assert start(folder, output).wait() == 1
    log = (tmp_path / "log").read_text()
    assert "the same command with --resume goes on\ninterrupted\n" in log
    assert f"{len(entries) - kept:,} files in " in log
    assert f"after {kept:,} of earlier runs" in log
    assert [row["path"] for row in table(output)] == [entry.name for entry in entries]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["{out}/none", "--output", "o.xls"], 2, "--output should end in .csv, .jsonl, .parquet, not 'o.xls'"),
        (["{scans}", "--output", "{out}/none/o.csv"], 2, "can't write --output {out}/none/o.csv: No such file"),
        (
            ["{scans}", "--output", "{scans}/notes.txt/o.csv"],
            2,
            "error: can't write --output {scans}/notes.txt/o.csv: {scans}/notes.txt is a file; expected a folder\n",
        ),
        (["{scans}", "--output", "{scans}/notes.txt/sub/o.csv"], 2, ": {scans}/notes.txt is a file; expected a folder"),
        (["{scans}"], 2, "--output is missing"),
        (["{out}/none", "--output", "{out}/o.csv"], 2, "there is no file or folder '{out}/none'"),
        (["{scans}/*.gif", "--output", "{out}/o.csv"], 1, "there is nothing to read in {scans}/*.gif"),
        (["{scans}", "--output", "{out}/o.csv", "--model", "m", "--server", "s:1"], 2, "exclude each other"),
        (["{scans}", "--output", "{out}/o.csv", "--model", "{out}/m.onnx"], 1, "no such model: {out}/m.onnx"),
        (["{scans}", "--output", "{out}/o.csv", "--tls-roots", "r"], 2, "--tls-roots without --server"),
        (
            ["{scans}", "--output", "{out}/o.csv", "--server", "s:1", "--processes", "2"],
            2,
            "error: --processes with --server: only the local engine starts processes",
        ),
        (
            ["{scans}", "--output", "{out}/o.csv", "--engine", "ray", "--processes", "2"],
            2,
            "error: --processes with --engine ray: only the local engine starts processes",
        ),
        (["{scans}", "--output", "{out}/o.csv", "--engine", "ray", "--server", "s:1"], 2, "exclude each other"),
        (["", "--output", "{out}/o.csv"], 2, "argument PATH: expected a value, not ''"),
        (["/dev/null", "--output", "{out}/o.csv"], 2, "/dev/null is a pipe, a socket or a device"),
        (["{scans}", "--output", "{out}/o.csv", "--processes", "0"], 2, "--processes should be greater than or equal"),
        (
            ["{scans}", "--output", "{out}/o.csv", "--server", "127.0.0.1:1", "--timeout", "0.5"],
            1,
            "no answer from 127.0.0.1:1",
        ),
    ],
    ids=[
        "suffix",
        "no such folder",
        "a file for a folder",
        "a file on the way",
        "no output",
        "no such input",
        "no match",
        "both engines",
        "no model",
        "TLS with no server",
        "processes with a server",
        "processes with Ray",
        "Ray and a server",
        "an empty name",
        "a device",
        "0",
        "server",
    ],
)
def test_wrong_use_is_said_and_writes_nothing(
    scans: Path, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    result = command(*(argument.format(scans=scans, out=tmp_path) for argument in arguments))
    assert words.format(scans=scans, out=tmp_path) in result.stderr
    assert result.returncode == code, result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["scans"]


def test_all_read_is_exit_code_0(scans: Path, tmp_path: Path) -> None:
    result = command(scans / "jpg", scans / "bmp", "--output", tmp_path / "out.jsonl")
    assert result.returncode == 0, result.stderr
    assert "5 files in" in result.stdout
    assert result.stderr == ""
