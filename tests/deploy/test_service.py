"""The systemd unit, started by a real systemd from the bundle: as docs/edge.md has it, on a copy of this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from scanline import samples
from tests.deploy.machine import Machine, missing
from tests.deploy.sandbox import SANDBOX, probe_sandbox
from tests.faults.server import until

HERE = Path(__file__).parent
PYTHON = "/usr/bin/python3"  # one that a service may see: not in somebody's home
SCANLINE = "/opt/scanline/bin/scanline"
DRAIN_DELAY = 2  # seconds


def _other_python() -> str:
    look = [PYTHON, "-c", "import sys; print(sys.version_info[:2])"]
    found = subprocess.run(look, capture_output=True, text=True, check=False).stdout if Path(PYTHON).exists() else ""
    return "" if found == f"{sys.version_info[:2]}\n" else f"{PYTHON} is not of the version that the bundle is for"


NOT_HERE = missing() or _other_python()
pytestmark = [
    pytest.mark.skipif(bool(NOT_HERE), reason=NOT_HERE or "systemd can be booted"),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def machine(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    booted = Machine(tmp_path_factory.mktemp("machine"), bundle)
    try:
        booted.run("env", f"PYTHON={PYTHON}", "/srv/install.sh")
        booted.run("cp", "/srv/scanline.service", "/etc/systemd/system/")
        booted.run("systemctl", "enable", "--now", "scanline")
        yield booted
    finally:
        booted.power_off()


@pytest.fixture
def serving(machine: Machine) -> Machine:
    """The machine with the service up, and no settings for its next start."""
    machine.write("/etc/scanline.env", "")
    machine.run("systemctl", "start", "scanline")
    until(lambda: machine.call(SCANLINE, "health")[0] == 0, "it serves")
    return machine


def told(machine: Machine, name: str) -> str:
    """Ask systemd for what it knows of the service."""
    return machine.run("systemctl", "show", "--property", name, "--value", "scanline").strip()


def test_a_python_that_the_service_could_not_see_is_refused(machine: Machine) -> None:
    machine.run("cp", PYTHON, "/root/python3")
    code, said = machine.call("env", "PYTHON=/root/python3", "/srv/install.sh")
    assert (code, "/root/python3 lies in a home directory" in said) == (1, True)


def test_it_is_enabled_and_answers(serving: Machine) -> None:
    assert serving.run("systemctl", "is-enabled", "scanline") == "enabled\n"
    assert serving.run("systemctl", "is-active", "scanline") == "active\n"
    file = samples.files()[0]
    installed = f"/opt/scanline/lib/python3.{sys.version_info[1]}/site-packages/scanline/samples/{file.name}"
    answer = serving.run(SCANLINE, "classify", "--json", "--server", "127.0.0.1:50051", installed)
    assert json.loads(answer)["digit"] == samples.label(file)


def test_it_has_no_rights(serving: Machine) -> None:
    status = serving.run("cat", f"/proc/{told(serving, 'MainPID')}/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert "0" not in fields["Uid"].split()
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")


def test_its_sandbox_holds(machine: Machine) -> None:
    assert probe_sandbox(machine) == SANDBOX


def test_it_comes_back_when_it_was_killed(serving: Machine) -> None:
    before, restarts = told(serving, "MainPID"), int(told(serving, "NRestarts"))
    serving.run("kill", "-KILL", before)
    until(lambda: serving.call(SCANLINE, "health")[0] == 0, "it serves again")
    assert told(serving, "MainPID") not in {before, "0"}
    assert int(told(serving, "NRestarts")) == restarts + 1


def logged(machine: Machine, invocation: str) -> dict[str, list[datetime]]:
    """Give from the log when the processes of one start of the service came to what they say."""
    machine.run("journalctl", "--sync")
    log = machine.run("journalctl", f"_SYSTEMD_INVOCATION_ID={invocation}", "--output", "cat").splitlines()
    times: dict[str, list[datetime]] = {}
    for event in (json.loads(line) for line in log if line.startswith("{")):
        times.setdefault(event["event"], []).append(datetime.fromisoformat(event["timestamp"]))
    return times


@pytest.mark.parametrize("workers", [1, 2])
def test_stopping_finishes_the_calls_that_are_under_way(serving: Machine, workers: int) -> None:
    serving.write("/etc/scanline.env", f"SCANLINE_WORKERS={workers}\nSCANLINE_DRAIN_DELAY={DRAIN_DELAY}\n")
    serving.run("systemctl", "restart", "scanline")
    invocation = told(serving, "InvocationID")
    until(lambda: "serving" in logged(serving, invocation), "all workers serve")  # health is well from the first on
    serving.write("/opt/drain.py", (HERE / "drain_probe.py").read_text())
    serving.run("/opt/scanline/bin/python", "/opt/drain.py")
    assert (told(serving, "Result"), told(serving, "ExecMainStatus")) == ("success", "0")
    assert told(serving, "ActiveState") == "inactive"
    events = logged(serving, invocation)  # each process is told once: what is told twice ends at once
    assert len(events["draining"]) == workers
    assert min(events["draining"]) - min(events["not serving"]) >= timedelta(seconds=DRAIN_DELAY)


def test_it_is_not_started_again_with_a_setting_that_is_wrong(machine: Machine) -> None:
    machine.write("/etc/scanline.env", "SCANLINE_WORKRES=2\n")
    machine.run("systemctl", "restart", "scanline")
    until(lambda: told(machine, "ActiveState") == "failed", "it has given up")
    assert told(machine, "ExecMainStatus") == "2"
    machine.write("/etc/scanline.env", "")
