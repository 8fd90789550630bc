"""How much of the machine this process may use.

A container on a large host sees all of its cores and memory, while its cgroup lets it use two of them and half a
gigabyte; threads and processes made for the others only get in each other's way (onnxruntime_backend#24,
onnxruntime#8313), and memory taken beyond the limit is the end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from math import ceil
from pathlib import Path
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")  # version 2, or the controllers of version 1
MEMBERSHIP: Final = Path("/proc/self/cgroup")


def cores() -> int:
    """Give the number of cores that affinity and the cgroups' quotas leave to this process, at least 1."""
    allowed = len(os.sched_getaffinity(0))
    return max(1, min([allowed, *(ceil(quota) for quota in _limits("cpu", _quota))]))


def memory() -> int:
    """Give the bytes of memory that the machine and the cgroups' limits leave to this process."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(min([installed, *_limits("memory", _memory_limit)]))


def _limits(controller: str, read: Callable[[Path], float | None]) -> Iterator[float]:
    """Give what a controller limits in this process's cgroups and in those that they are in."""
    try:
        lines = MEMBERSHIP.read_text().splitlines()
    except OSError:  # not Linux's /proc, or hidden
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = CGROUPS / controllers
        # Inside a container the path may be the host's, of which nothing is mounted here but the mount's own folder.
        for folder in (mount / path.lstrip("/"), *(mount / path.lstrip("/")).parents):
            try:
                limit = read(folder)
            except (OSError, ValueError):  # no limit is kept here
                limit = None
            if limit is not None:
                yield limit
            if folder == mount:
                break


def _quota(folder: Path) -> float | None:
    """Give a cgroup's quota in cores (the kernel's admin-guide/cgroup-v2.rst; version 1: scheduler/sched-bwc.rst)."""
    if (folder / "cpu.max").is_file():
        allowance, period = (folder / "cpu.max").read_text().split()
    else:
        allowance, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
    return None if allowance in {"max", "-1"} else int(allowance) / int(period)


def _memory_limit(folder: Path) -> float | None:
    """Give a cgroup's limit in bytes; version 1 has a very large one where there is none."""
    second = folder / "memory.max"
    limit = (second if second.is_file() else folder / "memory.limit_in_bytes").read_text().strip()
    return None if limit == "max" else int(limit)
