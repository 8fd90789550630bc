"""Where a run was made: the machine and the revision of the code."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import torch


def hardware(device: torch.device) -> str:
    """Name the machine, such as ``AMD EPYC 9B14, 2 threads`` or ``NVIDIA H200``."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")  # Linux; elsewhere the architecture has to do
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    threads = torch.get_num_threads()
    return f"{names[0] if names else platform.machine()}, {threads} thread{'s' if threads > 1 else ''}"


def source_revision() -> str:
    """Give the commit of the checkout that this code runs from, with ``-dirty`` where it was changed since.

    Returns:
        The commit's hash, or ``unknown`` where there is no git, or no checkout that this file belongs to; installed
        below another project's folder, it lies in that one's.
    """
    own = ["git", "ls-files", "--error-unmatch", Path(__file__).name]
    revision = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        for command in (own, revision):
            done = subprocess.run(  # noqa: S603 - fixed commands
                command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
            )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
