"""The RPCs of scanline.v1.Digits: messages in, the core, messages out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsServicer
from serve import convert
from serve.calls import Context
from serve.core import DigitService, Pending
from serve.deferred import Deferred, submit
from serve.errors import CallError
from serve.settings import ServeSettings
from serve.stream import submitted

if TYPE_CHECKING:
    from serve.tracing import Tracer

SERVICE: Final = pb.DESCRIPTOR.services_by_name["Digits"].full_name


class Digits(DigitsServicer):
    """Reads digits."""

    def __init__(self, service: DigitService, tracer: Tracer | None, settings: ServeSettings) -> None:
        """Answer with a service, and tell callers the limits of the settings."""
        self._service = service
        self._tracer = tracer
        self._settings = settings

    def Classify(self, request: pb.ClassifyRequest, context: Context) -> pb.ClassifyResponse:
        """Classify a batch."""
        return self._respond(request, self._submit(request, context))

    def deferred(self) -> dict[str, Deferred]:
        """Give the methods that come in two halves as well: reading image files is what takes a thread's time."""
        classify = Deferred(is_slow=lambda request: bool(request.files.files), begin=self._submit, end=self._respond)
        return {f"/{SERVICE}/Classify": classify}

    def ClassifyStream(
        self, request_iterator: Iterator[pb.ClassifyRequest], context: Context
    ) -> Iterator[pb.ClassifyResponse]:
        """Classify batches in order, reading ahead while the model runs."""
        for request, pending in submitted(request_iterator, lambda message: self._submit(message, context)):
            if isinstance(pending, CallError):
                raise pending
            yield self._respond(request, pending)

    def ClassifyRows(
        self,
        request_iterator: Iterator[pb.ClassifyRowsRequest],
        context: Context,
    ) -> Iterator[pb.ClassifyRowsResponse]:
        """Read one image as its rows arrive."""
        image = self._service.begin_rows()
        for message in request_iterator:
            for row in convert.rows_of(message):
                probabilities = image.read(row)
                yield convert.row_answer_of(probabilities, image.rows_seen)

    def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """Describe the model that answers."""
        return convert.model_of(self._service.repository.get(request.model_version), self._settings)

    def _submit(self, message: pb.ClassifyRequest, context: Context) -> Pending:
        return submit(self._service, self._tracer, context, convert.images_of(message), message.model_version)

    def _respond(self, message: pb.ClassifyRequest, pending: Pending) -> pb.ClassifyResponse:
        return convert.response_of(pending.result(), pending.version.name, probabilities=message.probabilities)
