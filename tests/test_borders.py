"""What may be loaded where. `lint-imports` reads the code; these look at real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

HEAVY = {"torch", "onnx", "sklearn", "matplotlib", "safetensors", "train", "export"}


def loaded_by(statement: str) -> set[str]:
    """Give the top-level modules that a fresh interpreter holds after a statement."""
    code = (
        f"import json, sys; {statement}; print(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "package", ["scanline", "scanline.reader", "scanline.client", "scanline.cli", "serve", "serve.command"]
)
def test_running_needs_nothing_of_training_and_exporting(package: str) -> None:
    assert loaded_by(f"import {package}") & HEAVY == set()


def test_a_supervisor_of_workers_loads_what_carries_calls_as_little_as_a_model() -> None:
    loaded = loaded_by("import serve.command, serve.supervisor")
    assert "prometheus_client" in loaded
    assert loaded & {"grpc", "google", "onnxruntime", "opentelemetry"} == set()


def test_the_library_alone_is_light() -> None:
    assert (
        loaded_by("import scanline")
        & {"numpy", "onnxruntime", "grpc", "google", "PIL", "pydantic", "rich", "structlog"}
        == set()
    )


def test_nothing_is_reported_to_onnxruntime_s_maker() -> None:
    code = "import os; import scanline.model; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    clean = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=clean)
    assert result.stdout == "1\n"


def test_the_health_check_loads_nothing_but_grpc() -> None:
    loaded = loaded_by("from scanline.cli import main; main(['health', '127.0.0.1:1'])")
    assert "grpc" in loaded
    assert loaded & {"onnxruntime", "numpy", "pydantic", "rich", "structlog", "PIL"} == set()
