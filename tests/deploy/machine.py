"""A copy of this machine, booted by systemd in a container: what is done in it is gone with it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.faults.server import until

# An overlay over this machine's files, without its services and its network, and a systemd that has it to itself.
BOOT: Final = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount -t tmpfs tmpfs "$1/root/etc/systemd/system"
exec systemd-nspawn --quiet --directory="$1/root" --bind-ro="$2:/srv" --private-network --keep-unit --register=no \
  --console=pipe --boot -- --unit=basic.target
"""
NEEDED: Final = ("systemd-nspawn", "nsenter", "unshare")


def missing() -> str:
    """Say what this machine lacks for it; empty if nothing."""
    lacks = [name for name in NEEDED if not shutil.which(name)] + ["root"] * bool(os.getuid())
    return f"booting a copy of this machine takes {' and '.join(lacks)}" if lacks else ""


class Machine:
    """It."""

    def __init__(self, folder: Path, srv: Path) -> None:
        """Boot it.

        Args:
            folder: an empty one, where its files are laid over this machine's.
            srv: a folder that it has as /srv, to be read.
        """
        command = ["unshare", "--mount", "sh", "-c", BOOT, "sh", str(folder), str(srv)]
        self._container = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        until(lambda: self._container.poll() is not None or self._is_booted(), "it has booted")
        if self._container.poll() is not None:
            raise OSError(self._container.communicate()[0])

    def call(self, *command: str) -> tuple[int, str]:
        """Run a command in it as root; give its exit code and what it prints on both streams."""
        result = subprocess.run(
            ["nsenter", "--target", self._leader(), "--all", "--root", "--wd", "--", *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        return result.returncode, result.stdout

    def run(self, *command: str) -> str:
        """Run a command that must succeed; give what it prints."""
        code, output = self.call(*command)
        assert code == 0, f"{command}: {output}"
        return output

    def write(self, path: str, content: str) -> None:
        """Write a file in it."""
        Path(f"/proc/{self._leader()}/root{path}").write_text(content)

    def power_off(self) -> None:
        """End it."""
        self.call("systemctl", "poweroff")
        self._container.communicate(timeout=60)

    def _leader(self) -> str:
        """Give the id of its process 1 in this machine; empty before there is one."""
        children = Path(f"/proc/{self._container.pid}/task/{self._container.pid}/children")
        return children.read_text().strip()

    def _is_booted(self) -> bool:
        return bool(self._leader()) and self.call("systemctl", "is-active", "basic.target")[0] == 0
