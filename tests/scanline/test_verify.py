"""`scanline verify` and `scanline info` on exported files, sound and damaged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from scanline import verify as verification
from scanline.cli import main
from scanline.contract import ModelCard
from scanline.errors import ModelError
from scanline.manifest import MANIFEST, write
from scanline.verify import GOLDEN, INT8_TOLERANCE, instruction_set, verify

OLD_PYTHON = "TEST_OLD_ORT_PYTHON"  # not SCANLINE_*: the commands refuse names that they do not know
MODELS = [f"digits{kind}{suffix}" for kind in ("", ".int8", ".int8-full", ".step") for suffix in (".onnx", ".ort")]


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """A copy of the export, to damage."""
    return shutil.copytree(exported, tmp_path / "copy")


def failed(path: Path) -> set[str]:
    return {check.name for check in verify(path) if not check.passed}


def rewrite_manifest(folder: Path) -> None:
    write(folder, "seed", [path.name for path in folder.iterdir() if path.name != MANIFEST])


@pytest.mark.parametrize("name", MODELS)
def test_every_exported_file_is_verified(name: str, exported: Path) -> None:
    assert failed(exported / name) == set()


def test_it_needs_neither_onnx_nor_torch(exported: Path) -> None:
    code = (
        "import sys; from scanline.cli import main; code = main(sys.argv[1:]); "
        "loaded = {'torch', 'onnx', 'sklearn'} & set(sys.modules); sys.exit(f'{loaded} loaded' if loaded else code)"
    )
    for command in ("verify", "info"):
        done = subprocess.run(
            [sys.executable, "-c", code, command, str(exported)], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_a_changed_byte_is_found(folder: Path) -> None:
    path = folder / "digits.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # in the middle of the weights
    path.write_bytes(content)
    assert "manifest" in failed(path)


def test_a_file_cut_short_is_said_to_be_another_than_the_manifest_s(folder: Path) -> None:
    file = folder / "digits.int8.onnx"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"has 1000 bytes .* but manifest\.json beside it says"):
        verify(file)
    (folder / "manifest.json").unlink()
    with pytest.raises(ModelError, match="can't load the model"):
        verify(file)


def test_wrong_numbers_are_found_though_the_manifest_agrees(folder: Path) -> None:
    path = folder / "digits.onnx"
    model = onnx.load(path)
    head = next(tensor for tensor in model.graph.initializer if tensor.name == "head_bias")
    head.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(head) + np.float32(1e-3), "head_bias"))
    onnx.save(model, path)
    rewrite_manifest(folder)
    assert failed(path) == {"golden"}


def test_int8_is_held_to_a_share_of_what_quantising_changed(folder: Path) -> None:
    with np.load(folder / GOLDEN) as arrays:
        golden = dict(arrays)
    quantisation = np.abs(golden["digits.int8"] - golden["digits"]).max()
    for share, expected in ((0.8, set()), (1.2, {"golden"})):
        moved = golden["digits.int8"].copy()
        moved[0, 0] += share * INT8_TOLERANCE[instruction_set()] * quantisation
        np.savez(folder / GOLDEN, allow_pickle=False, **(golden | {"digits.int8": moved}))
        rewrite_manifest(folder)
        assert failed(folder / "digits.int8.onnx") == expected


@pytest.mark.parametrize("missing", [GOLDEN, MANIFEST])
def test_a_file_copied_alone_says_what_is_missing(missing: str, folder: Path) -> None:
    (folder / missing).unlink()
    with pytest.raises(ModelError, match="copy"):
        verify(folder / "digits.onnx")


def test_golden_vectors_that_hold_objects_are_refused(folder: Path) -> None:
    np.savez(folder / GOLDEN, images=np.array([{}], dtype=object))
    rewrite_manifest(folder)
    with pytest.raises(ModelError, match="no golden vectors"):
        verify(folder / "digits.onnx")


def test_the_command_fails_on_wrong_numbers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copyfile(folder / "digits.int8-full.onnx", folder / "digits.int8.onnx")
    assert main(["verify", str(folder / "digits.int8.onnx")]) == 1
    out, err = capsys.readouterr()
    assert "manifest" in out
    assert "failed" in err


def test_ones_own_digits_are_read_too(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with np.load(exported / GOLDEN) as arrays:
        images, digits = arrays["images"][:80:4], arrays["digits"][:80:4].argmax(axis=1)
    for index, (image, digit) in enumerate(zip(images, digits, strict=True)):
        (tmp_path / str(digit)).mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / str(digit) / f"{index}.png")
    (tmp_path / "3" / "notes.txt").write_text("no image")
    assert main(["verify", str(exported), "--data", str(tmp_path)]) == 0
    assert "of 20 digits right" in " ".join(capsys.readouterr().out.split())


def test_an_unreadable_digit_of_ones_own_is_named(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "torn.png").write_bytes(b"not an image")
    assert main(["verify", str(exported), "--data", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert "torn.png" in err
    assert out == ""  # no check, which would call it a wrong number


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", "flags : avx2 avx512_vnni", "x86-64 with VNNI"),
        ("x86_64", "flags : avx2 avx_vnni", "x86-64 with VNNI"),
        ("AMD64", "flags : avx2", "x86-64"),
        ("aarch64", "", "arm64"),
        ("riscv64", "", "other"),
    ],
)
def test_the_instruction_set_is_found(
    machine: str, flags: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(flags)
    monkeypatch.setattr(verification, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert instruction_set() == expected


def test_info_shows_the_card_and_the_checksum(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(exported / "digits.step.ort")]) == 0
    shown = capsys.readouterr().out
    checksum = json.loads((exported / MANIFEST).read_text())["files"]["digits.step.ort"]["sha256"]
    assert checksum in "".join(shown.replace("│", "").split())
    for field in ModelCard.__dataclass_fields__:
        assert field.replace("_", " ") in shown


def test_info_refuses_a_file_that_is_not_its_manifests(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copyfile(folder / "digits.ort", folder / "digits.onnx")
    assert main(["info", str(folder / "digits.onnx")]) == 1
    assert "manifest.json" in capsys.readouterr().err


def test_info_does_without_a_manifest(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / MANIFEST).unlink()
    assert main(["info", str(folder)]) == 0
    assert "there is no" in capsys.readouterr().out


@pytest.mark.skipif(OLD_PYTHON not in os.environ, reason=f"{OLD_PYTHON} names no python that has an old onnxruntime")
@pytest.mark.parametrize("name", MODELS)
def test_the_oldest_onnxruntime_gives_the_same_digits(name: str, exported: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from scanline.verify import verify; "
        "print(*(f'{check.name}: {check.detail}' for check in verify(Path(sys.argv[1])) if not check.passed))"
    )
    done = subprocess.run(
        [os.environ[OLD_PYTHON], "-c", code, str(exported / name)],
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == ""
