"""A model folder whose files are not those of its manifest, as all that open a model meet it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scanline import Reader, samples
from scanline.errors import ModelError
from scanline.manifest import MANIFEST
from scanline.model import SHIPPED, STEP_FILE
from scanline.verify import GOLDEN

MODEL = "digits.int8.onnx"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of what ships, to damage."""
    return shutil.copytree(SHIPPED, tmp_path / "model")


def exchange(folder: Path) -> None:
    shutil.copy(folder / "digits.onnx", folder / MODEL)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "another file": (exchange, f"{MODEL} has "),
    "cut short": (lambda folder: (folder / MODEL).write_bytes(b"\0"), f"{MODEL} has 1 bytes and the SHA-256 6e34"),
    "no JSON": (lambda folder: (folder / MANIFEST).write_text("{"), f"{MANIFEST} is damaged: "),
    "no text": (lambda folder: (folder / MANIFEST).write_bytes(b"\xff"), f"{MANIFEST} is damaged: "),
    "a list": (lambda folder: (folder / MANIFEST).write_text("[]"), f"{MANIFEST} is damaged: it lists no files"),
    "no such name": (lambda folder: (folder / MANIFEST).write_text('{"files": {}}'), f"does not name {MODEL}"),
    "no checksum": (
        lambda folder: (folder / MANIFEST).write_text(f'{{"files": {{"{MODEL}": {{"bytes": 1}}}}}}'),
        f"does not name {MODEL}",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_model_that_is_not_its_manifest_s_is_refused(damage: str, folder: Path) -> None:
    spoil, words = DAMAGES[damage]
    spoil(folder)
    for path in (folder, folder / MODEL):
        with pytest.raises(ModelError) as refusal:
            Reader(path)
        assert words in str(refusal.value)
        assert "{" not in str(refusal.value)


@pytest.mark.parametrize("path", [5, b"edge", "", ["edge"]])
def test_what_is_no_path_is_refused(path: Any) -> None:
    with pytest.raises(ModelError, match="a model is a file, a folder, edge or accurate, not ") as refusal:
        Reader(path)
    assert repr(path) in str(refusal.value)


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "scanline", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("name", ["classify", "score", "serve", "info"])
def test_every_command_refuses_it_in_the_same_words(name: str, folder: Path, tmp_path: Path) -> None:
    exchange(folder)
    image = samples.files()[0]
    arguments: dict[str, list[str | Path]] = {
        "classify": [image, "--model", folder],
        "score": [image, "--model", folder, "--output", tmp_path / "digits.csv"],
        "serve": ["--model", folder, "--listen", "127.0.0.1:0"],
        "info": [folder],
    }
    with pytest.raises(ModelError) as refusal:
        Reader(folder)
    result = command(name, *arguments[name])
    assert (result.returncode, result.stderr) == (3 if name == "serve" else 1, f"error: {refusal.value}\n")


@pytest.mark.parametrize("name", ["classify", "score", "serve"])
def test_a_step_file_is_told_which_files_are_meant(name: str, tmp_path: Path) -> None:
    image, step_file = samples.files()[0], SHIPPED / STEP_FILE
    arguments: dict[str, list[str | Path]] = {
        "classify": [image],
        "score": [image, "--output", tmp_path / "digits.csv"],
        "serve": ["--listen", "127.0.0.1:0"],
    }
    result = command(name, *arguments[name], "--model", step_file)
    assert (result.returncode, result.stdout) == (3 if name == "serve" else 1, "")
    assert result.stderr == (
        f"error: {step_file} is a step file, which reads an image one row at a time; expected the file of the whole "
        f"network, digits.int8.onnx or digits.onnx, or the folder that holds it\n"
    )


@pytest.mark.parametrize("name", ["classify", "score", "info", "verify"])
def test_a_folder_of_versions_is_told_which_is_the_highest(name: str, folder: Path, tmp_path: Path) -> None:
    versions = tmp_path / "models"
    for number in (2, 10):
        shutil.copytree(folder, versions / str(number))
    (versions / "11").mkdir()  # holds no model yet
    image = samples.files()[0]
    arguments: dict[str, list[str | Path]] = {
        "classify": [image, "--model", versions],
        "score": [image, "--model", versions, "--output", tmp_path / "digits.csv"],
        "info": [versions],
        "verify": [versions],
    }
    result = command(name, *arguments[name])
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        f"error: {versions} is a folder of versions, which `scanline serve` alone takes, named 1, 2 and so on; "
        f"expected one of them, such as {versions}/10\n"
    )


def test_a_folder_of_digits_is_no_folder_of_versions(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    expected = r"no model in the folder .*: expected digits\.int8\.onnx or digits\.onnx, as `scanline export` writes"
    with pytest.raises(ModelError, match=expected):
        Reader(tmp_path)


@pytest.mark.parametrize("name", ["info", "verify", "classify"])
def test_a_card_that_is_no_text_is_refused(name: str, folder: Path) -> None:
    (folder / MANIFEST).unlink()
    content = (folder / MODEL).read_bytes()
    (folder / MODEL).write_bytes(content.replace(b"scanline.seed", b"scanline.\xffeed"))
    result = command(name, samples.files()[0], "--model", folder) if name == "classify" else command(name, folder)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        f"error: the metadata of the model {folder / MODEL} is damaged: it is not text; export it again\n"
    )


def test_a_step_model_that_is_not_its_manifest_s_is_not_served(folder: Path) -> None:
    shutil.copy(folder / MODEL, folder / STEP_FILE)
    result = command("serve", "--model", folder, "--listen", "127.0.0.1:0")
    assert result.returncode == 3
    assert f"{STEP_FILE} has " in result.stderr


def test_data_that_is_no_folder_of_digits_is_wrong_use_before_any_check(tmp_path: Path) -> None:
    for folder, problem in ((tmp_path / "none", "is no folder"), (tmp_path, "holds no digits")):
        result = command("verify", SHIPPED, "--data", folder)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr == f"error: {folder} {problem}; expected image files in {folder}/0 to {folder}/9\n"


def test_a_model_that_is_missing_is_not_replaced_by_a_lesser_one(folder: Path) -> None:
    (folder / MODEL).unlink()
    for name in ("info", "verify"):
        result = command(name, folder)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith(f"error: {folder / MODEL} is missing, though {MANIFEST} beside it names it: ")
    with Reader(folder / "digits.onnx") as reader:  # it is what was asked for
        assert reader.classify(samples.files()[0])[0].digit is not None
    (folder / MANIFEST).unlink()  # nothing says that there is a better one
    with Reader(folder) as reader:
        assert reader.classify(samples.files()[0])[0].digit is not None


def test_a_model_does_without_a_manifest(folder: Path) -> None:
    for name in (MANIFEST, GOLDEN):
        (folder / name).unlink()
    with Reader(folder) as reader:
        assert reader.classify(samples.files()[0])[0].digit is not None
