"""The systemd unit: nothing in it that systemd does not know, and little that it could do if it were taken over."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "scanline.service"
EXPOSURE = "15"  # tenths: what docs/edge.md claims, and room for other versions of systemd

pytestmark = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


def test_its_exposure_is_low() -> None:
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", str(UNIT)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout.splitlines()[-1:]


def test_systemd_knows_every_line_of_it() -> None:
    command = ["systemd-analyze", "verify", str(UNIT)]
    problems = subprocess.run(command, capture_output=True, text=True, check=False).stderr.splitlines()
    not_installed = "scanline.service: Command /opt/scanline/bin/scanline is not executable: No such file or directory"
    assert [problem for problem in problems if UNIT.name in problem and problem != not_installed] == []
