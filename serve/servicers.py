"""The RPCs of scanline.v1.Digits: messages in, the core, messages out."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import grpc

from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsServicer
from serve import convert
from serve.calls import Context
from serve.core import DigitService, Pending
from serve.deferred import Deferred
from serve.errors import CallError, FullError

if TYPE_CHECKING:
    from serve.tracing import Tracer

# Requests of one stream that are read before the first of them is answered. With more, one stream could fill the queue;
# with fewer, the model would wait for the network.
STREAM_IN_FLIGHT: Final = 4
SERVICE: Final = pb.DESCRIPTOR.services_by_name["Digits"].full_name
NO_DEADLINE: Final = 366 * 24 * 3600.0

Step = tuple[pb.ClassifyRequest, Pending] | CallError


class Digits(DigitsServicer):
    """Reads digits."""

    def __init__(self, service: DigitService, tracer: Tracer | None, *, max_message_bytes: int) -> None:
        """Answer with a service.

        Args:
            service: the core.
            tracer: makes traces of the requests; None for none.
            max_message_bytes: what GetModel tells callers of the transport's own limit.
        """
        self._service = service
        self._tracer = tracer
        self._max_message_bytes = max_message_bytes

    def Classify(self, request: pb.ClassifyRequest, context: grpc.ServicerContext) -> pb.ClassifyResponse:
        """Classify a batch."""
        return self._respond(request, self._submit(request, context))

    def deferred(self) -> dict[str, Deferred]:
        """Give the methods that come in two halves as well: reading image files is what takes a thread's time."""
        classify = Deferred(is_slow=lambda request: bool(request.files.files), begin=self._submit, end=self._respond)
        return {f"/{SERVICE}/Classify": classify}

    def ClassifyStream(
        self, request_iterator: Iterator[pb.ClassifyRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.ClassifyResponse]:
        """Classify batches in order, reading ahead while the model runs."""
        ahead: queue.Queue[Step | None] = queue.Queue(STREAM_IN_FLIGHT)
        over = threading.Event()
        reader = threading.Thread(
            target=self._read_ahead, args=(request_iterator, context, ahead, over), name="stream-reader", daemon=True
        )
        reader.start()
        try:
            while (following := ahead.get()) is not None:
                if isinstance(following, CallError):
                    raise following
                yield self._respond(*following)
        finally:
            over.set()
            while not ahead.empty():  # the reader may be waiting for room
                ahead.get_nowait()

    def ClassifyRows(
        self,
        request_iterator: Iterator[pb.ClassifyRowsRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[pb.ClassifyRowsResponse]:
        """Read one image as its rows arrive."""
        image = self._service.begin_rows()
        for message in request_iterator:
            for row in convert.rows_of(message):
                probabilities = image.read(row)
                yield convert.row_answer_of(probabilities, image.rows_seen)

    def GetModel(self, request: pb.GetModelRequest, context: grpc.ServicerContext) -> pb.GetModelResponse:
        """Describe the model that answers."""
        version = self._service.version(request.model_version)
        return convert.model_of(version, max_images=self._service.max_images, max_message_bytes=self._max_message_bytes)

    def _submit(self, message: pb.ClassifyRequest, context: Context) -> Pending:
        remaining = context.time_remaining()  # hundreds of years where the caller set no deadline
        deadline = time.monotonic() + remaining if remaining < NO_DEADLINE else None
        trace = None if self._tracer is None else self._tracer.begin(context.invocation_metadata())
        pending = self._service.submit(convert.request_of(message, deadline, trace))
        if not context.add_callback(pending.cancel):  # the caller went while files were read
            pending.cancel()
        return pending

    def _respond(self, message: pb.ClassifyRequest, pending: Pending) -> pb.ClassifyResponse:
        return convert.response_of(pending.result(), pending.version.name, probabilities=message.probabilities)

    def _read_ahead(
        self,
        requests: Iterator[pb.ClassifyRequest],
        context: grpc.ServicerContext,
        ahead: queue.Queue[Step | None],
        over: threading.Event,
    ) -> None:
        try:
            for message in requests:
                ahead.put((message, self._submit_patiently(message, context, over)))
                if over.is_set():
                    return
        except CallError as error:
            ahead.put(error)
        except grpc.RpcError:  # the caller has gone
            ahead.put(None)
        else:
            ahead.put(None)

    def _submit_patiently(self, message: pb.ClassifyRequest, context: Context, over: threading.Event) -> Pending:
        """Submit as soon as there is room: a stream is slowed down where a lone call is told to come back."""
        while True:
            try:
                return self._submit(message, context)
            except FullError as full:
                if over.wait(full.retry_after):
                    raise
