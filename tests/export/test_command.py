"""`scanline export` as a person calls it: what it writes, what it refuses, and what it leaves behind."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import export.command
from export import evidence
from export.candidates import Candidate, candidates
from export.network import Network
from scanline import manifest
from scanline.cli import main
from scanline.contract import to_network
from scanline.model import Model, StepModel
from scanline.verify import verify
from tests.faults.server import until

WHOLE = {f"{stem}{suffix}" for stem in ("digits", "digits.int8", "digits.int8-full") for suffix in (".onnx", ".ort")}
STEP = {"digits.step.onnx", "digits.step.ort"}
BESIDE = {"golden.npz", "manifest.json", "validation.html"}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def plant(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Give one of the files a NaN in its head."""

    def faulty(network: Network) -> list[Candidate]:
        found = candidates(network)
        model = next(one.model for one in found if one.name == name)
        head = next(tensor for tensor in model.graph.initializer if tensor.name == "head_weight")
        head.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(head) * np.float32("nan"), "head_weight"))
        return found

    monkeypatch.setattr(export.command, "candidates", faulty)


@pytest.fixture
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the gate look at a few of the test images only, where a test is about something else."""

    def few(*arguments: object) -> object:
        full = evidence.gather(*arguments)  # type: ignore[arg-type] # as they were given
        parts = {name: getattr(full, name)[:10] for name in ("images", "rows", "labels", "expected", "every_row")}
        return replace(full, **parts)

    monkeypatch.setattr(export.command, "gather", few)


def test_it_writes_every_artifact(exported: Path) -> None:
    assert names(exported) == WHOLE | STEP | BESIDE
    assert names(exported.parent) == {exported.name}  # and nothing half-made beside it


def test_every_artifact_reads_digits(exported: Path) -> None:
    with np.load(exported / "golden.npz") as golden:
        rows, digits = to_network(golden["images"][:80]), golden["digits"][:80].argmax(axis=1)
    for name in WHOLE:
        found = Model(exported / name).run(rows).argmax(axis=1)
        assert np.count_nonzero(found != digits) <= 2, name
    step = StepModel(exported / "digits.step.onnx")
    state = step.start()
    for row in rows[0]:
        logits, state = step.run(row[None], state)
    assert logits.argmax() == digits[0]


def test_every_artifact_has_its_own_card(exported: Path) -> None:
    cards = {name: Model(exported / name).card for name in WHOLE}
    assert {card.name for card in cards.values()} == {"seed"}
    assert {name for name, card in cards.items() if card.precision == "int8"} == {n for n in WHOLE if "int8" in n}
    assert cards["digits.int8.onnx"].instruction_sets == "any"
    assert "VNNI" in cards["digits.int8-full.onnx"].instruction_sets
    assert all(card.temperature != 1 and card.reject == {} for card in cards.values())
    assert all(card.verification["images"] == 360 for card in cards.values())


def test_the_manifest_names_every_file(exported: Path) -> None:
    found = json.loads((exported / "manifest.json").read_text())
    assert found["name"] == "seed"
    assert set(found["files"]) == WHOLE | STEP | {"golden.npz"}


def test_no_image_of_the_test_set_is_golden(exported: Path) -> None:
    with np.load(exported / "golden.npz") as golden:
        assert set(golden) == {"images", "digits", "digits.int8", "digits.int8-full", "digits.step"}
        assert golden["images"].dtype == np.uint8
        assert len(golden["images"]) == len(golden["digits"])


def test_the_report_is_one_file_with_its_pictures_inside(exported: Path) -> None:
    report = (exported / "validation.html").read_text(encoding="utf-8")
    assert report.count("data:image/png;base64,") >= 2
    assert not any(reference in report for reference in ('src="http', "href=", "<script"))
    assert all(name in report for name in WHOLE | STEP)


def test_the_onnx_files_hold_no_path_and_no_date(exported: Path, trained: Path) -> None:
    model = onnx.load(exported / "digits.onnx")
    assert str(trained.parent) not in str(model.metadata_props)


@pytest.mark.usefixtures("few_images")
def test_an_export_replaces_an_earlier_one_whole(
    exported: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "["
    out = folder / "b]again"  # as a whole what a console might take for its markup
    shutil.copytree(exported, out)
    (out / "digits.onnx").write_bytes(b"old")
    (out / "stale.onnx").write_bytes(b"old")
    manifest.write(out, "seed", sorted(names(out) - {"manifest.json", "validation.html"}))
    assert main(["export", str(trained), "--out", str(out)]) == 0
    assert names(out) == WHOLE | STEP | BESIDE
    assert names(folder) == {"b]again"}
    assert f"{len(WHOLE | STEP)} files in {out}, 0 left out" in capsys.readouterr().out


@pytest.mark.usefixtures("few_images")
def test_nothing_is_written_where_the_float32_model_fails(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(monkeypatch, "digits.onnx")
    assert main(["export", str(trained), "--out", str(tmp_path / "out")]) == 1
    assert names(tmp_path) == set()
    error = capsys.readouterr().err
    assert "digits.onnx failed its checks, so nothing was written" in error
    assert "head_weight holds values that are no finite" in " ".join(error.split())


@pytest.mark.usefixtures("few_images")
def test_a_failed_export_leaves_the_earlier_one_alone(
    exported: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(exported, out)
    plant(monkeypatch, "digits.onnx")
    assert main(["export", str(trained), "--out", str(out)]) == 1
    assert names(out) == names(exported)
    assert all(check.passed for check in verify(out / "digits.ort"))


@pytest.mark.usefixtures("few_images")
def test_float32_ships_where_int8_fails(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, "digits.int8.onnx")
    out = tmp_path / "out"
    assert main(["export", str(trained), "--out", str(out)]) == 1
    left_out = {"digits.int8.onnx", "digits.int8.ort"}  # one model in two formats
    assert names(out) == (WHOLE - left_out) | STEP | BESIDE
    assert not left_out & set(json.loads((out / "manifest.json").read_text())["files"])
    assert all(check.passed for check in verify(out / "digits.onnx"))


def break_data(run: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"data": ["mnist"], "dataset": "mnist"}))


def break_checksum(run: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"dataset_sha256": "0" * 64}))


def break_test_checksum(run: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"test_sha256": "0" * 64}))


def break_weights(run: Path) -> None:
    (run / "checkpoint.safetensors").write_bytes(b"not safetensors")


@pytest.mark.parametrize(
    ("break_it", "code", "words"),
    [
        (break_data, 2, "--data-dir"),
        (break_checksum, 2, "are not those of the run"),
        (break_test_checksum, 2, "the test images of uci are not those of the run"),
        (break_weights, 1, "checkpoint.safetensors is damaged"),
        (shutil.rmtree, 1, "holds no training run"),
    ],
)
def test_a_run_that_cannot_be_checked_is_refused(
    break_it: Callable[[Path], None],
    code: int,
    words: str,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, data = tmp_path / "run", tmp_path / "data"
    shutil.copytree(trained, run)
    data.mkdir()
    break_it(run)
    assert main(["export", str(run), "--out", str(tmp_path / "out"), "--data-dir", str(data)]) == code
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_things_is_not_replaced(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    assert main(["export", str(trained), "--out", str(tmp_path)]) == 2
    assert "is no earlier export" in capsys.readouterr().err
    assert names(tmp_path) == {"precious.txt"}


def test_a_stopped_export_leaves_nothing_behind(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "edge"
    command = [sys.executable, "-m", "scanline", "export", str(trained), "--out", str(out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: bool(names(tmp_path)), "it has begun")
        process.send_signal(signal.SIGTERM)
        error = process.communicate()[1]
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in error
    assert names(tmp_path) == set()
