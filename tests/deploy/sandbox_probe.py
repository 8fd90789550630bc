"""Run in the service's place, with its options: tries what the unit forbids, and prints what came of each try."""

import ctypes
import errno
import json
import mmap
import os
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWUSER = 0x10000000
EVERYTHING = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC


def call(name: str, *arguments: object) -> None:
    if getattr(LIBC, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)


def set_user_id_on_a_file() -> None:
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).chmod(0o4755)


TRIES: dict[str, Callable[[], object]] = {
    "write into /opt/scanline": Path("/opt/scanline/x").touch,
    "write into /etc": Path("/etc/x").touch,
    "write into /var": Path("/var/x").touch,
    "write into /tmp": Path("/tmp/x").touch,
    "look into /root": lambda: list(Path("/root").iterdir()),
    "read the kernel's messages": Path("/dev/kmsg").read_bytes,
    "set a kernel variable": lambda: Path("/proc/sys/kernel/hostname").write_text("x"),
    "become root": lambda: os.setuid(0),
    "have a file run as its owner": set_user_id_on_a_file,
    "open a Unix socket": lambda: socket.socket(socket.AF_UNIX),
    "open a netlink socket": lambda: socket.socket(socket.AF_NETLINK),
    "open an IP socket": lambda: socket.socket(socket.AF_INET6),
    "make a namespace": lambda: call("unshare", CLONE_NEWUSER),
    "run in real time": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
    "change the personality": lambda: call("personality", 0x0040000),
    "name the host": lambda: socket.sethostname("x"),
    "mount": lambda: call("mount", b"x", b"/tmp", b"tmpfs", 0, None),
    "write memory that is run": lambda: mmap.mmap(-1, 4096, prot=EVERYTHING),
}


def outcome(tried: Callable[[], object]) -> str:
    try:
        tried()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


found = {name: outcome(tried) for name, tried in TRIES.items()}
found["processes in sight"] = str(sum(entry.name.isdigit() for entry in Path("/proc").iterdir()))
json.dump(found, sys.stdout)
