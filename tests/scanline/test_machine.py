"""Cores by affinity and by cgroup, memory by cgroup, on folders laid out as the kernel lays them out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scanline import machine
from scanline.machine import cores, memory

ALLOWED = len(os.sched_getaffinity(0))
INSTALLED = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
MIB = 2**20


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have cgroups looked for in a folder; give it."""
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "MEMBERSHIP", tmp_path / "membership")
    return tmp_path


def lay_out(root: Path, membership: str, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = root / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (root / "membership").write_text(membership)


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, ALLOWED),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),  # half a core
        ("0::/\n", {"cpu.max": "6400000 100000\n"}, ALLOWED),  # more than there are
        ("0::/system.slice/digits.service\n", {"system.slice/cpu.max": "100000 100000\n"}, 1),  # set on a parent
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "90000 100000\n"}, 1),
        (
            "4:cpu,cpuacct:/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "50000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            1,
        ),
        (
            "4:cpu,cpuacct:/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            ALLOWED,
        ),
        # version 1 in a container: the path is the host's, the mount shows the container's own folder
        (
            "4:cpu:/docker/0123\n3:memory:/x\n",
            {"cpu/cpu.cfs_quota_us": "70000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            1,
        ),
        ("0::/\n", {"cpu.max": "nonsense\n"}, ALLOWED),
        ("0::/\n", {}, ALLOWED),
    ],
)
def test_the_quota_counts(places: Path, membership: str, files: dict[str, str], expected: int) -> None:
    lay_out(places, membership, files)
    assert cores() == expected


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {"memory.max": "max\n"}, INSTALLED),
        ("0::/\n", {"memory.max": f"{160 * MIB}\n"}, 160 * MIB),
        ("0::/a/b\n", {"a/b/memory.max": f"{96 * MIB}\n", "a/memory.max": f"{64 * MIB}\n"}, 64 * MIB),
        ("4:memory:/docker/0123\n3:cpu:/x\n", {"memory/memory.limit_in_bytes": f"{160 * MIB}\n"}, 160 * MIB),
        # version 1 without a limit: the largest number of whole pages
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, INSTALLED),
        ("4:cpu:/\n", {"memory/memory.limit_in_bytes": f"{160 * MIB}\n"}, INSTALLED),  # not this process's
        ("0::/\n", {"memory.max": "nonsense\n"}, INSTALLED),
    ],
)
def test_the_memory_limit_counts(places: Path, membership: str, files: dict[str, str], expected: int) -> None:
    lay_out(places, membership, files)
    assert memory() == expected


@pytest.mark.usefixtures("places")
def test_no_cgroups_at_all() -> None:
    assert cores() == ALLOWED
    assert memory() == INSTALLED


def test_affinity_counts() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_score_starts_as_many_processes_as_the_quota_has_cores(tmp_path: Path) -> None:
    lay_out(tmp_path, "0::/\n", {"cpu.max": "50000 100000\n"})
    code = (
        "from pathlib import Path; from scanline import machine; from scanline.cli import main; "
        "machine.CGROUPS, machine.MEMBERSHIP = Path('cgroup'), Path('membership'); main(['score', '--help'])"
    )
    line = [sys.executable, "-c", code]
    shown = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, check=False).stdout
    assert "how many the local engine starts (default: 1; " in " ".join(shown.split())
