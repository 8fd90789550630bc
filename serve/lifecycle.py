"""The server's life: built, bound to its port, serving, draining, stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import grpc
import structlog
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from scanline.errors import MissingExtraError, ModelError, StartError
from scanline.inference.open_inference_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from scanline.machine import memory
from scanline.v1.digits_pb2_grpc import add_DigitsServicer_to_server
from serve import digits, sizing
from serve.calls import Calls
from serve.core import DigitService
from serve.credentials import Certificates, Tokens
from serve.health import Health
from serve.intake import Deferred
from serve.interceptor import Surroundings
from serve.listening import bound
from serve.machine import return_memory
from serve.oip import servicer as oip
from serve.repository import Repository
from serve.settings import ServeSettings
from serve.statistics import Statistics
from serve.threads import thread_server

if TYPE_CHECKING:
    from serve.metrics import MetricsServer
    from serve.tracing import Tracer

# How long connections and threads may take to end when there is nothing left to wait for, in seconds.
CLOSE_TIMEOUT: Final = 5.0
# Settings whose defaults follow the machine: the log says how they stand.
CHOSEN: Final = {"instances", "max_message_bytes", "max_calls", "max_streams", "max_pixels"}
PENDING: Final = 10_000  # calls that gRPC holds before it refuses more

log = structlog.get_logger("scanline.server")


class Server:
    """A gRPC server with a model behind it.

    Attributes:
        address: where it listens, ``host:port``; the port is the real one where the settings say 0.
        metrics_address: where it answers operators; None where it does not.
        statistics: what it has done so far.
        repository: the versions of the model.
        inference: the servicer of the Open Inference Protocol, whose `load` and `unload` several processes share.
    """

    def __init__(self, settings: ServeSettings, worker: int | None = None) -> None:
        """Load the model and bind the port. Nothing is answered before `start`.

        Args:
            settings: what to serve, and how.
            worker: the number of this process if several share the port; None for one that has it alone.

        Raises:
            StartError: there is no model, it can't be used, or a port or the files of credentials can't be had.
        """
        self._settings = settings
        self._worker = worker
        self._stop_asked = threading.Event()
        self._stop_forced = threading.Event()
        self._is_serving = threading.Event()
        self.statistics = Statistics()
        certificate, key, roots = settings.tls_certificate, settings.tls_key, settings.tls_client_roots
        self._certificates = Certificates(certificate, key, roots, self.statistics) if certificate and key else None
        self._tokens = Tokens(settings.token_file, self.statistics) if settings.token_file else None
        check = None if self._tokens is None else self._tokens.check
        self._calls = Calls(settings.max_calls, check, self.statistics.call_failed)
        self.statistics.in_flight = lambda: self._calls.under_way.now
        self._health = Health()
        try:
            self.repository = Repository(settings, self.statistics)
        except ModelError as error:
            raise StartError(str(error)) from None
        except OSError as error:
            raise StartError(f"can't read {error.filename}: {error.strerror}") from None
        self._tracer = _tracer(settings)
        self._service = DigitService(self.repository, self.statistics, settings, self._tracer)
        self.inference = oip.OpenInference(self._service, self.statistics, settings, self._is_ready)
        self._transport = self._build()
        self.address = self._bind()
        self._metrics: MetricsServer | None = None
        if settings.metrics_listen is not None:
            from serve.metrics import MetricsServer  # prometheus_client takes memory and a tenth of a second

            self._metrics = MetricsServer(settings.metrics_listen, self.statistics.everywhere, self._is_ready)
        self.metrics_address = None if self._metrics is None else self._metrics.address

    def start(self) -> None:
        """Begin to answer."""
        version = self.repository.get()  # before anybody can have it unloaded
        if self._metrics is not None:
            self._metrics.start()
        self.repository.watch()
        self._transport.start()
        self._is_serving.set()
        self.repository.when_changed = self._tell_health
        self._tell_health()
        log.info(
            "serving" if self._worker is None else "worker serving",
            address=self.address,
            **({} if self.metrics_address is None else {"metrics_address": self.metrics_address}),
            model=version.card.name,
            precision=version.card.precision,
            version=version.name,
            file=version.model.version,
            accuracy=version.card.accuracy,
            memory=memory(),
            **self._settings.model_dump(include=CHOSEN),
        )

    def ask_to_stop(self) -> None:
        """Ask for the end: the first time in good order, the second at once. Takes locks: not for signal handlers."""
        if self._stop_asked.is_set():
            self._stop_forced.set()
        self._stop_asked.set()

    def run_until_stopped(self) -> bool:
        """Wait to be asked to stop; then turn NOT_SERVING, refuse new calls, let the running ones finish, and close.

        Returns:
            Whether all threads have ended. Where gRPC has lost a call, the model never returns from a run, a folder of
            models from a look at it, or a collector of traces does not answer, the thread that waits for it has not.
        """
        calls = self._calls.under_way
        calls_cleared = 0
        while not self._stop_asked.wait(timeout=1.0):  # short waits: signal handlers run between them
            for credentials in (self._certificates, self._tokens):
                if credentials is not None:
                    credentials.refresh()
            if calls.now == 0 and calls.ever > calls_cleared:
                calls_cleared = calls.ever
                return_memory()  # what a burst of large calls took
        self._is_serving.clear()
        self._health.enter_graceful_shutdown()
        log.info("not serving", drain_delay=self._settings.drain_delay)
        self._stop_forced.wait(self._settings.drain_delay)
        self._calls.refusing = True
        log.info("draining", grace=self._settings.grace)
        end = time.monotonic() + self._settings.grace
        while calls.now and not self._stop_forced.is_set() and (left := end - time.monotonic()) > 0:
            calls.wait_until_none(min(0.2, left))
        finished = calls.now == 0
        # what is left: callers that watch our health, and calls past the grace period
        end = time.monotonic() + CLOSE_TIMEOUT
        closed = self._transport.stop(0).wait(CLOSE_TIMEOUT)
        closes = [self.repository.close, self._service.batcher.close]
        if self._tracer is not None:
            closes.append(self._tracer.close)
        for close in closes:
            closed &= close(max(end - time.monotonic(), 0))
        if self._metrics is not None:
            self._metrics.close()
        log.info("stopped", finished=finished, closed=closed)
        return closed

    def _is_ready(self) -> bool:
        """Say whether calls are worth sending: it serves, and has something to answer with."""
        return self._is_serving.is_set() and bool(self.repository.served())

    def _tell_health(self) -> None:
        self._health.tell(is_serving=self._is_ready())

    def _build(self) -> grpc.Server:
        servicer = digits.Digits(self._service, self._settings)
        server = self._transport_for({**servicer.deferred(), **self.inference.deferred()})
        add_DigitsServicer_to_server(servicer, server)
        add_GRPCInferenceServiceServicer_to_server(self.inference, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        services = [digits.SERVICE, oip.SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(services, server)
        return server

    def _transport_for(self, deferred: Mapping[str, Deferred | None]) -> grpc.Server:
        settings, calls = self._settings, self._calls
        options = [
            ("grpc.max_receive_message_length", settings.max_message_bytes),
            ("grpc.max_send_message_length", -1),
            # a second server on the port is an error, not a lottery
            ("grpc.so_reuseport", int(self._worker is not None)),
            # a call that is over counts until gRPC clears it away
            ("grpc.max_concurrent_streams", 2 * settings.max_calls),
            # What gRPC has not handed out yet. Beyond its own 1,000 it cancels calls by lot, and those that their
            # callers took back by the thousand count, too: whoever floods the server so would have others' cancelled.
            ("grpc.server.max_pending_requests", PENDING),
            ("grpc.server.max_pending_requests_hard_limit", PENDING),
            ("grpc.http2.bdp_probe", int(sizing.may_read_ahead(settings.workers))),
            ("grpc.keepalive_time_ms", round(settings.keepalive * 1000)),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ]
        wrap = Surroundings(calls, settings.max_streams).wrap
        if settings.transport != "threads":
            try:
                from serve.loop import LoopServer
            except (ImportError, AttributeError) as error:  # a gRPC whose private parts have changed
                if settings.transport == "loop":
                    raise StartError(f"this version of gRPC can't carry the loop transport: {error}") from None
                log.warning("the loop transport is not to be had with this gRPC", reason=str(error))
            else:
                work = self._service.batcher.work
                return LoopServer(wrap, calls, deferred, work, settings=settings, options=options)
        return thread_server(wrap, calls, options)

    def _bind(self) -> str:
        listen, certificates = self._settings.listen, self._certificates
        if self._settings.workers == 1:  # who starts several has done so
            # gRPC does not say why it can't have an address, and takes one of a name's two for both
            bound(listen).close()
        try:
            if certificates is None:
                port = self._transport.add_insecure_port(listen)
            else:
                port = self._transport.add_secure_port(listen, certificates.credentials)
        except RuntimeError:
            raise StartError(f"can't listen on {listen}: gRPC refuses it") from None
        return f"{listen.rpartition(':')[0]}:{port}"


def _tracer(settings: ServeSettings) -> Tracer | None:
    if settings.trace_endpoint is None:
        return None
    try:
        from serve.tracing import Tracer
    except ModuleNotFoundError as error:
        raise MissingExtraError("--trace-endpoint", "traces", error.name or "") from None
    return Tracer(settings.trace_endpoint, settings.trace_share)
