"""Traces of requests, sent to an OpenTelemetry collector: the one place that knows OpenTelemetry, an extra.

A request is a span below the one that its caller names in `traceparent` (https://www.w3.org/TR/trace-context/), with
three below it: decode, queue and inference. They are made when the request is over, from the times that are counted
anyway, so that the way of the data is the same with traces and without.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from scanline import __version__
from serve.core import Metadata
from serve.errors import CallError
from serve.statistics import ModelKey, Times

EXPORT_PATIENCE: Final = 5  # seconds for the collector to take what is sent


class Tracer:
    """Makes traces and sends them."""

    def __init__(self, endpoint: str, share: float) -> None:
        """Begin to send, in a thread of its own.

        Args:
            endpoint: the collector's OTLP port for gRPC, ``http://host:port``, or ``https://`` with TLS.
            share: how many of the requests whose caller does not say are traced, 0 to 1.
        """
        resource = {SERVICE_NAME: "scanline", SERVICE_VERSION: __version__, SERVICE_INSTANCE_ID: str(os.getpid())}
        self._provider = TracerProvider(ParentBased(TraceIdRatioBased(share)), Resource.create(resource))
        exporter = OTLPSpanExporter(endpoint, insecure=endpoint.startswith("http://"), timeout=EXPORT_PATIENCE)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("scanline")
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, metadata: Metadata) -> RequestTrace:
        """Begin the trace of a request by the metadata of its call."""
        return RequestTrace(self._tracer, self._propagator.extract({key: str(value) for key, value in metadata}))

    def close(self, timeout: float) -> bool:
        """Send what is left, and say whether that is over within so many seconds; by itself it tries for 30 of them."""
        sending = threading.Thread(target=self._provider.shutdown, name="last-traces", daemon=True)
        sending.start()
        sending.join(timeout)
        return not sending.is_alive()


class RequestTrace:
    """A request's trace, told of it once it is over."""

    def __init__(self, tracer: trace.Tracer, caller: Context) -> None:
        """Hang it below the span that the caller has named, if it has."""
        self._tracer = tracer
        self._caller = caller

    def answered(self, model: ModelKey, images: int, times: Times) -> None:
        """Tell that it was answered."""
        request = self._request(model, times.came)
        request.set_attribute("scanline.images", images)
        below = trace.set_span_in_context(request)
        for name, begun, ended in (
            ("decode", times.came, times.queued),
            ("queue", times.queued, times.begun),
            ("inference", times.begun, times.ended),
        ):
            self._tracer.start_span(name, below, start_time=_wall(begun)).end(_wall(ended))
        request.end(_wall(times.had))

    def failed(self, model: ModelKey, error: CallError, came: float) -> None:
        """Tell that it failed, just now."""
        request = self._request(model, came)
        request.set_status(trace.StatusCode.ERROR, type(error).__name__)
        request.end()

    def _request(self, model: ModelKey, came: float) -> trace.Span:
        name, version = model
        return self._tracer.start_span(
            name,
            self._caller,
            trace.SpanKind.SERVER,
            {"scanline.model": name, "scanline.version": version},
            start_time=_wall(came),
        )


def _wall(moment: float) -> int:
    """Give a time of the monotonic clock, in seconds, as nanoseconds since the epoch."""
    return time.time_ns() - round((time.monotonic() - moment) * 1e9)
