"""The mission from end to end, each step a command in a process of its own: train, export, serve, classify, score."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tests.serve.conftest import ServerProcess, start_server, transport  # noqa: F401 - fixtures


def scanline(*arguments: str | Path) -> str:
    """Run a command that must succeed; give what it printed."""
    result = subprocess.run(
        [sys.executable, "-m", "scanline", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("path")
    scanline("train", "--preset", "seed", "--data", "uci", "--out", folder / "run")
    scanline("export", folder / "run", "--out", folder / "artifacts")
    return folder / "artifacts"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real digits as image files, dark on light and enlarged, the first character of a name being the digit."""
    folder = tmp_path_factory.mktemp("pictures")
    digits = load_digits()
    for index in range(1700, 1760):
        dark_on_light = (255 - digits.images[index] * 15.9).astype(np.uint8)
        picture = Image.fromarray(np.pad(dark_on_light, 4, constant_values=255)).resize(
            (96, 96), Image.Resampling.BICUBIC
        )
        picture.save(folder / f"{digits.target[index]}-{index}.png")
    return folder


def share_right(answers: dict[str, int]) -> float:
    return sum(Path(path).name[0] == str(digit) for path, digit in answers.items()) / len(answers)


def test_a_model_trained_here_reads_files_through_a_server_of_its_own(
    artifacts: Path,
    pictures: Path,
    tmp_path: Path,
    start_server: Callable[..., ServerProcess],  # noqa: F811 - the fixture
) -> None:
    server = start_server("--model", str(artifacts))
    address = server.wait_for("serving")["address"]
    files = sorted(pictures.iterdir())

    lines = scanline("classify", "--json", "--server", address, *files).splitlines()
    classified = {answer["path"]: answer["digit"] for answer in map(json.loads, lines)}
    assert len(classified) == len(files)
    assert share_right(classified) > 0.8  # a seed run on 1,437 digits is no better, a wrong step far worse

    table = tmp_path / "digits.csv"
    scanline("score", pictures, "--output", table, "--server", address)
    with table.open(newline="") as rows:
        scored = {row["path"]: int(row["digit"]) for row in csv.DictReader(rows)}
    assert scored == classified

    scanline("score", pictures, "--output", table, "--model", artifacts)
    with table.open(newline="") as rows:
        assert {row["path"]: int(row["digit"]) for row in csv.DictReader(rows)} == classified

    assert "seed" in scanline("info", artifacts)
    server.process.terminate()
    assert server.end()[0] == 0
