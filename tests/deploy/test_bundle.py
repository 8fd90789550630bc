"""`make bundle`: one archive, installed and used where there is no network."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

# A network namespace of its own has no way out; its loopback interface is down at first.
ALONE = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]

pytestmark = [
    pytest.mark.skipif(
        bool(os.getuid()) or not shutil.which("unshare") or not shutil.which("ip"),
        reason="a network namespace takes root, unshare and ip",
    ),
    pytest.mark.timeout(900),
]


def alone(*command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*ALONE, *map(str, command)], capture_output=True, text=True, check=check)


def test_the_namespace_has_no_route() -> None:
    assert alone("ip", "route").stdout == ""


def test_it_installs_and_serves_without_a_network(bundle: Path, tmp_path: Path) -> None:
    installed = alone(bundle / "install.sh", tmp_path / "scanline", check=False)
    assert installed.returncode == 0, installed.stdout + installed.stderr
    assert "golden" in installed.stdout  # the model was verified on this machine
    demo = alone(tmp_path / "scanline" / "bin" / "scanline", "demo", check=False)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "12 of 12 image files read right" in demo.stdout


def test_a_damaged_wheel_is_refused(bundle: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "bundle"
    shutil.copytree(bundle, damaged)
    wheel = next((damaged / "wheels").glob("mdurl-*.whl"))
    wheel.write_bytes(wheel.read_bytes() + b"x")
    result = alone(damaged / "install.sh", tmp_path / "scanline", check=False)
    assert result.returncode != 0
    assert "DO NOT MATCH THE HASHES" in result.stderr
