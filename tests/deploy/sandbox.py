"""What the systemd unit forbids, tried by a program in the server's place: sandbox_probe.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

HERE = Path(__file__).parent
UNIT = HERE.parents[1] / "deploy" / "systemd" / "scanline.service"
PROBE = "/opt/scanline/probe.py"
# What should come of each try.
SANDBOX = {
    "write into /opt/scanline": "EROFS",
    "write into /etc": "EROFS",
    "write into /var": "EROFS",
    "write into /tmp": "done",  # which is its own
    "look into /root": "EACCES",
    "read the kernel's messages": "ENOENT",
    "set a kernel variable": "EROFS",
    "become root": "EPERM",
    "have a file run as its owner": "EPERM",
    "open a Unix socket": "EAFNOSUPPORT",
    "open a netlink socket": "EAFNOSUPPORT",
    "open an IP socket": "done",
    "make a namespace": "EPERM",
    "run in real time": "EPERM",
    "change the personality": "EPERM",
    "name the host": "EPERM",
    "mount": "EPERM",
    "write memory that is run": "EPERM",
    "processes in sight": "1",
}


class Machine(Protocol):
    """A container or a virtual machine with the bundle in it."""

    def run(self, *command: str) -> str: ...
    def write(self, path: str, content: str) -> None: ...


def probe_sandbox(machine: Machine) -> dict[str, Any]:
    """Run the probe with the options of the unit."""
    unit = UNIT.read_text().replace("bin/scanline serve", f"bin/python {PROBE}").replace("on-failure", "no")
    machine.write("/etc/systemd/system/probe.service", unit.replace("[Service]", "[Service]\nType=oneshot"))
    machine.write(PROBE, (HERE / "sandbox_probe.py").read_text())
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "probe")
    machine.run("journalctl", "--sync")
    log = machine.run("journalctl", "--unit", "probe", "--output", "cat").splitlines()
    return dict(json.loads(next(line for line in log if line.startswith("{"))))
