"""Folders, patterns, lists, manifests, archives and IDX files to one stream of entries."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import sqlite3
import struct
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from PIL import Image as Picture

from scanline import samples
from scanline.errors import InputError, ScanlineError, UsageError
from scanline.images import Image
from scanline.scoring.entry import Entry
from scanline.scoring.inputs import count, find

PNG = samples.files()[0].read_bytes()


def names(folder: Path, *paths: str | Path) -> list[str]:
    found = [os.path.relpath(entry.name, folder) for entry in find(map(str, paths))]
    assert count([str(path) for path in paths]) == len(found)
    return found


def files(folder: Path, *relative: str) -> None:
    for name in relative:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def loaded(entries: Iterable[Entry]) -> dict[str, Image | str]:
    """Give what is to be read of each entry, or the error, by the last part of its name."""
    result: dict[str, Image | str] = {}
    for entry in entries:
        try:
            result[Path(entry.name).name] = entry.load() if entry.load else entry.name
        except InputError as error:
            result[Path(entry.name).name] = f"error: {error}"
    return result


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


def test_names_in_a_zip_archive_are_utf_8_where_they_can_be(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("????.png", PNG)
        archive.writestr("!.png", PNG)
    # Debian's zip leaves the mark of UTF-8 out, which Python sets, and older programs mean code page 437
    path.write_bytes(path.read_bytes().replace(b"????", "äö".encode()).replace(b"!.png", b"\x84.png"))
    assert names(tmp_path, path) == ["a.zip/äö.png", "a.zip/ä.png"]
    assert [entry.load and entry.load() for entry in find([str(path)])] == [PNG, PNG]


@pytest.mark.parametrize(
    ("where", "expected"), [("directory", ["a.zip"]), ("local header", ["1.png", "?.png", "2.png"])]
)
def test_a_name_in_a_zip_archive_that_is_not_the_utf_8_it_says_is_an_error(
    tmp_path: Path, where: str, expected: list[str]
) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("1.png", "ä.png", "2.png"):
            archive.writestr(name, PNG)
    content, utf_8, latin_1 = path.read_bytes(), "ä.png".encode(), b"\xe4..png"
    at = content.rindex(utf_8) if where == "directory" else content.index(utf_8)
    path.write_bytes(content[:at] + latin_1 + content[at + len(latin_1) :])
    found = loaded(find([str(path)]))
    assert [name.replace("ä", "?") for name in found] == expected
    error = str(found.pop("a.zip" if where == "directory" else "ä.png"))
    assert re.match("error: can't read .*'utf-8' codec can't decode byte 0xe4", error)
    assert all(content == PNG for content in found.values())


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


def member(archive: tarfile.TarFile, name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(content), kind, "b/2.png" if kind != tarfile.REGTYPE else ""
    archive.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"])
def test_a_tar_archive_in_its_order(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"scans{suffix}"
    form = {"tgz": "gz", "tar": ""}.get(suffix.rpartition(".")[2], suffix.rpartition(".")[2])
    with tarfile.open(path, f"w:{form}") as archive:  # type: ignore[call-overload] # the mode is one that it has
        member(archive, "b", kind=tarfile.DIRTYPE)
        member(archive, "b/2.png", PNG)
        member(archive, "notes.txt", b"no image")
        member(archive, "a/1.JPG", b"first")
        member(archive, "hard.png", kind=tarfile.LNKTYPE)
        member(archive, "soft.png", kind=tarfile.SYMTYPE)
    assert names(path, path) == ["b/2.png", "a/1.JPG", "hard.png", "soft.png"]
    assert loaded(find([str(path)])) == {
        "2.png": PNG,
        "1.JPG": b"first",
        "hard.png": "error: it is a link to b/2.png; a file is expected in an archive",
        "soft.png": "error: it is a link to b/2.png; a file is expected in an archive",
    }


@pytest.mark.parametrize("module", [gzip, bz2, lzma])
def test_a_tar_archive_compressed_in_several_pieces(tmp_path: Path, module: Any) -> None:
    whole, path = io.BytesIO(), tmp_path / f"a.tar.{module.__name__.replace('gzip', 'gz').replace('lzma', 'xz')}"
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for number in range(20):
            member(archive, f"{number}.png", PNG)
    pieces = [module.compress(whole.getvalue()[at : at + 2000]) for at in range(0, len(whole.getvalue()), 2000)]
    path.write_bytes(b"".join(pieces))  # as pbzip2 and bgzip do
    assert loaded(find([str(path)])) == {f"{number}.png": PNG for number in range(20)}
    path.write_bytes(b"".join(pieces[:3]) + pieces[3][:40])
    found = loaded(find([str(path)]))
    before = 6000 // (512 + -(-len(PNG) // 512) * 512)  # the images that lie whole before the damage
    assert [*found.values()][:before] == [PNG] * before
    assert str(found.popitem()[1]).startswith(f"error: can't read {path}: ")


@pytest.mark.parametrize("sparse", [{"GNU.sparse.map": "x"}, {"GNU.sparse.size": "x"}, {"GNU.sparse.major": "1"}])
def test_a_tar_archive_with_an_unsound_header_is_an_error_of_its_own(tmp_path: Path, sparse: dict[str, str]) -> None:
    path, odd = tmp_path / "a.tar", tarfile.TarInfo("2.png")
    odd.size, odd.pax_headers = len(PNG), sparse | {"GNU.sparse.minor": "0"}
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        member(archive, "1.png", PNG)
        archive.addfile(odd, io.BytesIO(PNG))
    found = loaded(find([str(path)]))
    assert found.pop("1.png") == PNG
    assert re.match(f"error: can't read {path}: ", str(found.pop("a.tar")))
    assert not found


def test_no_image_of_a_damaged_tar_archive_is_lost_in_silence(tmp_path: Path) -> None:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for number in range(3):
            member(archive, f"{number}.png", PNG)
    content, path = whole.getvalue(), tmp_path / "scans.tar"
    size = 512 + -(-len(PNG) // 512) * 512
    for damaged, words in (
        (content[: 2 * size], "damaged or cut short: empty header"),
        (content[: 2 * size + 100], "damaged or cut short: truncated header"),
        (content[: 2 * size] + b"x" * 512 + content[2 * size + 512 :], "damaged or cut short: .*header"),
    ):
        path.write_bytes(damaged)
        found = loaded(find([str(path)]))
        assert [*found] == ["0.png", "1.png", "scans.tar"]
        assert found["0.png"] == found["1.png"] == PNG
        assert re.fullmatch(f"error: can't read {path}: it is {words}", str(found["scans.tar"]))


def test_a_zip_archive_in_its_order(tmp_path: Path) -> None:
    path = tmp_path / "scans.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("b.png")
        archive.writestr("b/2.png", PNG)
        archive.writestr("notes.txt", "no image")
        archive.writestr("a/1.JPG", b"first" * 100)
        archive.writestr("c.bmp", b"damaged soon" * 10)
        archive.writestr("d.png", PNG)
        at = archive.getinfo("c.bmp").header_offset
    content = bytearray(path.read_bytes())
    content[at + 45] ^= 255
    path.write_bytes(content)
    assert names(path, path) == ["b/2.png", "a/1.JPG", "c.bmp", "d.png"]
    found = loaded(find([str(path)]))
    assert str(found.pop("c.bmp")).startswith("error: can't read it from the archive: ")
    assert found == {"2.png": PNG, "1.JPG": b"first" * 100, "d.png": PNG}


def test_a_tiff_s_pages_are_entries_of_their_own(tmp_path: Path) -> None:
    sheets = [Picture.new("L", (9, 9), level) for level in (0, 100, 200)]
    sheets[0].save(tmp_path / "b.TIF", save_all=True, append_images=sheets[1:])
    sheets[0].save(tmp_path / "a.tiff")
    (tmp_path / "c.tif").write_bytes(b"no TIFF")
    assert names(tmp_path, tmp_path) == ["a.tiff", "b.TIF[1]", "b.TIF[2]", "b.TIF[3]", "c.tif"]
    found = loaded(find([str(tmp_path)]))
    for sheet, name in zip(sheets, ("b.TIF[1]", "b.TIF[2]", "b.TIF[3]"), strict=True):
        content = found[name]
        assert isinstance(content, bytes)
        assert Picture.open(io.BytesIO(content)).tobytes() == sheet.tobytes()
    (tmp_path / "m.csv").write_text("path,label\nb.TIF,4\n")
    assert [entry.label for entry in find([str(tmp_path / "m.csv")])] == [4, 4, 4]


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_a_tiff_s_pages_are_entries_in_an_archive_too(tmp_path: Path, suffix: str) -> None:
    sheets = [Picture.new("L", (9, 9), level) for level in (0, 100, 200)]
    folder, path = tmp_path / "scans", tmp_path / f"scans{suffix}"
    folder.mkdir()
    sheets[0].save(folder / "a.tiff")
    sheets[0].save(folder / "b.TIF", save_all=True, append_images=sheets[1:])
    (folder / "c.tif").write_bytes(b"no TIFF")
    with zipfile.ZipFile(path, "w") if suffix == ".zip" else tarfile.open(path, "w:gz") as archive:
        add = archive.write if isinstance(archive, zipfile.ZipFile) else archive.add
        for name in ("a.tiff", "b.TIF", "c.tif"):
            add(folder / name, name)
    assert names(path, path) == ["a.tiff", "b.TIF[1]", "b.TIF[2]", "b.TIF[3]", "c.tif"]
    found = loaded(find([str(path)]))
    assert found == loaded(find([str(folder)])) | {name: (folder / name).read_bytes() for name in ("a.tiff", "c.tif")}


def test_a_pipe_in_a_list_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [str(tmp_path / name) for name in ("pipe.zip", "pipe.tar", "pipe.tif", "pipe.idx.gz")]
    for name in names:
        os.mkfifo(name)
        with pytest.raises(UsageError, match=r"pipe\..* is a pipe, a socket or a device"):
            next(find([name]))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(names).encode())))
    found = loaded(find(["-"]))
    assert found.pop("pipe.tif") == str(tmp_path / "pipe.tif")
    assert len(found) == 3
    assert all("it is a pipe, a socket or a device" in str(error) for error in found.values())


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz", ".tar.bz2", ".tar.xz"])
def test_what_is_no_archive_is_an_error_of_its_own(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"scans{suffix}"
    for content in (b"", b"no archive" * 100):
        path.write_bytes(content)
        error = str(loaded(find([str(path)]))[path.name])
        assert error.startswith(f"error: can't read {path}: ")
        assert suffix != ".zip" or error.endswith(": it is no ZIP archive, or it is cut short")


@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte", "images.idx.gz"])
def test_an_idx_file_gives_pixels(tmp_path: Path, name: str) -> None:
    images = np.random.default_rng(1).integers(0, 256, (5, 28, 28), np.uint8)
    content, path = struct.pack(">4I", 0x803, 5, 28, 28) + images.tobytes(), tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    found = loaded(find([str(path)]))
    assert [*found] == list("01234")
    for image, pixels in zip(found.values(), images, strict=True):
        assert isinstance(image, np.ndarray)
        assert np.array_equal(image, pixels)
    assert names(path, path) == list("01234")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is no IDX file of images of 28x28 bytes"),
        (struct.pack(">4I", 0x801, 5, 28, 28), "it is no IDX file of images of 28x28 bytes"),
        (struct.pack(">4I", 0x803, 5, 16, 16), "it is no IDX file of images of 28x28 bytes"),
        (struct.pack(">4I", 0x803, 2, 28, 28) + bytes(784), "it is cut short: it holds 1 of 2 images"),
    ],
)
def test_a_damaged_idx_file_is_an_error_of_its_own(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "images.idx"
    path.write_bytes(content)
    assert loaded(find([str(path)]))["images.idx"] == f"error: can't read {path}: {words}"
