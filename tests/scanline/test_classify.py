"""`scanline classify` as a person and as a program meet it."""

from __future__ import annotations

import json
import os
import random
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from scanline import Reader, samples


def command(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SCANLINE_")} | variables
    line = [sys.executable, "-m", "scanline", "classify", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, env=environment, check=False)


def test_the_shipped_model_reads_every_sample() -> None:
    files = samples.files()
    assert {samples.label(file) for file in files} == set(range(10))
    with Reader() as reader:
        answers = reader.classify(files)
    assert {file.name: answer.digit for file, answer in zip(files, answers, strict=True)} == {
        file.name: samples.label(file) for file in files
    }


def test_a_person_gets_a_table() -> None:
    names = [file.name for file in samples.files()]
    result = subprocess.run(
        [sys.executable, "-m", "scanline", "classify", *names],
        capture_output=True,
        text=True,
        cwd=samples.files()[0].parent,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    lines = {line.split()[1]: line.split()[3::2] for line in result.stdout.splitlines() if "." in line}
    with Reader() as reader:
        answers = reader.classify(samples.files())
    assert lines == {
        name: [str(answer.digit), f"{answer.confidence:.1%}", answer.status]
        for name, answer in zip(names, answers, strict=True)
    }


def test_a_program_gets_json_lines_and_an_exit_code(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_text("no image")
    given = [samples.files()[0], broken, tmp_path / "none.png", samples.files()[1]]
    for result in (command(*given, "--json"), command(*given, SCANLINE_CLASSIFY_JSON="true")):
        assert result.returncode == 1
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        assert [line["path"] for line in lines] == [str(path) for path in given]
        assert [line["status"] for line in lines] == ["ok", "error", "error", "ok"]
        assert [len(line["probabilities"] or []) for line in lines] == [10, 0, 0, 10]
        assert sum(lines[0]["probabilities"]) == pytest.approx(1)
        assert lines[0]["confidence"] == max(lines[0]["probabilities"])
        assert lines[1]["error"] == "the file's format can't be read; expected PNG, JPEG, BMP, TIFF or WebP"
        assert lines[2]["error"] == f"can't read {tmp_path / 'none.png'}: No such file or directory"


def test_options_may_stand_between_the_files() -> None:
    first, second, third = map(str, samples.files()[:3])
    result = command(first, "--json", second, "--model", "accurate", third)
    assert result.returncode == 0, result.stderr
    assert [json.loads(row)["path"] for row in result.stdout.splitlines()] == [first, second, third]
    result = command(first, "--json", "--", "--model")  # which is a file's name then
    assert [json.loads(row)["path"] for row in result.stdout.splitlines()] == [first, "--model"]
    result = command("--json", "--", "-odd.png")
    assert [json.loads(row)["path"] for row in result.stdout.splitlines()] == ["-odd.png"]


def test_a_name_that_cannot_be_looked_at_costs_the_others_nothing() -> None:
    first, long = str(samples.files()[0]), 300 * "a" + ".png"
    rows = [json.loads(row) for row in command("--json", first, long).stdout.splitlines()]
    assert [row["path"] for row in rows] == [first, long]
    assert rows[1]["error"] == f"can't read {long}: File name too long"


def test_an_image_may_come_on_standard_input() -> None:
    first, second = samples.files()[:2]
    line = [sys.executable, "-m", "scanline", "classify", str(first), "-", "--json"]
    for given in (second.read_bytes(), b""):
        result = subprocess.run(line, capture_output=True, input=given, check=False)
        rows = [json.loads(row) for row in result.stdout.splitlines()]
        assert [row["path"] for row in rows] == [str(first), "-"]
        if given:
            assert (result.returncode, rows[1]["digit"]) == (0, samples.label(second))
        else:
            error = "the file is empty; expected an image, PNG, JPEG, BMP, TIFF or WebP"
            assert (result.returncode, rows[1]["error"]) == (1, error)


def test_a_file_is_taken_by_the_name_that_was_given(tmp_path: Path) -> None:
    image = samples.files()[0].read_bytes()
    (tmp_path / "-").write_bytes(image)
    (tmp_path / "a.png").write_bytes(image)
    line = [sys.executable, "-m", "scanline", "classify", "--json", "./-", "./a.png", "http://host/a.png"]
    result = subprocess.run(line, cwd=tmp_path, input="", capture_output=True, text=True, check=False)
    rows = [json.loads(row) for row in result.stdout.splitlines()]
    assert [row["path"] for row in rows] == ["./-", "./a.png", "http://host/a.png"]
    assert [row["digit"] for row in rows] == [samples.label(samples.files()[0])] * 2 + [None]
    assert rows[2]["error"] == "can't read http://host/a.png: No such file or directory"


def test_a_rejected_digit_is_shown_as_a_guess(tmp_path: Path) -> None:
    blank = tmp_path / "page.png"
    Image.new("L", (200, 100), 255).save(blank)
    result = command(blank, COLUMNS="300")
    assert result.returncode == 0, result.stderr
    (line,) = (line for line in result.stdout.splitlines() if "page.png" in line)
    assert re.search(r"│ - \(\d\) +│ +[\d.]+% +│ rejected: blank +│", line)


def test_a_table_is_folded_to_the_width_that_there_is(tmp_path: Path) -> None:
    long = tmp_path / ("long" * 30) / ("name" * 30)  # no file
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    line = [sys.executable, "-m", "scanline", "classify", str(samples.files()[0]), str(long)]
    piped = subprocess.run(line, capture_output=True, text=True, env=environment, check=False)
    assert len(piped.stdout.splitlines()) == 6  # a row each, below the head's three lines
    assert f"│ {long} │" in piped.stdout
    assert f"error: can't read {long}: No such file or directory │" in piped.stdout
    for width in (80, 48):
        folded = command(samples.files()[0], long, COLUMNS=str(width)).stdout
        assert {len(line) for line in folded.splitlines()} == {width}
        assert "…" not in folded
    for columns in ("0", ""):  # which say nothing of a width
        assert command(samples.files()[0], long, COLUMNS=columns).stdout == piped.stdout


def test_an_error_stands_in_the_table(tmp_path: Path) -> None:
    result = command(tmp_path / "none.png")
    assert result.returncode == 1
    assert "can't read" in " ".join(result.stdout.split())


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.tif"
    os.mkfifo(pipe)
    result = command(pipe, samples.files()[0], "--json")
    assert result.returncode == 1
    first, second = map(json.loads, result.stdout.splitlines())
    assert first["error"] == f"can't read {pipe}: it is a pipe, a socket or a device, not a file"
    assert second["status"] == "ok"


def test_a_folder_costs_its_neighbours_nothing(tmp_path: Path) -> None:
    (tmp_path / "more.png").mkdir()
    result = command(tmp_path / "more.png", samples.files()[0], "--json")
    assert result.returncode == 1
    first, second = map(json.loads, result.stdout.splitlines())
    assert first["error"] == (
        f"can't read {tmp_path / 'more.png'}: it is a folder, not a file; `scanline score` reads folders"
    )
    assert second["status"] == "ok"


def test_what_score_would_read_is_said(tmp_path: Path) -> None:
    result = command(tmp_path / "*.png", "--json")
    assert result.returncode == 1
    assert json.loads(result.stdout)["error"] == (
        f"can't read {tmp_path / '*.png'}: No such file or directory; `scanline score` reads patterns"
    )


def test_a_name_that_is_no_utf_8_is_printable_json(tmp_path: Path) -> None:
    result = command(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"), "--json")
    assert result.returncode == 1
    row = json.loads(result.stdout)
    assert row["path"] == f"{tmp_path}/\\udcff.png"
    assert row["error"] == f"can't read {tmp_path}/\\udcff.png: No such file or directory"


def test_a_variable_that_needs_a_server_is_named() -> None:
    result = command(samples.files()[0], SCANLINE_CLASSIFY_TIMEOUT="5")
    assert result.returncode == 2
    assert result.stderr.startswith("error: --timeout, SCANLINE_CLASSIFY_TIMEOUT without --server: ")


def test_what_pillow_says_of_a_file_is_the_file_s_error_alone(tmp_path: Path) -> None:
    path = tmp_path / "channels.tif"
    Image.new("RGB", (30, 30)).save(path)
    content = bytearray(path.read_bytes())
    samples_a_pixel = content.index(struct.pack("<HHI", 277, 3, 1)) + 8
    struct.pack_into("<H", content, samples_a_pixel, 56)  # too many, as Pillow logs
    path.write_bytes(content)
    result = command(path, "--json")
    assert (result.returncode, result.stderr) == (1, "")
    assert json.loads(result.stdout)["error"].startswith("the image is damaged")


@pytest.mark.parametrize("compression", ["tiff_deflate", "tiff_lzw", "group4", "jpeg"])
def test_a_damaged_tiff_is_an_error_and_nothing_else(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "scan.tif"
    sheets = [Image.effect_noise((60, 80), 90).convert("1" if compression == "group4" else "L") for _ in range(3)]
    sheets[0].save(path, save_all=True, append_images=sheets[1:], compression=compression)
    content = path.read_bytes()
    chance = random.Random(1)
    for number in range(8):
        damaged = bytearray(content)
        for place in range(8, len(damaged), 12):
            damaged[place] ^= chance.randrange(256)
        (tmp_path / f"{number}.tif").write_bytes(damaged[: len(content) * (9 - number) // 9])
    result = command(*sorted(tmp_path.glob("[0-9].tif")), "--json")
    assert (result.returncode, result.stderr) == (1, "")
    errors = [error for row in result.stdout.splitlines() if (error := json.loads(row)["error"])]
    assert errors
    assert all(error.startswith("the image ") for error in errors), errors


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "required: FILE"),
        (["a.png", "--model", "none.onnx"], 1, "none.onnx"),
        (["a.png", "--model", __file__], 1, "it is no ONNX model"),
        (["a.png", "--model", "m", "--server", "s:1"], 2, "--model, --server exclude each other"),
        (["a.png", "--server", "127.0.0.1:1"], 1, "no answer from 127.0.0.1:1"),
        (["a.png", "--tls"], 2, "--tls without --server"),
        (["a.png", "--timeout", "5", "--token-file", "t"], 2, "--timeout, --token-file without --server"),
        (
            ["a.png", "--server", "127.0.0.1:1", "--timeout", "inf"],
            2,
            "--timeout should be less than or equal to 31536000, not 'inf'",
        ),
        (["a.png", ""], 2, "argument FILE: expected a value, not ''"),
        (["a.png", "--model", ""], 2, "argument --model: expected a value, not ''"),
    ],
    ids=[
        "no file",
        "no model",
        "another file",
        "both engines",
        "no server",
        "TLS with no server",
        "options of a call with no server",
        "no end to a call",
        "an empty name",
        "an empty model",
    ],
)
def test_wrong_use_is_said(arguments: list[str], code: int, words: str) -> None:
    result = command(*arguments)
    assert result.returncode == code
    assert words in result.stderr


def test_an_option_from_the_environment_is_named() -> None:
    result = command("a.png", "--model", "m", SCANLINE_CLASSIFY_SERVER="s:1")
    assert result.returncode == 2
    assert "--model, --server, SCANLINE_CLASSIFY_SERVER exclude each other" in result.stderr
