"""The committed stubs are what protos/ gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STUBS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "scanline").rglob("*_pb2*.py*") if path.suffix != ".pyc")


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stubs")
    binaries = Path(sys.executable).parent
    subprocess.run(
        [
            sys.executable,
            *("-m", "grpc_tools.protoc", "-I", str(ROOT / "protos")),
            *(f"--{kind}_out={out}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")),
            *(f"--plugin=protoc-gen-{kind}={binaries}/protoc-gen-{kind}" for kind in ("mypy", "mypy_grpc")),
            *map(str, sorted((ROOT / "protos").rglob("*.proto"))),
        ],
        check=True,
    )
    return out


@pytest.mark.parametrize("name", STUBS)
def test_a_stub_is_up_to_date(name: str, generated: Path) -> None:
    assert (ROOT / name).read_text() == (generated / name).read_text(), "run `make protos`"


def test_there_are_four_of_each_protocol() -> None:
    protocols = ("scanline/inference/open_inference", "scanline/v1/digits")
    endings = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")
    assert [protocol + ending for protocol in protocols for ending in endings] == STUBS
