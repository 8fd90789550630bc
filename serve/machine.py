"""How much of the machine this process may use.

A container on a large host sees all of its cores, while its cgroup lets it use two of them; threads made for the others
only get in each other's way (onnxruntime_backend#24, onnxruntime#8313).
"""

from __future__ import annotations

import os
from math import ceil
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def cores(cgroups: Path = CGROUPS) -> int:
    """Give the number of cores that affinity and the cgroup's quota leave to this process, at least 1.

    Args:
        cgroups: where the cgroup file system is mounted: version 2 (`cpu.max`) or version 1 (`cpu/cpu.cfs_quota_us`),
            as described in the kernel's admin-guide/cgroup-v2.rst and scheduler/sched-bwc.rst.
    """
    allowed = len(os.sched_getaffinity(0))
    quota = _quota(cgroups)
    return allowed if quota is None else max(1, min(allowed, ceil(quota)))


def _quota(cgroups: Path) -> float | None:
    try:
        unified = cgroups / "cpu.max"
        if unified.is_file():
            allowance, period = unified.read_text().split()
        else:
            allowance = (cgroups / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroups / "cpu" / "cpu.cfs_period_us").read_text().strip()
        return None if allowance in {"max", "-1"} else int(allowance) / int(period)
    except (OSError, ValueError):  # no cgroups, or not mounted here: no quota
        return None
