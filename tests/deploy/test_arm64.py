"""arm64: the base install's aarch64 wheels under emulation, against this machine. `deploy/arm64.sh FOLDER` makes what
it takes, and TEST_ARM64=FOLDER names it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from scanline import Client, samples
from scanline.contract import to_network
from scanline.model import SHIPPED, Model
from train.data import load

FOLDER = os.environ.get("TEST_ARM64", "")
BOARDS = ["pi4", "pi5"]
COUNT = 1000
FLOAT32_TOLERANCE = 1e-5
PATIENCE = 600.0  # emulated, everything takes 30 times as long
LOGITS = """
import sys
import numpy as np
from scanline.model import Model
images, model, out = sys.argv[1:]
np.save(out, Model(model).run(np.load(images)))
"""

pytestmark = [
    pytest.mark.skipif(not FOLDER, reason="TEST_ARM64 does not name a folder made by deploy/arm64.sh"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="compares arm64 with x86-64"),
    pytest.mark.timeout(2 * PATIENCE),
]


@pytest.fixture(params=BOARDS)
def board(request: pytest.FixtureRequest) -> str:
    """The Python of a board."""
    return str(Path(FOLDER).absolute() / request.param)


def test_it_is_another_processor(board: str) -> None:
    look = [board, "-c", "import platform; print(platform.machine())"]
    assert subprocess.run(look, capture_output=True, text=True, check=True).stdout == "aarch64\n"


@pytest.mark.parametrize("name", ["digits.onnx", "digits.int8.onnx"])
def test_a_thousand_images_are_read_alike(board: str, name: str, tmp_path: Path) -> None:
    rows = to_network(load(["uci"], None).train_images[:COUNT])
    np.save(tmp_path / "rows.npy", rows)
    command = [board, "-c", LOGITS, str(tmp_path / "rows.npy"), str(SHIPPED / name), str(tmp_path / "logits.npy")]
    subprocess.run(command, timeout=PATIENCE, check=True)
    there, here = np.load(tmp_path / "logits.npy"), Model(SHIPPED / name).run(rows)
    assert there.shape == (COUNT, 10)
    assert np.array_equal(there.argmax(axis=1), here.argmax(axis=1))
    if name == "digits.onnx":
        np.testing.assert_allclose(there, here, rtol=0, atol=FLOAT32_TOLERANCE)


def test_the_shipped_model_is_verified(board: str) -> None:
    command = [board, "-m", "scanline", "verify", str(SHIPPED / "digits.int8.onnx")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "arm64" in result.stdout


@pytest.fixture
def address(board: str) -> Iterator[str]:
    command = [board, "-m", "scanline", "serve", "--listen", "127.0.0.1:0", "--log-format", "json"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            # onnxruntime may speak of the imitated processor before the first line of ours
            events = (json.loads(line) for line in server.stderr if line.startswith("{"))
            serving = next(event for event in events if event["event"] == "serving")
            yield serving["address"]
        finally:
            server.terminate()
            server.communicate(timeout=PATIENCE)
    assert server.returncode == 0


def test_a_server_answers(address: str) -> None:
    files = samples.files()
    with Client(address, timeout=PATIENCE) as client:
        assert [answer.digit for answer in client.classify(files)] == [samples.label(file) for file in files]
