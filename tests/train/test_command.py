from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from scanline.cli import main
from train import checkpoint, data


def train(out: Path, *options: str) -> int:
    return main(["train", "--data", "uci", "--out", str(out), *options])


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def without_times(lines: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def test_a_run_leaves_its_files_and_nothing_else(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        "config.json", "checkpoint.safetensors", "figures.json", "metrics.jsonl", "report.html", "report.json",
    }  # fmt: skip
    lines = metrics(finished)
    assert [line["step"] for line in lines] == [10 * epoch for epoch in range(1, 25)]
    assert lines[-1]["loss"] < lines[0]["loss"] / 2
    assert lines[-1]["validation_accuracy"] > 0.9
    assert checkpoint.load(finished).figures.accuracy > 0.8


def test_the_device_and_the_figures_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "run", "--epochs", "1") == 0
    shown = capsys.readouterr()
    first = r"^training edge \(79,390 weights\) by 1,318 images of uci in 10 steps, on .*, 1 thread$"
    assert re.search(first, shown.err, re.MULTILINE)
    assert "95 % interval" in shown.out
    assert "scanline export" in shown.out


def own_digits(folder: Path, count: int = 200) -> str:
    """Write digits as files, dark on light, and give the folder as `--data` takes it."""
    digits = data.load(["uci"], None)
    for number, (image, label) in enumerate(zip(digits.train_images[:count], digits.train_labels[:count], strict=True)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - image).save(folder / str(label) / f"{number:03}.png")
    return f"folder:{folder}"


def test_a_teacher_of_a_folder_that_has_grown_since_is_refused(
    tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, teacher, trial = own_digits(tmp_path / "own"), tmp_path / "teacher", tmp_path / "trial"
    options = ["train", "--data", spec, "--epochs", "1"]
    assert main([*options, "--out", str(teacher)]) == 0
    taught = ["--teacher", str(teacher), "--out"]
    assert main([*options, *taught, str(tmp_path / "before")]) == 0

    own_digits(tmp_path / "own", 201)  # one more: what is held out, and what is for the test, are others now
    assert main([*options, "--out", str(trial)]) == 0
    capsys.readouterr()
    for more in ([], ["--calibrated-by", str(trial)]):
        assert main([*options, *more, *taught, str(tmp_path / "run")]) == 2
        error = capsys.readouterr().err
        assert f"--teacher {teacher}: it was trained on {spec} too, but its data have another checksum" in error
        assert "train the teacher again on this run's data as they are now, in the same order" in error
    assert not (tmp_path / "run").exists()

    (tmp_path / "link").symlink_to(tmp_path / "own")
    for path in (tmp_path / "teacher" / ".." / "own", tmp_path / "link"):  # other names of the same folder
        assert main(["train", "--data", f"folder:{path}", "--epochs", "1", *taught, str(tmp_path / "run")]) == 2
        assert "but its data have another checksum" in capsys.readouterr().err
    assert main([*options, "--teacher", str(finished), "--out", str(tmp_path / "run")]) == 0  # of other data


def test_a_run_on_a_folder_may_go_on_from_another_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own_digits(tmp_path / "own")
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    assert main(["train", "--data", "folder:own", "--epochs", "1", "--out", str(run)]) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["train", "--resume", "--out", str(run)]) == 0
    assert "is finished already" in capsys.readouterr().err


