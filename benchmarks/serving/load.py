"""Load from h2load (https://nghttp2.org), and the proof that what came back were answers.

h2load counts every HTTP 200 as a success, and gRPC errors travel as such: so the answer to the request is checked
against the model first, and the bytes that h2load received must be those of as many such answers.
"""

from __future__ import annotations

import re
import shutil
import statistics
import struct
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
import numpy as np
from numpy.typing import NDArray

from benchmarks.serving.processes import PATIENCE, Running
from scanline.errors import GateError, UsageError
from scanline.reader import Reader
from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsStub

PREFIX_BYTES: Final = 5  # before each gRPC message: compressed or not, and its length
METHOD: Final = "/scanline.v1.Digits/Classify"


@dataclass(frozen=True)
class Load:
    """So many callers, each of whom calls again as soon as the answer is there.

    Attributes:
        connections: how many connections there are.
        callers: how many callers share each.
        images: how many images a call has.
        calls: how many calls are made in all.
    """

    connections: int
    callers: int
    images: int
    calls: int


@dataclass(frozen=True)
class Measured:
    """What a load cost and brought.

    Attributes:
        cpu_us: the server's CPU time for an image, in microseconds.
        rate: images a second.
        p50_us: the median time of a call, in microseconds.
    """

    cpu_us: float
    rate: float
    p50_us: float


def some_images(count: int) -> NDArray[np.uint8]:
    """Give distinct images, uint8 [count, 28, 28]; the network takes as long over noise as over digits."""
    chance = np.random.default_rng(5)
    return chance.integers(0, 256, (count, 28, 28), dtype=np.uint8)


def request_for(images: NDArray[np.uint8]) -> pb.ClassifyRequest:
    """Give the message that asks for images."""
    return pb.ClassifyRequest(pixels=images.tobytes())


def check(response: pb.ClassifyResponse, expected: Iterable[tuple[int, float]]) -> None:
    """Compare a server's answers with the model's own, as digits and confidences.

    Raises:
        GateError: they are not the same.
    """
    if [(answer.digit, answer.confidence) for answer in response.predictions] != list(expected):
        raise GateError("the server's answers are not those of the model in process")


def expected_of(images: NDArray[np.uint8]) -> list[tuple[int, float]]:
    """Give the digit and the confidence of each image, computed in this process."""
    return [(int(answer.digit or 0), float(answer.confidence or 0)) for answer in Reader().classify(images)]


def apply(load: Load, server: Running, core: int) -> Measured:
    """Put a load on a server from a core.

    Raises:
        UsageError: h2load is not installed.
        GateError: what came back were not the right answers, or not all of them.
    """
    if shutil.which("h2load") is None:
        raise UsageError("the benchmark needs h2load, which is not installed: Debian's package nghttp2-client has it")
    images = some_images(load.images)
    request = request_for(images)
    with grpc.insecure_channel(server.address) as channel:
        response = DigitsStub(channel).Classify(request, timeout=PATIENCE)
    check(response, expected_of(images))
    content = request.SerializeToString()
    with tempfile.TemporaryDirectory() as folder:
        body, log = Path(folder, "body"), Path(folder, "log")
        body.write_bytes(struct.pack(">BI", 0, len(content)) + content)
        command = [
            *("taskset", "--cpu-list", str(core), "h2load", "--threads=1", f"--requests={load.calls}"),
            *(f"--clients={load.connections}", f"--max-concurrent-streams={load.callers}"),
            *("-H", "content-type: application/grpc", "-H", "te: trailers"),
            *(f"--data={body}", f"--log-file={log}", f"http://{server.address}{METHOD}"),
        ]
        before = server.cpu_seconds()
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        cpu = server.cpu_seconds() - before
        times = [int(line.split()[2]) for line in log.read_text().splitlines()]
    received = _number(r"headers .*\((\d+)\) data", report)
    if received != load.calls * (PREFIX_BYTES + response.ByteSize()):
        raise GateError(f"{load.calls} answers were due, and {received:.0f} bytes came back: calls have failed")
    answered = load.calls * load.images
    rate = _number(r"([\d.]+) req/s", report) * load.images
    return Measured(cpu / answered * 1e6, rate, statistics.median(times))


def _number(pattern: str, report: str) -> float:
    match = re.search(pattern, report)
    if match is None:
        raise GateError(f"h2load said nothing of {pattern!r}: {report}")
    return float(match[1])
