"""What a new version costs the calls that are under way: a caller's times while one is published every second.

    python -m benchmarks.serving.reload         # under a minute on two idle cores

The server has one core, on which a version that comes is also proved and warmed up, and the caller another. The same
file is published again and again under a higher number, as a deployment does it. docs/benchmarks.md has what came out.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import grpc
from pydantic import Field
from rich.table import Table

from benchmarks.ending import end_with
from benchmarks.serving.processes import PATIENCE, serving, two_cores
from benchmarks.serving.protocols import some_images
from scanline import console, manifest
from scanline.errors import GateError
from scanline.model import find
from scanline.settings import Settings, parse
from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsStub
from scanline.verify import GOLDEN

EVERY: Final = 1.0  # seconds between versions
POLL: Final = 0.1  # seconds between the server's looks at the folder


class ReloadBenchmark(Settings):
    """Measure a caller's times with and without new versions."""

    seconds: float = Field(20, gt=0, description="how long each of the two is measured")


class Models:
    """A folder of versions."""

    def __init__(self, folder: Path) -> None:
        """Begin it with one version."""
        self.folder = folder
        self.highest = 0
        self.publish()

    def publish(self) -> None:
        """Publish the shipped model as the next version, and take the one before the last away."""
        self.highest += 1
        making = self.folder / ".making"
        making.mkdir()
        for name in (find(None).name, GOLDEN):
            shutil.copy(find(None).with_name(name), making)
        manifest.write(making, "benchmark", [find(None).name, GOLDEN])
        making.rename(self.folder / str(self.highest))
        shutil.rmtree(self.folder / str(self.highest - 2), ignore_errors=True)

    def publish_until(self, over: threading.Event) -> None:
        """Publish a version every now and then."""
        while not over.wait(EVERY):
            self.publish()


def times(stub: DigitsStub, seconds: float) -> tuple[list[float], str]:
    """Call one after the other for so long; give the milliseconds of each call, and the version that answered last."""
    request = pb.ClassifyRequest(pixels=some_images(1).tobytes())
    found: list[float] = []
    end = time.perf_counter() + seconds
    while (started := time.perf_counter()) < end:
        version = stub.Classify(request, timeout=PATIENCE).model_version
        found.append((time.perf_counter() - started) * 1000)
    return found, version


def measure(seconds: float) -> tuple[dict[str, list[float]], int]:
    """Give the times without and with new versions, and how many of those there were.

    Raises:
        GateError: the server has not taken them.
    """
    server_core, load_core = two_cores()
    os.sched_setaffinity(0, {load_core})
    with TemporaryDirectory() as folder:
        models = Models(Path(folder))
        options = ("--model", folder, "--model-poll", str(POLL))
        with serving("loop", server_core, options=options) as server, grpc.insecure_channel(server.address) as channel:
            stub = DigitsStub(channel)
            times(stub, 1)  # buffers grow to their size
            still, _ = times(stub, seconds)
            over = threading.Event()
            publisher = threading.Thread(target=models.publish_until, args=(over,))
            publisher.start()
            try:
                changing, version = times(stub, seconds)
            finally:
                over.set()
                publisher.join()
    if int(version) < models.highest - 1:
        raise GateError(f"version {version} answered last, and {models.highest} were published")
    return {"none": still, "every second": changing}, int(version) - 1


def main() -> None:
    """Measure, and print a table; a call that fails ends it."""
    found, versions = measure(parse(ReloadBenchmark, "benchmarks.serving.reload", sys.argv[1:]).seconds)
    result = Table("new versions", "calls", "p50 ms", "p99 ms", "p99.9 ms", "longest ms", title=f"{versions} versions")
    for name, values in found.items():
        cuts = statistics.quantiles(values, n=1000)
        shown = (cuts[499], cuts[989], cuts[998], max(values))
        result.add_row(name, f"{len(values):,}", *(f"{value:.2f}" for value in shown))
    console.out.print(result)


if __name__ == "__main__":
    end_with(main)
