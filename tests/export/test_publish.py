"""What an export takes the place of, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import export.command
from export.publish import replacing_folder
from scanline import manifest
from scanline.cli import main
from scanline.errors import UsageError


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write_export(folder: Path, content: bytes) -> None:
    (folder / "digits.onnx").write_bytes(content)
    manifest.write(folder, "seed", ["digits.onnx"])
    (folder / "validation.html").write_bytes(content)


def test_a_circle_of_links_is_refused(tmp_path: Path) -> None:
    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    with pytest.raises(UsageError, match="its links lead in a circle"), replacing_folder(circle):
        pytest.fail("it was let in")


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    folder = tmp_path / "artifacts"
    folder.mkdir()
    write_export(folder, b"earlier")
    return folder


def add_notes(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "notes.txt").write_text("mine")


def add_folder(folder: Path) -> None:
    (folder / "digits.onnx").unlink()
    (folder / "digits.onnx").mkdir()


def take_web_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"name": "my app", "icons": []}')


def lose_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (add_notes, "it holds notes.txt"),
        (add_folder, "it holds digits.onnx"),
        (take_web_manifest, "it holds digits.onnx"),
        (lose_manifest, "it holds digits.onnx"),
    ],
)
def test_only_a_folder_that_is_all_an_export_s_is_replaced(
    earlier: Path, capsys: pytest.CaptureFixture[str], change: Callable[[Path], None], words: str
) -> None:
    change(earlier)
    before = sorted(earlier.iterdir())
    assert main(["export", str(earlier.parent / "run"), "--out", str(earlier)]) == 2
    error = capsys.readouterr().err
    assert f"--out {earlier} is there and is no earlier export" in error
    assert words in error
    assert sorted(earlier.iterdir()) == before


def test_the_working_folder_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", "run", "--out", "."]) == 2
    assert "--out . is the working folder" in capsys.readouterr().err


def test_a_mount_point_is_refused_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "run", "--out", "/"]) == 2
    assert "--out / is a mount point, which can't be replaced: give a folder in it" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_refused_before_the_checks(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export.command, "gather", None)  # with which the checks begin
    assert main(["export", str(trained), "--out", "/proc/art"]) == 2
    assert "--out /proc/art: it can't be written to" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left on device") as error, replacing_folder(tmp_path / "out"):
        Path("/dev/full").write_bytes(b"model")
    assert error.value.filename == str(tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_was_filled_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "artifacts"
    with pytest.raises(UsageError, match=r"is no earlier export: it holds notes\.txt"), replacing_folder(out):
        add_notes(out)
    assert contents(out) == {"notes.txt": b"mine"}
    assert list(tmp_path.iterdir()) == [out]


def test_what_a_link_leads_to_is_replaced(earlier: Path) -> None:
    link = earlier.parent / "latest"
    link.symlink_to(earlier.name)
    with replacing_folder(link) as new:
        write_export(new, b"new")
    assert link.readlink() == Path(earlier.name)
    assert (earlier / "digits.onnx").read_bytes() == b"new"


def test_the_earlier_export_comes_back_where_the_new_one_cannot_take_its_name(earlier: Path) -> None:
    before = contents(earlier)
    with pytest.raises(FileNotFoundError), replacing_folder(earlier) as new:
        new.rmdir()
    assert contents(earlier) == before
    assert list(earlier.parent.iterdir()) == [earlier]
