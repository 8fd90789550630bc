"""A virtual machine with the bundle installed and its service enabled, for tests that need a kernel of their own."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Final

# Debian as deploy/vm.sh unpacked it, the bundle installed over it without a network, and both on a disk of their own.
DISK: Final = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=$2/root,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount --bind "$3" "$1/root/srv"
mount -t proc proc "$1/root/proc"
chroot "$1/root" /srv/install.sh
cp "$3/scanline.service" "$1/root/etc/systemd/system/"
umount "$1/root/srv" "$1/root/proc"
cat > "$1/root/etc/systemd/system/commands.service"
systemctl --quiet --root="$1/root" enable scanline commands
mke2fs -q -t ext4 -d "$1/root" "$4" 2G
"""
# A shell on the second serial port, by which the tests speak to it.
END: Final = "--end--"
COMMANDS: Final = f"""
[Service]
ExecStart=/bin/sh -c 'stty raw -echo; echo {END} 0; sh | cat'
StandardInput=tty-force
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS1
[Install]
WantedBy=multi-user.target
"""


class VirtualMachine:
    """One; it is emulated, and so takes ten times as long for everything."""

    def __init__(self, made: Path, bundle: Path, folder: Path) -> None:
        """Install and boot it.

        Args:
            made: what deploy/vm.sh made.
            bundle: what is installed.
            folder: an empty one, for its disk.
        """
        (folder / "files").mkdir()
        disk = folder / "disk"
        script = ["unshare", "--mount", "--net", "sh", "-c", DISK, "sh"]
        paths = [folder / "files", made, bundle, disk]
        subprocess.run([*script, *map(str, paths)], input=COMMANDS, capture_output=True, text=True, check=True)
        kernel, start = (next((made / "root" / "boot").glob(name)) for name in ("vmlinuz-*", "initrd.img-*"))
        self._process = subprocess.Popen(
            [
                "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "1500",
                "-display", "none", "-monitor", "none", "-no-reboot", "-nic", "none",
                "-serial", f"file:{folder / 'console'}", "-serial", "stdio",
                "-kernel", kernel, "-initrd", start, "-append", "root=/dev/vda rw console=ttyS0",
                "-drive", f"file={disk},if=virtio,format=raw",
            ],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._output()  # the shell is there

    def call(self, *command: str) -> tuple[int, str]:
        """Run a command in it as root; give its exit code and what it prints on both streams."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{shlex.join(command)} </dev/null 2>&1; code=$?; echo; echo {END} $code\n")
        self._process.stdin.flush()
        return self._output()

    def run(self, *command: str) -> str:
        """Run a command that must succeed; give what it prints."""
        code, output = self.call(*command)
        assert code == 0, f"{command}: {output}"
        return output

    def write(self, path: str, content: str) -> None:
        """Write a file in it."""
        self.run("sh", "-c", f"mkdir -p $(dirname {path}); printf %s {shlex.quote(content)} > {path}")

    def power_off(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()

    def _output(self) -> tuple[int, str]:
        assert self._process.stdout is not None
        lines: list[str] = []
        for line in self._process.stdout:
            if line.startswith(END):
                return int(line.split()[1]), "".join(lines)[:-1]
            lines.append(line)
        raise OSError(f"the machine has gone; it said {lines}")
