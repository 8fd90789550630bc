"""The models that ship, each by its name, through every command that takes a model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from scanline import Reader, samples
from scanline.cli import main
from scanline.errors import ModelError
from scanline.model import NAMED, find

LIMIT = 8_000_000  # bytes, of the folder of each


@pytest.mark.parametrize("name", NAMED)
def test_a_name_finds_its_model(name: str) -> None:
    with Reader(name) as reader:
        assert reader.model().card.name == name
        answers = reader.classify(samples.files())
    assert [answer.digit for answer in answers] == [samples.label(file) for file in samples.files()]


@pytest.mark.parametrize("name", NAMED)
def test_a_model_is_small_and_its_card_says_how_good_it_is(name: str) -> None:
    folder = find(name).parent
    assert sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) < LIMIT
    with Reader(name) as reader:
        card = reader.model().card
    assert card.accuracy > 0.995
    assert card.verification["images"] == 10_000
    assert card.accuracy_method in (
        "measured on mnist's 10,000 test images, once, after training",
        "10000 test images of mnist, by the export",  # of an int8 file, which is not what was trained
    )
    assert "dirty" not in card.source_revision
    assert set(card.reject) == {"energy", "confidence"}


@pytest.mark.parametrize("name", NAMED)
def test_every_command_takes_the_name(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample = samples.files()[0]
    assert main(["info", name]) == 0
    assert main(["verify", name]) == 0
    capsys.readouterr()
    assert main(["classify", "--json", "--model", name, str(sample)]) == 0
    assert json.loads(capsys.readouterr().out)["digit"] == samples.label(sample)
    assert main(["score", "--model", name, str(sample), "--output", str(tmp_path / "digits.csv")]) == 0
    assert (tmp_path / "digits.csv").read_text().splitlines()[1].split(",")[1] == str(samples.label(sample))


def test_the_default_is_edge() -> None:
    assert find(None) == find("edge")


def test_what_has_that_name_in_the_working_directory_goes_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(find("edge"), "accurate")
    assert find("accurate") == Path("accurate")
    Path("edge").mkdir()
    with pytest.raises(ModelError, match=r"no model in the folder edge: .*; it hides edge, which ships"):
        find("edge")
    Path("edge").rmdir()
    Path("edge").symlink_to("gone")  # a folder that was to be mounted there
    with pytest.raises(ModelError, match="no such model: edge;"):
        find("edge")


@pytest.mark.parametrize("path", ["./accurate", "accurate/", "models/accurate"])
def test_a_path_is_no_name(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    sample, output = str(samples.files()[0]), "digits.csv"
    for words in (
        ["info", path],
        ["verify", path],
        ["classify", sample, "--model", path],
        ["score", sample, "--model", path, "--output", output],
    ):
        assert main(words) == 1
        said = capsys.readouterr()
        assert (said.out, said.err[: said.err.find(";")]) == ("", f"error: no such model: {path}")
    monkeypatch.setenv("SCANLINE_CLASSIFY_MODEL", path)
    assert main(["classify", sample]) == 1
    assert capsys.readouterr().err.startswith(f"error: no such model: {path};")
    with pytest.raises(ModelError, match=f"no such model: {path};"):
        Reader(path)
    place = Path(shutil.copytree(find("edge").parent, path))
    assert find(path).parent == place


def test_another_name_is_told_which_there_are() -> None:
    with pytest.raises(ModelError, match=r"no such model: exact; .* the name of a model that ships: edge or accurate$"):
        find("exact")
