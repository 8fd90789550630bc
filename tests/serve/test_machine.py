"""Cores by affinity and by cgroup, on folders laid out as the kernel lays them out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from serve.machine import cores

ALLOWED = len(os.sched_getaffinity(0))


def lay_out(root: Path, membership: str, files: dict[str, str]) -> tuple[Path, Path]:
    for name, content in files.items():
        path = root / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (root / "membership").write_text(membership)
    return root / "cgroup", root / "membership"


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
def test_the_quota_counts(tmp_path: Path, membership: str, files: dict[str, str], expected: int) -> None:
    assert cores(*lay_out(tmp_path, membership, files)) == expected


def test_no_cgroups_at_all(tmp_path: Path) -> None:
    assert cores(tmp_path / "none", tmp_path / "none") == ALLOWED


def test_affinity_counts() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, before)
