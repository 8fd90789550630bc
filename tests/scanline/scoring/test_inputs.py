"""Folders, patterns, lists and manifests to one stream of entries; test_containers.py has files that hold several."""

from __future__ import annotations

import io
import os
import sqlite3
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import pytest

from scanline.errors import InputError, ScanlineError, UsageError
from scanline.files import read
from scanline.scoring.entry import Entry
from scanline.scoring.inputs import Others, count, find, manifests
from tests.scanline.scoring.entries import PNG, names

NOBODY = 65534


def files(folder: Path, *relative: str) -> None:
    for name in relative:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_folders_are_gone_through_in_order(tmp_path: Path) -> None:
    files(tmp_path, "b/2.png", "b/10.JPG", "b/a/1.bmp", "a.d/x.jpeg", "z.png", "A.png", "c.gif", "d/only.txt", ".png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "lost.png").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "own.png").symlink_to("own.png")  # which can't be asked what it is
    expected = ["A.png", "lost.png", "own.png", "pipe.png", "z.png", "a.d/x.jpeg", "b/10.JPG", "b/2.png", "b/a/1.bmp"]
    assert names(tmp_path, tmp_path) == expected
    again = [tmp_path / "b", tmp_path / "A.png", tmp_path / "c.gif"]
    assert names(tmp_path, *again) == ["b/10.JPG", "b/2.png", "b/a/1.bmp", "A.png", "c.gif"]


def test_names_are_sorted_by_their_bytes(tmp_path: Path) -> None:
    difficult = [b"a\nb.png", b"a.png", b"\xff.png", "é.png".encode(), b"Z.png"]
    for name in difficult:
        (tmp_path / os.fsdecode(name)).touch()
    assert [os.fsencode(name) for name in names(tmp_path, tmp_path)] == sorted(difficult)


def test_patterns_match_image_files_and_archives(tmp_path: Path) -> None:
    files(tmp_path, "a/2.png", "a/1.png", "b/c/3.png", "b/c/3.txt", "b/[4].png")
    with zipfile.ZipFile(tmp_path / "b/c/more.zip", "w") as archive:
        archive.writestr("5.png", PNG)
    assert names(tmp_path, tmp_path / "*/*.png") == ["a/1.png", "a/2.png", "b/[4].png"]
    assert names(tmp_path, tmp_path / "b/**") == ["b/[4].png", "b/c/3.png", "b/c/more.zip/5.png"]
    assert names(tmp_path, tmp_path / "b/[4].png") == ["b/[4].png"]  # a file's own name comes first
    with pytest.raises(UsageError, match=r"there is no file or folder '.*none'"):
        list(find([str(tmp_path / "none")]))


def test_what_a_pattern_matches_is_read_as_if_it_were_named(tmp_path: Path) -> None:
    files(tmp_path, "box-1/b/2.png", "box-1/1.png", "box-1/note.txt", "box-2.png", "box-2.txt", "box-3/.a/3.png")
    (tmp_path / "box-4.csv").write_text("path,label\n4.png,4\n")
    (tmp_path / "box-5.csv").mkdir()
    files(tmp_path, "box-5.csv/5.png")
    boxes = ["box-1/1.png", "box-1/b/2.png", "box-2.png", "box-3/.a/3.png", "box-5.csv/5.png"]
    assert names(tmp_path, tmp_path / "box-*") == boxes
    assert list(find([str(tmp_path / "box-*.csv")])) == [
        Entry(f"{tmp_path}/4.png", label=4),
        Entry(f"{tmp_path}/box-5.csv/5.png"),
    ]
    assert list(find([str(tmp_path / "**/*.csv")])) == [Entry(f"{tmp_path}/4.png", label=4)]


def test_files_that_are_passed_over_are_counted(tmp_path: Path) -> None:
    files(
        tmp_path,
        "a/1.png",
        "a/1.txt",
        "a/b/2.jfif",
        "a/b/2.gif",
        "a/b/.DS_Store",
        "a/m.csv",
        "3.jpe",
        "3.doc",
        "o.csv.partial/lock",
    )
    others = Others()
    assert len(list(find([str(tmp_path)], others))) == 3
    assert others.number == 4
    assert len(list(find([str(tmp_path / "*")], others))) == 3
    assert others.number == 8


def test_a_table_in_the_making_is_not_read(tmp_path: Path) -> None:
    kept = "o.csv.partial/000000.csv", "o.csv.partial/lock", "a/o.jsonl.partial/000000.jsonl"
    files(tmp_path, "a/1.png", "a/1.partial/2.png", "a.partial/3.png", *kept)
    others = Others()
    read = [tmp_path, *(tmp_path / pattern for pattern in ("*", "*/*", "**", "*/*.csv", "**/*.csv", "o*/*"))]
    found = [os.path.relpath(entry.name, tmp_path) for entry in find(map(str, read), others)]
    assert sorted(found) == sorted(4 * ["a.partial/3.png", "a/1.partial/2.png", "a/1.png"])
    assert others.number == 0
    assert list(manifests(map(str, read))) == []


def test_two_stars_follow_no_link_to_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files(tmp_path, "a/1.png", "a/b/2.png", "a/b/.hidden.png", "a/.hidden/3.png", "[x]/4.png", "c/b/5.png")
    for link in ("loop", "a/loop", "a/b/loop"):
        (tmp_path / link).symlink_to(tmp_path)
    every = ["[x]/4.png", "a/1.png", "a/b/2.png", "c/b/5.png"]
    assert names(tmp_path, tmp_path / "**/*.png") == names(tmp_path, tmp_path / "**") == every
    assert names(tmp_path, tmp_path / "**/b/**/*.png") == ["a/b/2.png", "c/b/5.png"]
    assert names(tmp_path, tmp_path / "loop/**/[12].png") == ["loop/a/1.png", "loop/a/b/2.png"]  # a link that is named
    monkeypatch.chdir(tmp_path)
    assert [entry.name for entry in find(["**/*.png"])] == every


@pytest.mark.parametrize("pattern", ["**/**/*.png", "**/b/**/*.png", "**/b/**", "**/**/**"])
def test_a_file_that_several_two_stars_find_is_read_once(tmp_path: Path, pattern: str) -> None:
    files(tmp_path, "a/b/b/3.png", "a/b/1.png", "b/c/b/b/4.png")
    assert names(tmp_path, tmp_path / pattern) == ["a/b/1.png", "a/b/b/3.png", "b/c/b/b/4.png"]


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
    assert names(tmp_path, tmp_path) == ["open.png", "closed"]


@contextmanager
def without_rights(mode: int) -> Iterator[Path]:
    """Give a folder with a folder `closed` of that mode, to one who is not root."""
    with TemporaryDirectory() as name:  # not pytest's, which is its user's alone
        folder = Path(name)
        folder.chmod(0o755)
        files(folder, "open/1.png", "open/sub/2.png", "closed/1.png", "closed/sub/2.png")
        closed = folder / "closed"
        closed.chmod(mode)
        if root := os.geteuid() == 0:  # who may look everywhere
            os.chown(closed, NOBODY, -1)
            os.seteuid(NOBODY)
        try:
            yield folder
        finally:
            if root:
                os.seteuid(0)
            closed.chmod(0o755)


@pytest.mark.parametrize(
    ("mode", "pattern", "expected"),
    [
        (0o000, "*/*.png", {"open/1.png", "closed"}),
        (0o000, "**/*.png", {"open/1.png", "open/sub/2.png", "closed"}),
        (0o000, "**", {"open/1.png", "open/sub/2.png", "closed"}),
        (0o000, "closed/s*/2.png", {"closed"}),
        (0o000, "*/sub/2.png", {"open/sub/2.png", "closed/sub/2.png"}),
        (0o000, "*/su[b]", {"open/sub/2.png", "closed"}),
        (0o400, "*/*.png", {"open/1.png", "closed/1.png"}),  # may be listed, but not gone into
        (0o400, "**", {"open/1.png", "open/sub/2.png", "closed/1.png", "closed/sub"}),
        (0o400, "*/[s]ub/2.png", {"open/sub/2.png", "closed/sub/2.png"}),
    ],
)
def test_where_a_pattern_may_not_look_is_a_row_with_its_error(mode: int, pattern: str, expected: set[str]) -> None:
    with without_rights(mode) as folder:
        assert set(names(folder, folder / pattern)) == expected
        for name in expected:
            if name.startswith("closed"):
                with pytest.raises(InputError, match="Permission denied"):
                    read(folder / name)


def test_a_name_that_may_not_be_looked_at_is_not_called_missing() -> None:
    with without_rights(0o000) as folder, pytest.raises(PermissionError):
        count([str(folder / "closed/1.png")])


def test_no_disk_to_sort_on_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_disk(_: str) -> NoReturn:  # where the tests run there is one
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr("sqlite3.connect", no_disk)
    with pytest.raises(ScanlineError, match=r"can't sort the names in .* on disk: .*; is TMPDIR writable\?"):
        count([str(tmp_path)])


def test_a_list_on_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files(tmp_path, "f/1.png", "f/2.png", "a b.png")
    lines = f"{tmp_path}/gone.png\n\n{tmp_path}/f\n{tmp_path}/a b.png".encode() + b"\n/caf\xe9.png\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert count([str(tmp_path), "-"]) is None
    found = [entry.name for entry in find(["-"])]
    here = [f"{tmp_path}/{name}" for name in ("gone.png", "f/1.png", "f/2.png", "a b.png")]
    assert found == [*here, os.fsdecode(b"/caf\xe9.png")]


@pytest.mark.parametrize("name", ["0" * 300, "0" * 300 + ".zip", "0" * 300 + ".tif", "closed/1.png"])
def test_a_name_in_a_list_that_cannot_be_followed_is_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    status = os.stat

    def refusing(path: str | os.PathLike[str], **options: Any) -> os.stat_result:
        if "closed" in os.fspath(path):  # by permissions this can't be had where the tests run as root
            raise PermissionError(13, "Permission denied", path)
        return status(path, **options)

    monkeypatch.setattr(os, "stat", refusing)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{name}\n2.png\n".encode())))
    assert [entry.name for entry in find(["-"])] == [name, "2.png"]


def test_a_list_from_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files(tmp_path, "1.png", "2.png")
    lines = f"{tmp_path}/1.png\r\n{tmp_path}/2.png\r\n".encode("utf-8-sig")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert [entry.name for entry in find(["-"])] == [f"{tmp_path}/1.png", f"{tmp_path}/2.png"]


def test_what_a_mac_puts_beside_images_is_none(tmp_path: Path) -> None:
    names = ["a/1.png", "a/._1.png", "__MACOSX/a/._1.png"]
    files(tmp_path, *(f"folder/{name}" for name in names))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    found = [entry.name for entry in find([str(tmp_path / "folder"), str(tmp_path / "a.zip")])]
    assert found == [f"{tmp_path}/folder/a/1.png", f"{tmp_path}/a.zip/a/1.png"]


def test_a_manifest_gives_labels(tmp_path: Path) -> None:
    manifest = tmp_path / "m.csv"
    manifest.write_text('\ufefflabel,path,who\n7,scans/1.png,x\n,"a,b.png",y\n0,/abs/2.png,\n', encoding="utf-8")
    assert list(find([str(manifest)])) == [
        Entry(f"{tmp_path}/scans/1.png", label=7),
        Entry(f"{tmp_path}/a,b.png", label=None),
        Entry("/abs/2.png", label=0),
    ]
    manifest.write_text("Path, Label\n1.png,7\n")
    assert list(find([str(manifest)])) == [Entry(f"{tmp_path}/1.png", label=7)]
    manifest.write_text("path\n1.png\n")
    assert list(find([str(manifest)])) == [Entry(f"{tmp_path}/1.png")]


def test_a_manifest_in_another_encoding_is_said(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path,label\n1.png,1\n", encoding="utf-16")
    with pytest.raises(UsageError, match=r"m\.csv is text in UTF-16; save it as UTF-8"):
        count([str(tmp_path / "m.csv")])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no columns; expected path and label"),
        ("file,label\n1.png,1\n", "has the columns file, label; expected path and label"),
        ("path;label\n1.png;1\n", "has the columns path;label; expected path and label, with commas between values"),
        ("path,label\n1.png,1\n2.png,x\n", "line 3 .* has the path '2.png' and the label 'x'"),
        ("path,label\n2.png,10\n", "the label '10'; expected a path, and 0 to 9 or nothing"),
        ("path,label\n,1\n", "line 2 .* has no path and the label '1'"),
        ('path,label\n" \t",1\n', "line 2 .* has no path and the label '1'"),
        (
            "path,label\n1.png,1\n2,5.png,1\n",
            "line 3 .* has more fields than the first line has columns, 2; put a value",
        ),
        ("path,label,Path\n1.png,1,2.png\n", "more than one column path$"),
        ('path,label\n"1.png,1\n2.png,2\n', "unexpected end of data; is a quote not closed[?]$"),
        ('path,label\n"1".png,1\n', "',' expected after '\"'$"),
        ("label,path\n1\n", "line 2 .* has no path and the label '1'"),
        ("path\n" + "x" * 200_000, "can't read the manifest .*: field larger than field limit"),
    ],
)
def test_a_malformed_manifest_is_said_before_anything_is_read(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(UsageError, match=words):
        count([str(tmp_path / "m.csv")])
