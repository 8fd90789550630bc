"""Other servers beside Scanline's: the same int8 model, the same loads, one core each for the server and the load.

    for peer in mlserver litserve bentoml nvidia-pytriton; do
        /usr/bin/python3 -m venv peers/$peer && peers/$peer/bin/pip install $peer onnxruntime
    done
    python -m benchmarks.serving.peers --environments peers

PyTriton's Triton wants a Python whose libpython is a shared library, as Debian's is and many built by hand are not.
Each peer is in an environment of its own; one that is missing is left out. MLServer and PyTriton are asked over the
Open Inference Protocol, as Scanline and the plain server are; LitServe and BentoML, which have HTTP alone, with base64
in JSON. CPU time is of the server and all its processes. docs/benchmarks.md has what came out.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
from pydantic import Field
from rich.table import Table

from benchmarks.ending import end_with
from benchmarks.serving.__main__ import LARGE, LONE, SMALL
from benchmarks.serving.load import Load, apply
from benchmarks.serving.peers.common import free_ports
from benchmarks.serving.processes import Running, serving, two_cores
from benchmarks.serving.protocols import OPEN_INFERENCE, JsonProtocol, Protocol, some_images
from scanline import console
from scanline.errors import GateError
from scanline.model import find
from scanline.settings import Settings, parse

HERE: Final = Path(__file__).parent
PATIENCE: Final = 60.0
OURS: Final = {"Scanline": "loop", "grpc.server": "plain"}


@dataclass(frozen=True)
class Peer:
    """Another server.

    Attributes:
        environment: its folder below those of all peers.
        script: what starts it.
        protocol: how it is asked.
    """

    environment: str
    script: str
    protocol: Protocol


PEERS: Final = {
    "MLServer": Peer("mlserver", "mlserver_peer.py", OPEN_INFERENCE),
    "PyTriton": Peer("nvidia-pytriton", "pytriton_peer.py", OPEN_INFERENCE),
    "LitServe": Peer("litserve", "litserve_peer.py", JsonProtocol("/predict")),
    "BentoML": Peer("bentoml", "bentoml_peer.py", JsonProtocol("/predict")),
}


class PeersBenchmark(Settings):
    """Compare Scanline's server with others."""

    environments: Path = Field(description="folder with a virtual environment for each peer")
    repeats: int = Field(3, ge=1, description="how often each server is measured")
    share: float = Field(1.0, gt=0, le=1, description="share of the calls that are made, to see that all works")


@contextmanager
def started(peer: Peer, environments: Path, core: int) -> Iterator[Running]:
    """Run a peer on a core, from its first right answer on."""
    (port,) = free_ports(1)
    python = environments.absolute() / peer.environment / "bin" / "python"
    command = ["taskset", "--cpu-list", str(core), str(python), peer.script, str(find(None).absolute()), str(port)]
    begun = time.perf_counter()
    with subprocess.Popen(
        command, cwd=HERE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        server = Running(f"127.0.0.1:{port}", process.pid, 0.0)
        try:
            while True:
                try:
                    peer.protocol.answer(server.address, some_images(1))
                    break
                except (OSError, grpc.RpcError) as error:
                    if process.poll() is not None or time.perf_counter() - begun > PATIENCE:
                        raise GateError(f"{peer.script} does not answer: {error}") from None
                    time.sleep(0.05)
            yield Running(server.address, process.pid, time.perf_counter() - begun)
        finally:
            server.end()


def measure(settings: PeersBenchmark) -> dict[str, dict[str, list[float]]]:
    """Measure every server in turn, again and again; give its figures by their names."""
    server_core, load_core = two_cores()
    figures: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    peers = {name: peer for name, peer in PEERS.items() if (settings.environments / peer.environment).is_dir()}

    def apply_all(name: str, server: Running, protocol: Protocol) -> None:
        found = figures[name]
        for load in (SMALL, LARGE, LONE):
            fewer = Load(load.connections, load.callers, load.images, max(round(load.calls * settings.share), 100))
            measured = apply(fewer, server, load_core, protocol)
            found[f"{load} rate"].append(measured.rate)
            found[f"{load} cpu"].append(measured.cpu_us)
            found[f"{load} p50"].append(measured.p50_us)
        found["resident"].append(server.resident_mb())
        found["ready"].append(server.ready)

    with console.progress("servers") as progress:
        task = progress.add_task("measuring", total=settings.repeats * (len(OURS) + len(peers)))
        for _ in range(settings.repeats):
            for name, kind in OURS.items():
                with serving(kind, server_core) as server:
                    apply_all(name, server, OPEN_INFERENCE)
                progress.advance(task)
            for name, peer in peers.items():
                with started(peer, settings.environments, server_core) as server:
                    apply_all(name, server, peer.protocol)
                progress.advance(task)
    return figures


def table(figures: dict[str, dict[str, list[float]]]) -> Table:
    """Give the medians as a table."""
    rows = {
        "32 callers of 1 image: images/s": f"{SMALL} rate",
        "CPU us/image": f"{SMALL} cpu",
        "4 callers of 32 images: images/s": f"{LARGE} rate",
        "CPU us/image ": f"{LARGE} cpu",
        "1 caller of 1 image: p50 us": f"{LONE} p50",
        "resident, MB": "resident",
        "start to answer, s": "ready",
    }
    result = Table("", title="medians")
    for name in figures:
        result.add_column(name, justify="right", no_wrap=True)
    for heading, key in rows.items():
        medians = (statistics.median(found[key]) for found in figures.values())
        result.add_row(heading, *(f"{value:,.{2 if value < 10 else 0}f}" for value in medians))
    return result


def main() -> None:
    """Run what the command line asks for."""
    console.out.print(table(measure(parse(PeersBenchmark, "benchmarks.serving.peers", sys.argv[1:]))))


if __name__ == "__main__":
    end_with(main)
