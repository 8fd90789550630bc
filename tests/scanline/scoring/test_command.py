"""`scanline score` as a person runs it: processes, files, exit codes."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import struct
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scanline import Reader, samples
from scanline.preprocess import steps
from scanline.scoring.inputs import find
from tests.scanline.scoring.running import environment, line, table
from tests.serve.conftest import serving

PNG = samples.files()[0].read_bytes()
COLUMNS = ["path", "digit", "confidence", "status", "reason", "error", "model"]


def command(*arguments: str | Path, given: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        line(*arguments), capture_output=True, text=True, env=environment(**variables), check=False, input=given
    )


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


def test_a_confusion_matrix_of_thousands_is_not_cut(tmp_path: Path) -> None:
    for file in samples.files():  # small ones, which are read in no time
        Image.fromarray(steps(file.read_bytes()).rows).save(tmp_path / f"{samples.label(file)}.png")
    rows = [f"{digit}.png,{digit}" for digit in range(10)] * 1100
    (tmp_path / "m.csv").write_text("path,label\n" + "\n".join(rows))
    result = command(tmp_path / "m.csv", "--output", tmp_path / "out.csv", COLUMNS="80")
    assert result.returncode == 0, result.stderr
    assert [line.split() for line in result.stdout.splitlines() if re.match(r"[0-9] +[0-9]+ *$", line)] == [
        [str(digit), "1100"] for digit in range(10)
    ]


def test_manifests_that_a_pattern_matches_have_labels(tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    for number, file in enumerate(samples.files()[:2]):
        (lists / f"{number}.csv").write_text(f"path,label\n{file},{samples.label(file)}\n")
    (lists / "notes.txt").touch()
    result = command(lists / "*.csv", lists / "*", "--output", tmp_path / "out.csv")
    assert result.returncode == 0, result.stderr
    assert "labelled files: 2 of 2 right, 100.00%" in result.stdout
    assert "passed over: 3 files of other kinds\n" in result.stdout
    assert [row["label"] for row in table(tmp_path / "out.csv")] == [
        str(samples.label(file)) for file in samples.files()[:2]
    ]
    (tmp_path / "out.csv").rename(lists / "out.csv")
    result = command(lists / "*.csv", "--output", lists / "out.csv")
    assert (result.returncode, result.stdout) == (2, "")
    assert f"--output {lists}/out.csv is what is to be read; name another file" in result.stderr


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
        (["{out}/none", "--output", "{out}/none/o.csv"], 2, "can't write --output {out}/none/o.csv: No such file"),
        (["{scans}"], 2, "--output is missing"),
        (["{out}/none", "--output", "{out}/o.csv"], 2, "there is no file or folder '{out}/none'"),
        (["{scans}/*.gif", "--output", "{out}/o.csv"], 1, "there is nothing to read in {scans}/*.gif"),
        (["{scans}/[b]/*", "--output", "{out}/o.csv"], 1, "; in a pattern [b] is one letter, a name's ["),
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
        "no such folder, said before what is to be read is looked at",
        "no output",
        "no such input",
        "no match",
        "brackets",
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


def test_what_is_wrong_with_the_arguments_costs_no_row_that_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "out.csv.partial"
    folder.mkdir()
    (folder / "state.json").write_text("{}")
    result = command(tmp_path / "none", "--output", tmp_path / "out.csv")
    assert result.returncode == 2
    assert (folder / "state.json").read_text() == "{}"


def test_all_read_is_exit_code_0(scans: Path, tmp_path: Path) -> None:
    result = command(scans / "jpg", scans / "bmp", "--output", tmp_path / "out.jsonl")
    assert result.returncode == 0, result.stderr
    assert "5 files in" in result.stdout
    assert result.stderr == ""


def test_a_file_that_is_missing_is_not_sent_to_score(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path,label\n[1].png,\n")
    assert command(tmp_path / "m.csv", "--output", tmp_path / "out.csv").returncode == 1
    [row] = table(tmp_path / "out.csv")
    assert row["error"] == f"can't read {tmp_path / '[1].png'}: No such file or directory"


def test_what_is_to_be_read_is_not_replaced(tmp_path: Path) -> None:
    manifest = tmp_path / "m.csv"
    manifest.write_text(f"path,label\n{samples.files()[0]},0\n")
    (tmp_path / "same.csv").symlink_to(manifest)
    before = manifest.read_bytes()
    result = command(manifest, "--output", tmp_path / "same.csv")
    assert (result.returncode, result.stdout) == (2, "")
    assert f"--output {manifest} is what is to be read; name another file" in result.stderr
    assert manifest.read_bytes() == before


@pytest.mark.parametrize("old", [True, False], ids=["to an old table", "to none yet"])
def test_a_link_is_followed(tmp_path: Path, old: bool) -> None:
    target, link = tmp_path / "tables" / "new.csv", tmp_path / "last.csv"
    target.parent.mkdir()
    link.symlink_to("tables/new.csv")
    if old:
        target.write_text("old")
    (tmp_path / "last.csv.partial").touch()  # the parts go where the table goes, be it another disk
    result = command(samples.files()[0], "--output", link)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.endswith(f"written to {target}\n")
    assert link.readlink() == Path("tables/new.csv")
    assert [row["path"] for row in table(target)] == [str(samples.files()[0])]
    assert [path.name for path in target.parent.iterdir()] == ["new.csv"]


def test_what_a_link_leads_to_is_a_table(tmp_path: Path) -> None:
    (tmp_path / "last.csv").symlink_to("new.txt")
    result = command(samples.files()[0], "--output", tmp_path / "last.csv")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "error: --output should end in .csv, .jsonl, .parquet, and so should what it leads to, "
        f"not {str(tmp_path / 'last.csv')!r}\n"
    )
