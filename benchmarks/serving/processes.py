"""The servers as pinned processes, and what the kernel says of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from scanline.errors import UsageError
from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsStub

# The calls at once that a large machine admits, whatever the memory of this one.
SCANLINE: Final = (
    "-m", "scanline", "serve", "--listen", "127.0.0.1:0", "--log-format", "json", "--max-calls", "1024"
)  # fmt: skip
SERVERS: Final[Mapping[str, Sequence[str]]] = {
    "loop": (*SCANLINE, "--transport", "loop"),
    "threads": (*SCANLINE, "--transport", "threads"),
    "plain": ("-m", "benchmarks.serving.plain"),
}
PLAIN: Final = "plain"
# Not compared with the others: what the counting costs.
COUNTED: Final = "counted"
UNCOUNTED: Final = "uncounted"
COUNTING: Final[Mapping[str, Sequence[str]]] = {
    COUNTED: (*SCANLINE, "--metrics-listen", "127.0.0.1:0"),
    UNCOUNTED: ("-m", "benchmarks.serving.uncounted", *SCANLINE[2:]),
}
PATIENCE: Final = 30.0


@dataclass(frozen=True)
class Running:
    """A server under measurement.

    Attributes:
        address: where it listens.
        pid: its process.
        ready: seconds from the start of the process to its first answer.
        metrics_address: where it answers operators; None where it does not.
    """

    address: str
    pid: int
    ready: float
    metrics_address: str | None = None

    def cpu_seconds(self) -> float:
        """Give the CPU time that it and its child processes have used, user and system (proc(5), /proc/PID/stat)."""
        ticks = 0
        for pid in self._processes():
            after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(after_name[11]) + int(after_name[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def resident_mb(self) -> float:
        """Give the resident memory of all of them in MB (10^6 bytes); what they share counts for each."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self._processes())
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def end(self) -> None:
        """Kill it and its child processes."""
        for pid in self._processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _processes(self) -> list[int]:
        """Give the process and those below it: each tells its children in /proc/PID/task/TID/children (proc(5))."""
        found = [self.pid]
        for pid in found:
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                found += map(int, task.read_text().split())
        return found


def two_cores() -> tuple[int, int]:
    """Give the core of the server and the core of the load generator.

    Raises:
        UsageError: this process may use one core alone.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise UsageError("the benchmark needs two cores: one for the server and one for the load")
    return cores[0], cores[1]


@contextmanager
def pinned(command: Sequence[str], *cores: int) -> Iterator[subprocess.Popen[str]]:
    """Run a Python command on some cores until the context is left."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SCANLINE_")}
    command = ["taskset", "--cpu-list", ",".join(map(str, cores)), sys.executable, *command]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def serving(name: str, *cores: int, options: Sequence[str] = ()) -> Iterator[Running]:
    """Run one of the servers on some cores, with more options, from its first answer on."""
    started = time.perf_counter()
    command = (*{**SERVERS, **COUNTING}[name], *options)
    with ThreadPoolExecutor(1) as aside, pinned(command, *cores) as process:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        aside.submit(deque, process.stdout, 0)  # until it is killed: a full pipe would hold it up
        said = {"address": line} if name == PLAIN else json.loads(line)
        address = str(said["address"])
        with grpc.insecure_channel(address) as channel:
            if name == PLAIN:
                DigitsStub(channel).Classify(pb.ClassifyRequest(pixels=bytes(784)), timeout=PATIENCE)
            else:
                answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
        yield Running(address, process.pid, time.perf_counter() - started, said.get("metrics_address"))
