"""The real clients, unmodified, each in an environment of its own: they register the protocol's symbols, as we do."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from scanline import Reader, samples
from scanline.contract import to_network
from scanline.model import Model
from serve.lifecycle import Server
from tests.serve.conftest import PATIENCE, serving

TRITON = os.environ.get("TEST_TRITON_PYTHON")
PERF_ANALYZER = os.environ.get("TEST_PERF_ANALYZER")


@pytest.fixture(scope="module", params=[True, False], ids=["admin", "no admin"])
def admin(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(scope="module")
def report(transport: str, admin: bool, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What Triton's Python client says of a server."""
    if TRITON is None:
        pytest.skip("TEST_TRITON_PYTHON names no python that has tritonclient[grpc]")
    images = tmp_path_factory.mktemp("triton") / "images.npy"
    np.save(images, pixels())
    with serving(transport=transport, admin=admin) as server:
        command = [TRITON, str(Path(__file__).with_name("triton.py")), server.address, str(images)]
        files = [*map(str, samples.files()), __file__]  # the last is no image
        result = subprocess.run([*command, *files], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def pixels() -> NDArray[np.uint8]:
    chance = np.random.default_rng(3)
    return np.where(chance.random((5, 28, 28)) < 0.8, 0, chance.integers(0, 256, (5, 28, 28))).astype(np.uint8)


def test_tritonclient_reads_digits(report: dict[str, Any]) -> None:
    expected = Reader().classify(pixels(), probabilities=True)
    answer = report["fp32"]
    assert answer["digit"] == [each.digit for each in expected]
    assert answer["rejected"] == [each.rejected for each in expected]
    assert answer["probabilities"] == [[*(each.probabilities or ())] for each in expected]
    assert answer["logits"] == Model().run(to_network(pixels())).tolist()
    assert report["uint8"] == report["async"] == answer
    assert report["id"] == "mine"
    for row, best in zip(answer["probabilities"], report["classes"], strict=True):
        order = sorted(range(10), key=lambda index: -row[index])[:2]
        assert best == [f"{row[index]:f}:{index}:{index}" for index in order]


def test_tritonclient_reads_image_files(report: dict[str, Any]) -> None:
    expected = Reader().classify([*samples.files(), __file__])
    assert report["files"]["digit"] == [-1 if each.error else each.digit for each in expected]
    assert report["files"]["error"] == [each.error or "" for each in expected]
    assert expected[-1].error


def test_tritonclient_streams(report: dict[str, Any]) -> None:
    digits = report["fp32"]["digit"]
    refusal = (
        "the input 'rows' has shape [5, 784], expected [n, 28, 28] with n from 1 to 1024, the server's --max-images"
    )
    assert report["stream"] == [digits, refusal, digits]


def test_tritonclient_finds_what_it_asks_after(report: dict[str, Any]) -> None:
    assert report["live"] == [True, True]
    assert report["ready"] == [True, True, False, False]
    assert report["server"]["name"] == "scanline"
    assert {"statistics", "model_repository", "classification"} <= {*report["server"]["extensions"]}
    assert report["metadata"]["inputs"] == [{"name": "rows", "datatype": "FP32", "shape": ["-1", "28", "28"]}]
    assert report["metadata"]["versions"] == ["1"]
    assert report["config"]["max_batch_size"] == 1024
    assert report["config"]["input"] == [{"name": "rows", "data_type": "TYPE_FP32", "dims": ["28", "28"]}]
    assert report["config"]["parameters"]["name"] == {"string_value": Reader().model().card.name}
    assert [(each["name"], each["version"], each["state"]) for each in report["index"]] == [
        ("digits", "1", "READY"),
        ("digits-image", "1", "READY"),
    ]
    (statistics,) = report["statistics"]
    counted = statistics["inference_stats"]
    assert counted["success"]["count"] == counted["compute_infer"]["count"] == "6"
    assert statistics["inference_count"] == "30"
    assert int(statistics["last_inference"]) > 0
    assert statistics["batch_stats"]


def test_tritonclient_is_told_what_is_wrong(report: dict[str, Any]) -> None:
    shape, version, *missing = report["refused"]
    assert shape.startswith("StatusCode.INVALID_ARGUMENT the input 'rows' has shape [5, 784], expected")
    assert version.startswith("StatusCode.NOT_FOUND model version '9' is not loaded")
    assert [answer.split()[0] for answer in missing] == ["StatusCode.UNIMPLEMENTED"] * 3


def test_tritonclient_loads_and_unloads_only_where_it_may(report: dict[str, Any], admin: bool) -> None:
    if admin:
        assert report["reload"] == [False, True]
    else:
        assert report["reload"].startswith("StatusCode.PERMISSION_DENIED loading and unloading is switched off")


@pytest.fixture
def analyze(server: Server) -> Callable[..., str]:
    """Run perf_analyzer against a server."""
    if PERF_ANALYZER is None:
        pytest.skip("TEST_PERF_ANALYZER names no perf_analyzer (the wheel tritonclient 2.50.0 has it)")
    libraries = next(Path(PERF_ANALYZER).parents[1].glob("lib/python*/site-packages/nvidia/cuda_runtime/lib"))

    def run(*arguments: str) -> str:
        # any noise is stable enough: it is not the speed that is looked at
        short = ("--measurement-mode", "count_windows", "--measurement-request-count", "20", "-s", "100000")
        command = [PERF_ANALYZER, "-u", server.address, "-i", "grpc", *short, *arguments]
        environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries)}
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=4 * PATIENCE, check=False, env=environment
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    return run


@pytest.mark.parametrize(
    "arguments",
    [
        ("-m", "digits", "-b", "8"),
        ("-m", "digits", "-x", "1", "--async"),
        ("-m", "digits", "--streaming", "--async"),
        ("-m", "digits-image", "--shape", "image:3"),
    ],
    ids=" ".join,
)
def test_perf_analyzer_measures(analyze: Callable[..., str], arguments: tuple[str, ...]) -> None:
    report = analyze("--concurrency-range", "2", *arguments)
    assert "Throughput:" in report
    assert "Successful request count:" in report  # from ModelStatistics
