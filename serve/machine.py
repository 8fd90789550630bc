"""How much of the machine this process may use.

A container on a large host sees all of its cores, while its cgroup lets it use two of them; threads made for the others
only get in each other's way (onnxruntime_backend#24, onnxruntime#8313).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from math import ceil
from pathlib import Path
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")
M_ARENA_MAX: Final = -8  # malloc.h
MEMBERSHIP: Final = Path("/proc/self/cgroup")


def cores(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """Give the number of cores that affinity and the cgroups' quotas leave to this process, at least 1.

    Args:
        cgroups: where the cgroup file system is mounted: version 2 (`cpu.max`, the kernel's admin-guide/cgroup-v2.rst)
            or version 1 (`cpu.cfs_quota_us`, its scheduler/sched-bwc.rst).
        membership: the file that names this process's cgroups.
    """
    allowed = len(os.sched_getaffinity(0))
    return max(1, min([allowed, *(ceil(quota) for quota in _quotas(cgroups, membership))]))


def share_memory_pools() -> None:
    """Keep glibc from giving each thread a pool of its own (M_ARENA_MAX in mallopt(3)). Call it before they start.

    With many pools, what one thread has freed is of no use to another, and resident memory wanders: under full load by
    7.5 % in half an hour, with one pool by 2 %. What the lock of that pool costs could not be measured.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have no such pools
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)


def return_memory() -> None:
    """Give memory that is free but kept for later back to the machine (malloc_trim(3)); takes some milliseconds."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _quotas(cgroups: Path, membership: Path) -> Iterator[float]:
    """Give the quotas, in cores, of this process's cgroups and of those that they are in."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:  # not Linux's /proc, or hidden
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = cgroups / controllers if controllers else cgroups
        # Inside a container the path may be the host's, of which nothing is mounted here but the mount's own folder.
        for folder in (mount / path.lstrip("/"), *(mount / path.lstrip("/")).parents):
            quota = _quota(folder)
            if quota is not None:
                yield quota
            if folder == mount:
                break


def _quota(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").is_file():
            allowance, period = (folder / "cpu.max").read_text().split()
        else:
            allowance, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return None if allowance in {"max", "-1"} else int(allowance) / int(period)
    except (OSError, ValueError):  # no quota is kept here
        return None
