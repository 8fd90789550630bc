"""The committed stubs are what protos/ gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STUBS = sorted(path.name for path in (ROOT / "scanline" / "v1").glob("*_pb2*"))


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
    committed = (ROOT / "scanline" / "v1" / name).read_text()
    assert committed == (generated / "scanline" / "v1" / name).read_text(), "run `make protos`"


def test_there_are_four() -> None:
    assert STUBS == ["digits_pb2.py", "digits_pb2.pyi", "digits_pb2_grpc.py", "digits_pb2_grpc.pyi"]
