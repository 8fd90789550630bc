"""The RPCs of scanline.v1.Digits: messages in, the core, messages out."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scanline.contract import COLUMNS, IMAGE_BYTES, METADATA_PREFIX, ROWS
from scanline.prediction import RejectReason
from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsServicer
from serve.core import Caller, DigitService, Given, Pending
from serve.errors import BadRequestError, CallError
from serve.intake import Deferred, submitted
from serve.settings import ServeSettings

SERVICE: Final = pb.DESCRIPTOR.services_by_name["Digits"].full_name
REASONS: Final = {reason: pb.RejectReason.Value(f"REJECT_REASON_{reason.name}") for reason in RejectReason}


class Digits(DigitsServicer):
    """Reads digits."""

    def __init__(self, service: DigitService, settings: ServeSettings) -> None:
        """Answer with a service; tell callers the limits of the settings."""
        self._service = service
        self._settings = settings

    def Classify(self, request: pb.ClassifyRequest, context: Caller) -> pb.ClassifyResponse:
        """Classify a batch."""
        return self._respond(request, self._submit(request, context))

    def deferred(self) -> dict[str, Deferred | None]:
        """Give the methods that take a thread's time, in two halves: reading image files is what takes it."""
        classify = Deferred(is_slow=lambda request: bool(request.files.files), begin=self._submit, end=self._respond)
        return {f"/{SERVICE}/Classify": classify}

    def ClassifyStream(
        self, request_iterator: Iterator[pb.ClassifyRequest], context: Caller
    ) -> Iterator[pb.ClassifyResponse]:
        """Classify batches in order, reading ahead while the model runs."""
        for request, pending in submitted(request_iterator, context, self._submit):
            if isinstance(pending, CallError):
                raise pending
            yield self._respond(request, pending)

    def ClassifyRows(
        self, request_iterator: Iterator[pb.ClassifyRowsRequest], context: Caller
    ) -> Iterator[pb.ClassifyRowsResponse]:
        """Read one image as its rows arrive."""

        def rows() -> Iterator[NDArray[np.uint8]]:
            for message in request_iterator:
                if not message.rows or len(message.rows) % COLUMNS:
                    raise BadRequestError(
                        f"`rows` has {len(message.rows)} bytes, expected a multiple of {COLUMNS}: one uint8 a pixel"
                    )
                yield from np.frombuffer(message.rows, np.uint8).reshape(-1, COLUMNS)

        for seen, probabilities in enumerate(self._service.read_rows(rows()), 1):
            shares = probabilities.tolist()
            confidence = max(shares)
            yield pb.ClassifyRowsResponse(
                rows_seen=seen, digit=shares.index(confidence), confidence=confidence, probabilities=shares
            )

    def GetModel(self, request: pb.GetModelRequest, context: Caller) -> pb.GetModelResponse:
        """Describe the model that answers, and the server's limits."""
        version = self._service.repository.get(request.model_version)
        card = version.card.to_metadata()
        return pb.GetModelResponse(
            model_version=version.name,
            card={key.removeprefix(METADATA_PREFIX): value for key, value in card.items()},
            limits=pb.Limits(max_images=self._settings.max_images, max_message_bytes=self._settings.max_message_bytes),
            file=version.model.version,
        )

    def _submit(self, message: pb.ClassifyRequest, context: Caller, over: Event | None = None) -> Pending:
        return self._service.submit(context, _images_of(message), message.model_version, over=over)

    def _respond(self, message: pb.ClassifyRequest, pending: Pending) -> pb.ClassifyResponse:
        """Turn answers into a message, with all ten probabilities of each image if they were asked for."""
        answers = pending.result()
        shares = answers.probabilities
        rows: list[list[float]] = shares.tolist() if message.probabilities else [[]] * len(shares)
        digits, confidences = shares.argmax(axis=1).tolist(), shares.max(axis=1).tolist()
        answered = zip(digits, confidences, answers.reasons, rows, strict=True)
        response = pb.ClassifyResponse(model_version=pending.version.name)
        add = response.predictions.add
        for error in answers.errors:
            if error is not None:
                add(digit=-1, error=error)
                continue
            digit, confidence, reason, row = next(answered)
            prediction = add()  # with arguments it takes a third longer
            prediction.digit = digit
            prediction.confidence = confidence
            if reason is not None:
                prediction.rejected = True
                prediction.reason = REASONS[reason]
            if row:
                prediction.probabilities.extend(row)
        return response


def _images_of(message: pb.ClassifyRequest) -> Given:
    """Give the images of a message, uint8 [n, 28, 28] or the bytes of files.

    Raises:
        BadRequestError: it holds no images, or pixels of the wrong size.
    """
    form = message.WhichOneof("images")
    if form is None:
        raise BadRequestError(f"the call has no images: set `pixels` ({IMAGE_BYTES} bytes an image) or `files`")
    if form == "files":
        return message.files.files
    if len(message.pixels) % IMAGE_BYTES:
        raise BadRequestError(
            f"`pixels` has {len(message.pixels)} bytes, expected a multiple of {IMAGE_BYTES}: "
            f"{ROWS} rows of {COLUMNS} uint8 pixels an image"
        )
    return np.frombuffer(message.pixels, np.uint8).reshape(-1, ROWS, COLUMNS)