def test_a_seed_repeats_bit_for_bit(tmp_path: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert train(tmp_path / name, "--epochs", "2", "--seed", seed) == 0
    a, b, c = ((tmp_path / name / "checkpoint.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c
    assert without_times(metrics(tmp_path / "a")) == without_times(metrics(tmp_path / "b"))


def test_the_seed_preset_reports_every_50_steps_and_the_last(tmp_path: Path) -> None:
    assert train(tmp_path / "run", "--preset", "seed", "--epochs", "8") == 0
    lines = metrics(tmp_path / "run")
    assert [line["step"] for line in lines] == [1, 51, 101, 104]  # that is, after steps 0, 50 and 100, and the last
    assert lines[0]["batch_accuracy"] < 0.5 < lines[-1]["batch_accuracy"]


def test_the_seed_preset_on_mnist(tmp_path: Path, mnist_folder: Path) -> None:
    out = tmp_path / "run"
    options = ["--data", "mnist", "--data-dir", str(mnist_folder), "--out", str(out)]
    assert main(["train", "--preset", "seed", *options]) == 0
    assert [line["step"] for line in metrics(out)] == [1, *range(51, 502, 50)]
    assert checkpoint.load(out).figures.accuracy > 0.92


def test_a_trial_leaves_the_test_set_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "run", "--epochs", "1", "--trial") == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["measurements"]["images"] == 119
    assert "119 training images" in report["figures"]["accuracy_method"]
    assert report["measurements"]["accuracy"] == metrics(tmp_path / "run")[-1]["validation_accuracy"]
    assert report["measurements"]["rejected"]["digits"] == 0  # of so few, the thresholds reject none
    in_sample = "found on the very images that temperature and thresholds were chosen by"
    assert in_sample in " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert (tmp_path / "run" / "report.html").read_text().count(in_sample) == 2


def test_a_calibrated_run_trains_on_every_image(tmp_path: Path, finished: Path) -> None:
    assert train(tmp_path / "run", "--epochs", "1", "--calibrated-by", str(finished)) == 0
    (line,) = metrics(tmp_path / "run")
    assert line["step"] == 1437 // 128
    assert "validation_accuracy" not in line
    figures, other = (checkpoint.load(run).figures for run in (tmp_path / "run", finished))
    assert figures.temperature == other.temperature
    expected = f"taken from a run by another recipe that held images out: {other.temperature_method}"
    assert figures.temperature_method == expected  # of one epoch, not of 24


def test_a_run_may_be_calibrated_by_one_with_other_teachers(tmp_path: Path, finished: Path) -> None:
    trial, run = tmp_path / "trial", tmp_path / "run"
    assert train(trial, "--epochs", "1", "--trial", "--teacher", str(finished)) == 0
    seen = Path(shutil.copytree(finished, tmp_path / "seen"))
    checkpoint.save_config(seen, replace(checkpoint.load_config(finished), calibrated_by=str(finished)))
    assert train(run, "--epochs", "1", "--calibrated-by", str(trial), "--teacher", str(seen)) == 0
    assert checkpoint.load(run).figures.temperature_method.startswith("taken from a run that held images out: fitted")
    assert train(tmp_path / "alone", "--epochs", "1", "--calibrated-by", str(trial)) == 0
    method = checkpoint.load(tmp_path / "alone").figures.temperature_method
    assert method.startswith("taken from a run by another recipe that held images out: fitted")


def test_a_finished_run_is_neither_overwritten_nor_resumed(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (finished / "checkpoint.safetensors").stat().st_mtime_ns
    assert train(finished) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert main(["train", "--resume", "--out", str(finished)]) == 0
    assert "is finished already" in capsys.readouterr().err
    assert (finished / "checkpoint.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--epochs", "0"], "--epochs should be greater than or equal to 1, not '0'"),
        (["--epochs", "many"], "--epochs should be a valid integer"),
        (["--learning-rate", "nan"], "--learning-rate should be"),
        (["--learning-rate", "-1"], "--learning-rate should be greater than 0"),
        (["--seed", "-1"], "--seed should be greater than or equal to 0"),
        (["--preset", "huge"], "--preset should be 'seed', 'edge' or 'accurate', not 'huge'"),
        (["--layers", "3"], "unrecognized arguments: --layers 3"),
        (["--data", "letters"], "--data takes mnist, uci or folder:PATH, not 'letters'"),
        (["--device", "cuda"], "finds no CUDA device"),
        (["--trial", "--calibrated-by", "x"], "leave one of them out"),
    ],
)  # fmt: skip
def test_wrong_options_are_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    assert train(tmp_path / "run", *options) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", ["--data", "--data-dir", "--calibrated-by", "--teacher"])
def test_a_path_that_no_run_can_keep_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    path = os.fsdecode(bytes(tmp_path) + b"/\xff")
    assert train(tmp_path / "run", option, f"folder:{path}" if option == "--data" else path) == 2
    error = capsys.readouterr().err
    assert f"{option} " in error
    assert r"\udcff: a run keeps paths as UTF-8, and this one has other bytes" in error
    assert not (tmp_path / "run").exists()


def test_an_out_that_is_a_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").write_text("notes")
    assert train(tmp_path / "run") == 2
    assert "--out is a file or lies in one; expected a folder" in capsys.readouterr().err
    assert (tmp_path / "run").read_text() == "notes"


def test_out_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--data", "uci"]) == 2
    assert "--out is missing" in capsys.readouterr().err


