"""The systemd unit under a kernel of its own, with cgroups of version 2. `deploy/vm.sh FOLDER` makes what is booted,
and TEST_VM=FOLDER names it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.sandbox import SANDBOX, probe_sandbox
from tests.deploy.virtual import VirtualMachine

FOLDER = os.environ.get("TEST_VM", "")
MIB = 2**20
CGROUP = "/sys/fs/cgroup/system.slice/scanline.service"
BOARD = "[Service]\nMemoryMax=160M\nCPUQuota=50%\n"
FULL_CALL = """
import numpy as np
from scanline import Client
with Client("127.0.0.1:50051", timeout=300) as client:
    print(len(client.classify(np.zeros((1024, 28, 28), np.uint8))))
"""

pytestmark = [
    pytest.mark.skipif(not FOLDER, reason="TEST_VM does not name a folder made by deploy/vm.sh"),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def machine(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualMachine]:
    booted = VirtualMachine(Path(FOLDER).absolute(), bundle, tmp_path_factory.mktemp("machine"))
    try:
        yield booted
    finally:
        booted.power_off()


def serving(machine: VirtualMachine) -> dict[str, Any]:
    """Wait until the service answers; give what it said of itself then."""
    machine.run("timeout", "300", "sh", "-c", "until /opt/scanline/bin/scanline health; do sleep 1; done")
    machine.run("journalctl", "--sync")
    log = machine.run("journalctl", "--unit", "scanline", "--output", "cat").splitlines()
    events = [json.loads(line) for line in log if line.startswith("{")]
    return dict([event for event in events if event["event"] == "serving"][-1])


def test_it_is_started_at_boot_and_sized_by_the_unit(machine: VirtualMachine) -> None:
    assert machine.run("stat", "--file-system", "--format=%T", "/sys/fs/cgroup") == "cgroup2fs\n"
    said = serving(machine)
    assert (said["memory"], said["max_calls"], said["max_streams"]) == (512 * MIB, 58, 5)
    assert machine.run("cat", f"{CGROUP}/memory.swap.max", f"{CGROUP}/pids.max") == "0\n512\n"


def test_its_sandbox_holds(machine: VirtualMachine) -> None:
    assert probe_sandbox(machine) == SANDBOX


def test_a_board_s_worth_of_memory_serves_and_says_what_it_chose(machine: VirtualMachine) -> None:
    machine.write("/etc/systemd/system/scanline.service.d/board.conf", BOARD)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "scanline")
    said = serving(machine)
    assert machine.run("cat", f"{CGROUP}/memory.max", f"{CGROUP}/cpu.max") == f"{160 * MIB}\n50000 100000\n"
    chosen = {name: said[name] for name in ("memory", "instances", "max_message_bytes", "max_calls", "max_streams")}
    assert chosen == {
        "memory": 160 * MIB, "instances": 1, "max_message_bytes": MIB, "max_calls": 8, "max_streams": 1
    }  # fmt: skip
    assert machine.run("/opt/scanline/bin/python", "-c", FULL_CALL) == "1024\n"
    assert "oom_kill 0\n" in machine.run("cat", f"{CGROUP}/memory.events")
