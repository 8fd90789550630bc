"""Archives, pages of TIFF and IDX files as entries of their own."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

from scanline.errors import UsageError
from scanline.scoring.inputs import find
from tests.scanline.scoring.entries import PNG, loaded, names


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


def test_no_image_is_lost_in_silence_behind_a_damaged_long_name(tmp_path: Path) -> None:
    path = tmp_path / "scans.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("a.png", "ü.png", "c.png"):
            member(archive, name, PNG)
    content, unsound = path.read_bytes(), b"00  path="
    at = content.index(b"15 path=")
    path.write_bytes(content[:at] + unsound + content[at + len(unsound) :])
    found = loaded(find([str(path)]))
    assert [*found] == ["a.png", "scans.tar"]
    assert found["scans.tar"] == f"error: can't read {path}: it is damaged or cut short: invalid header"


@pytest.mark.parametrize(
    ("suffix", "module", "at"),
    [("tar.gz", gzip, -8), ("tar.bz2", bz2, -3), ("tar.xz", lzma, -28), ("idx.gz", gzip, -8)],
)
def test_damage_that_only_a_checksum_tells_is_an_error(tmp_path: Path, suffix: str, module: Any, at: int) -> None:
    path, whole = tmp_path / f"a.{suffix}", io.BytesIO(struct.pack(">4I", 0x803, 1, 28, 28) + bytes(784))
    if suffix != "idx.gz":
        with tarfile.open(fileobj=whole, mode="w") as archive:
            member(archive, "0", PNG)
            member(archive, "0.png", PNG)
    content = module.compress(whole.getvalue())
    damaged = bytearray(content)
    damaged[at] ^= 255
    image = "0" if suffix == "idx.gz" else "0.png"
    path.write_bytes(content)
    assert [*loaded(find([str(path)]))] == [image]
    for stored in [damaged] if module is lzma else [damaged, content[: at + 1]]:  # cut, it can't be told from padded
        path.write_bytes(stored)
        found = loaded(find([str(path)]))
        assert [*found] == [image, path.name]
        assert str(found[path.name]).startswith(f"error: can't read {path}: ")


@pytest.mark.parametrize("behind", [bytes(1), bytes(10_240), b"on the tape before", b"x"])
@pytest.mark.parametrize("module", [None, gzip, bz2, lzma])
def test_what_stands_behind_an_archive_is_no_damage(tmp_path: Path, module: Any, behind: bytes) -> None:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        member(archive, "0.png", PNG)
    suffix = {None: "", gzip: ".gz", bz2: ".bz2", lzma: ".xz"}[module]
    path = tmp_path / f"a.tar{suffix}"
    path.write_bytes((module.compress(whole.getvalue()) if module else whole.getvalue()) + behind)
    assert loaded(find([str(path)])) == {"0.png": PNG}


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


def test_a_tiff_that_is_named_gives_its_pages_without_a_suffix_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = tmp_path / "scan", tmp_path / "notes"
    Picture.new("L", (9, 9)).save(path, "TIFF", save_all=True, append_images=[Picture.new("L", (9, 9), 200)])
    other.write_bytes(b"no TIFF")
    assert names(tmp_path, path, other, tmp_path) == ["scan[1]", "scan[2]", "notes"]  # a folder's files go by suffix
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{path}\n".encode())))
    assert [entry.name for entry in find(["-"])] == [f"{path}[1]", f"{path}[2]"]


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