def test_calibration_by_an_unsuitable_run_is_refused(
    tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", "--calibrated-by", str(tmp_path / "nowhere")) == 1
    assert "holds no training run" in capsys.readouterr().err
    assert train(tmp_path / "run", "--preset", "seed", "--calibrated-by", str(finished)) == 2
    assert "it should be a run of seed that held images out, not one of edge" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_is_calibrated_by_one_on_the_same_images(
    tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = checkpoint.load_config(finished)
    other = Path(shutil.copytree(finished, tmp_path / "other"))
    checkpoint.save_config(other, replace(config, dataset="mnist", dataset_sha256="0" * 64))
    expected = f"--calibrated-by {other}: it should be a run on the same images of uci, not on those of mnist with"
    assert train(tmp_path / "run", "--calibrated-by", str(other)) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "run").exists()

    (tmp_path / "begun").mkdir()
    checkpoint.save_config(tmp_path / "begun", replace(config, calibrated_by=str(other)))
    assert main(["train", "--resume", "--out", str(tmp_path / "begun")]) == 2
    assert expected in capsys.readouterr().err


def test_no_teacher_has_seen_the_images_that_are_held_out(
    tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = checkpoint.load_config(finished)
    seen = Path(shutil.copytree(finished, tmp_path / "seen"))
    checkpoint.save_config(seen, replace(config, calibrated_by=str(finished)))
    expected = f"--teacher {seen}: it was trained on the images that this run holds out; give a teacher"
    assert train(tmp_path / "run", "--teacher", str(seen)) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert f"such as {finished}" in error
    assert not (tmp_path / "run").exists()

    (tmp_path / "begun").mkdir()
    checkpoint.save_config(tmp_path / "begun", replace(config, teacher=(str(seen),)))
    assert main(["train", "--resume", "--out", str(tmp_path / "begun")]) == 2
    assert expected in capsys.readouterr().err

    assert train(tmp_path / "all", "--epochs", "1", "--teacher", str(seen), "--calibrated-by", str(finished)) == 0

    more = replace(config, calibrated_by=str(finished), dataset_sha256="0" * 64)  # the run's data, and some more
    checkpoint.save_config(seen, more)
    assert train(tmp_path / "run", "--teacher", str(seen)) == 2
    assert expected in capsys.readouterr().err


def test_a_run_learns_from_teachers_and_goes_on_with_them(
    tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", "--epochs", "1", "--teacher", str(finished), "--teacher", str(finished)) == 0
    assert checkpoint.load(tmp_path / "run").config.teacher == (str(finished), str(finished))
    assert train(tmp_path / "alone", "--epochs", "1") == 0
    first, second = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("run", "alone"))
    assert first["history"][0]["loss"] != second["history"][0]["loss"]
    capsys.readouterr()
    assert main(["train", "--resume", "--teacher", "another", "--out", str(tmp_path / "run")]) == 2
    assert f"--teacher was {finished} and {finished}, not another" in " ".join(capsys.readouterr().err.split())


def test_a_run_goes_on_with_the_teacher_that_it_began_with(
    tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher, begun = Path(shutil.copytree(finished, tmp_path / "teacher")), tmp_path / "begun"
    assert train(tmp_path / "run", "--epochs", "1", "--teacher", str(teacher)) == 0
    begun.mkdir()
    shutil.copy(tmp_path / "run" / checkpoint.CONFIG, begun)
    shutil.copy(tmp_path / "run" / checkpoint.WEIGHTS, teacher)  # trained again meanwhile
    was, now = (
        hashlib.sha256((run / checkpoint.WEIGHTS).read_bytes()).hexdigest() for run in (finished, tmp_path / "run")
    )
    assert main(["train", "--resume", "--out", str(begun)]) == 1
    expected = f"began with other weights of --teacher {teacher}: its checksum was {was}, now it is {now}"
    assert expected in capsys.readouterr().err


def test_an_unsuitable_teacher_is_refused(tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "run", "--teacher", str(tmp_path / "nowhere")) == 1
    assert "holds no training run" in capsys.readouterr().err
    assert train(tmp_path / "run", "--preset", "seed", "--teacher", str(finished)) == 2
    assert "seed learns from digits alone, and edge from images of no digit as well" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_no_run_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert train(tmp_path, "--epochs", "1") == 2
    assert f"--out {tmp_path} is there and is no run: it holds notes.txt" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_divergence_stops_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "run", "--epochs", "2", "--learning-rate", "1e30") == 1
    assert re.search(
        r"the loss is (nan|inf) after step 10.*in another --out, with a lower --learning-rate than 1e\+30",
        capsys.readouterr().err,
    )
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_divergence_in_the_last_steps_is_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "run", "--preset", "seed", "--epochs", "1", "--learning-rate", "1e30") == 1
    assert "after step 13, and the weights are lost" in capsys.readouterr().err
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_divergence_of_the_last_step_of_all_is_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = own_digits(tmp_path / "own")  # one step an epoch, whose loss is that of the first weights
    options = ["--data", spec, "--epochs", "1", "--learning-rate", "1e300"]
    assert main(["train", *options, "--out", str(tmp_path / "run")]) == 1
    assert "after step 1, and the weights are lost" in capsys.readouterr().err
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_no_data_at_all_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCANLINE_TRAIN_DATA", "[]")
    assert main(["train", "--out", str(tmp_path / "run")]) == 2
    assert "SCANLINE_TRAIN_DATA" in capsys.readouterr().err


def test_too_few_images_for_a_batch_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image, ImageDraw

    for digit in range(10):
        (tmp_path / "own" / str(digit)).mkdir(parents=True)
        for number in range(6):
            image = Image.new("L", (28, 28), 255)
            ImageDraw.Draw(image).text((10, 5 + number), str(digit), font_size=18)
            image.save(tmp_path / "own" / str(digit) / f"{number}.png")
    options = ["--data", f"folder:{tmp_path / 'own'}", "--out", str(tmp_path / "run")]
    assert main(["train", *options]) == 1
    assert "there are 46 images to train on, fewer than one batch of 128" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()  # so that the same command goes once there are more


def test_options_are_read_without_the_packages_of_training() -> None:
    code = (
        "import sys, train.settings; "
        "assert not {'torch', 'sklearn', 'safetensors', 'matplotlib'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
