"""Load from h2load (https://nghttp2.org) or perf_analyzer, and the proof that what came back were answers.

h2load counts every HTTP 200 as a success, and gRPC errors travel as such: so the answer to the request is checked
against the model first, and the bytes that h2load received must be those of as many such answers.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import grpc

from benchmarks.serving.processes import Running
from benchmarks.serving.protocols import DIGITS, OPEN_INFERENCE, Protocol, some_images
from scanline.errors import GateError, UsageError
from scanline.inference.open_inference_pb2 import ModelStatisticsRequest
from scanline.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub


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


def apply(load: Load, server: Running, core: int, protocol: Protocol = DIGITS) -> Measured:
    """Put a load on a server from a core.

    Raises:
        UsageError: h2load is not installed.
        GateError: what came back were not the right answers, or not all of them.
    """
    if shutil.which("h2load") is None:
        raise UsageError("the benchmark needs h2load, which is not installed: Debian's package nghttp2-client has it")
    images = some_images(load.images)
    answer = protocol.answer(server.address, images)
    content, options = protocol.load(images)
    with tempfile.TemporaryDirectory() as folder:
        body, log = Path(folder, "body"), Path(folder, "log")
        body.write_bytes(content)
        command = [
            *("taskset", "--cpu-list", str(core), "h2load", "--threads=1", f"--requests={load.calls}"),
            *(_sharing(load) if "--h1" not in options else [f"--clients={load.connections * load.callers}"]),
            *options,
            *(f"--data={body}", f"--log-file={log}", f"http://{server.address}{protocol.method}"),
        ]
        before = server.cpu_seconds()
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        cpu = server.cpu_seconds() - before
        times = [int(line.split()[2]) for line in log.read_text().splitlines()]
    received = _number(r"headers .*\((\d+)\) data", report)
    if received != load.calls * protocol.size(answer):
        raise GateError(f"{load.calls} answers were due, and {received:.0f} bytes came back: calls have failed")
    answered = load.calls * load.images
    rate = _number(r"([\d.]+) req/s", report) * load.images
    return Measured(cpu / answered * 1e6, rate, statistics.median(times))


def analyze(analyzer: Path, load: Load, server: Running, core: int) -> Measured:
    """Put a load on a server from a core with perf_analyzer, which speaks the Open Inference Protocol.

    Its measure of the calls is its own: of those that it makes at full load, windows of which are like one another.

    Raises:
        GateError: a call failed, or it found no steady state.
    """
    OPEN_INFERENCE.answer(server.address, some_images(load.images))
    libraries = next(analyzer.parents[1].glob("lib/python*/site-packages/nvidia/cuda_runtime/lib"))
    concurrency = load.connections * load.callers
    command = [
        *("taskset", "--cpu-list", str(core), str(analyzer), "-m", "digits", "-u", server.address, "-i", "grpc"),
        *("--async", f"-b{load.images}", f"--concurrency-range={concurrency}", "--input-data=zero"),
        *("--measurement-mode=count_windows", f"--measurement-request-count={load.calls // 4}", "-s30"),
    ]
    before = server.cpu_seconds()
    images = _images_seen(server)
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "LD_LIBRARY_PATH": str(libraries)}
    )
    if result.returncode:
        raise GateError(f"perf_analyzer failed: {result.stdout[-500:]}{result.stderr[-500:]}")
    cpu = (server.cpu_seconds() - before) / (_images_seen(server) - images)
    rate = _number(r"Throughput: ([\d.]+) infer/sec", result.stdout)
    return Measured(cpu * 1e6, rate, _number(r"p50 latency: (\d+) usec", result.stdout))


def _images_seen(server: Running) -> int:
    """Give how many images a server has counted, perf_analyzer's warm-up and what it throws away included."""
    with grpc.insecure_channel(server.address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        (model,) = stub.ModelStatistics(ModelStatisticsRequest(name="digits")).model_stats
    return int(model.inference_count)


def _sharing(load: Load) -> list[str]:
    """Give h2load's options for callers that share connections, which HTTP/1.1 does not let them do."""
    return [f"--clients={load.connections}", f"--max-concurrent-streams={load.callers}"]


def _number(pattern: str, report: str) -> float:
    match = re.search(pattern, report)
    if match is None:
        raise GateError(f"h2load said nothing of {pattern!r}: {report}")
    return float(match[1])
