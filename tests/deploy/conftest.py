"""The bundle, made and unpacked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked archive."""
    folder = tmp_path_factory.mktemp("bundle")
    probe = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder / "probe"), "mdurl"]
    if subprocess.run(probe, capture_output=True, check=False, timeout=300).returncode:
        pytest.skip("no package index answers, from which the wheels come")
    environment = os.environ | {"PYTHON": sys.executable}
    made = subprocess.run(["deploy/bundle.sh"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    archive = ROOT / made.stdout.splitlines()[-1]
    subprocess.run(["tar", "--extract", "--file", archive, "--directory", folder], check=True)  # as the docs say
    return next(folder.glob("scanline-*"))
