"""The port for operators: /metrics for Prometheus, /healthz and /readyz for whatever restarts and routes.

The `nv_inference_*` names and their units are Triton's, so that its dashboards work; what it has no names for is
`scanline_*`, in seconds. Nothing is counted here: every scrape reads a snapshot of serve/statistics.py.
"""

from __future__ import annotations

import sys
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import accumulate, product
from typing import Any, Final, get_args

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, UntypedMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from serve.listening import bound
from serve.statistics import REASONS, TIMES, Counts, Outcome, Snapshot, What

SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)  # the upper ends of the buckets of batch sizes
# The text format's own: in OpenMetrics a counter must end in _total, which Triton's names do not.
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
PATIENCE: Final = 10.0  # seconds that a connection may be silent

Answers = dict[str, Callable[[], tuple[int, bytes]]]  # HTTP status and body, by path

MODEL: Final = ("model", "version")
# name, what it says, how it is read from a model's counts
TRITON_COUNTERS: Final[tuple[tuple[str, str, Callable[[Counts], float]], ...]] = (
    ("request_success", "requests answered", lambda counts: counts.success),
    ("count", "images in answered requests", lambda counts: counts.images),
    ("exec_count", "runs of the model", lambda counts: sum(counts.runs.values())),
    ("request_duration_us", "time of answered requests", lambda counts: counts.total * 1e6),
    ("queue_duration_us", "time that they waited for the model", lambda counts: counts.queue * 1e6),
    ("compute_input_duration_us", "time to check and read their images", lambda counts: counts.input * 1e6),
    ("compute_infer_duration_us", "time that they were in the model", lambda counts: counts.infer * 1e6),
    ("compute_output_duration_us", "time until their answers were taken", lambda counts: counts.output * 1e6),
)

log = structlog.get_logger("scanline.server")


class MetricsServer:
    """Answers on the port for operators.

    Attributes:
        address: where it listens, ``host:port``.
    """

    def __init__(self, listen: str, snapshot: Callable[[], Snapshot], is_ready: Callable[[], bool]) -> None:
        """Bind the port. Nothing is answered before `start`.

        Args:
            listen: the address, ``host:port``; port 0 takes a free one.
            snapshot: gives what the server has done.
            is_ready: says whether it takes calls.

        Raises:
            StartError: the port can't be had.
        """
        registry = CollectorRegistry()
        registry.register(_Counts(snapshot))
        ProcessCollector(registry=registry)

        answers: Answers = {
            "/metrics": lambda: (200, generate_latest(registry)),
            "/healthz": lambda: (200, b"alive\n"),
            "/readyz": lambda: (200, b"ready\n") if is_ready() else (503, b"not serving\n"),
        }
        listening = bound(listen, " for metrics")
        listening.listen()
        self._server = _HttpServer(("", 0), partial(_Handler, answers), bind_and_activate=False)
        self._server.socket.close()
        self._server.socket = listening
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self.address = f"{listen.rpartition(':')[0]}:{listening.getsockname()[1]}"

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


class _HttpServer(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Log that an answer has failed, where socketserver would print a traceback among the log's lines."""
        error = sys.exception()
        if not isinstance(error, OSError):  # or else the caller has gone, which is no event
            log.error("no answer to an operator", exc_info=error)


class _Handler(BaseHTTPRequestHandler):
    timeout = PATIENCE

    def __init__(self, answers: Answers, *connection: Any) -> None:
        self._answers = answers  # the base class answers before it returns
        super().__init__(*connection)

    def do_GET(self) -> None:
        """Answer one of our paths."""
        answer = self._answers.get(self.path.partition("?")[0])
        code, body = answer() if answer else (404, f"there are {', '.join(self._answers)}\n".encode())
        self.send_response(code)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - http.server's own name

    def log_message(self, *_: object) -> None:
        """Say nothing: a scrape is no event."""


class _Counts(Collector):
    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        snapshot = self._snapshot()
        yield from _triton(snapshot)
        yield from _models(snapshot)
        reloads = CounterMetricFamily("scanline_reloads", "files read again", labels=("what", "outcome"))
        for reload in product(get_args(What), get_args(Outcome)):
            reloads.add_metric(reload, snapshot.reloads.get(reload, 0))
        yield reloads
        failed = CounterMetricFamily("scanline_calls_failed", "calls that failed", labels=("code",))
        for code, count in snapshot.calls_failed.items():
            failed.add_metric((code,), count)
        yield failed
        yield GaugeMetricFamily("scanline_calls_in_flight", "calls under way", snapshot.in_flight)
        yield GaugeMetricFamily("scanline_workers", "processes that answer", snapshot.workers)
        yield CounterMetricFamily("scanline_worker_restarts", "processes started again", snapshot.restarts)


def _triton(snapshot: Snapshot) -> Iterator[Metric]:
    for name, text, read in TRITON_COUNTERS:
        family = UntypedMetricFamily(f"nv_inference_{name}", text, labels=MODEL)
        for model, counts in snapshot.models.items():
            family.add_metric(model, read(counts))
        yield family
    failures = UntypedMetricFamily("nv_inference_request_failure", "requests that failed", labels=(*MODEL, "reason"))
    pending = GaugeMetricFamily("nv_inference_pending_request_count", "requests that wait", labels=MODEL)
    for model, counts in snapshot.models.items():
        for reason in REASONS:
            failures.add_metric((*model, reason), counts.failed.get(reason, 0))
        pending.add_metric(model, counts.pending)
    yield failures
    yield pending


def _models(snapshot: Snapshot) -> Iterator[Metric]:
    total = HistogramMetricFamily("scanline_request_seconds", "time of answered requests", labels=MODEL)
    queue = HistogramMetricFamily("scanline_queue_seconds", "time that they waited for the model", labels=MODEL)
    runs = HistogramMetricFamily("scanline_inference_seconds", "time of runs of the model", labels=MODEL)
    sizes = HistogramMetricFamily("scanline_batch_size", "images in a run of the model", labels=MODEL)
    rejected = CounterMetricFamily(
        "scanline_rejected_images", "images read but not to be trusted", labels=(*MODEL, "reason")
    )
    for model, counts in snapshot.models.items():
        total.add_metric(model, _buckets(TIMES, counts.total_times), counts.total)
        queue.add_metric(model, _buckets(TIMES, counts.queue_times), counts.queue)
        runs.add_metric(model, _buckets(TIMES, counts.run_times), sum(counts.run_total.values()))
        by_size: dict[int, int] = {}
        for size, count in counts.runs.items():
            bucket = bisect_left(SIZES, size)
            by_size[bucket] = by_size.get(bucket, 0) + count
        sizes.add_metric(model, _buckets(SIZES, by_size), sum(size * count for size, count in counts.runs.items()))
        for reason, count in counts.rejected.items():
            rejected.add_metric((*model, reason), count)
    yield from (total, queue, runs, sizes, rejected)


def _buckets(ends: tuple[float, ...], counts: dict[int, int]) -> list[tuple[str, float]]:
    """Give the buckets as Prometheus counts them: each with all that are below it."""
    below = accumulate(counts.get(index, 0) for index in range(len(ends) + 1))
    return [(str(end), count) for end, count in zip((*ends, "+Inf"), below, strict=True)]
