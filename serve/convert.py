"""Between the messages of scanline.v1 and the core's arrays and dataclasses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scanline.contract import COLUMNS, IMAGE_BYTES, METADATA_PREFIX, ROWS
from scanline.prediction import RejectReason
from scanline.v1 import digits_pb2 as pb
from serve.core import Answers
from serve.errors import BadRequestError
from serve.settings import ServeSettings
from serve.version import Version

REASONS: Final = {reason: pb.RejectReason.Value(f"REJECT_REASON_{reason.name}") for reason in RejectReason}


def images_of(message: pb.ClassifyRequest) -> NDArray[np.uint8] | Sequence[bytes]:
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


def response_of(answers: Answers, version: str, *, probabilities: bool) -> pb.ClassifyResponse:
    """Turn answers into a message, with all ten probabilities of each image if they were asked for."""
    response = pb.ClassifyResponse(model_version=version)
    add = response.predictions.add
    digits = answers.probabilities.argmax(axis=1).tolist()
    answered = zip(answers.probabilities.tolist(), digits, answers.reasons, strict=True)
    for error in answers.errors:
        if error is not None:
            add(digit=-1, error=error)
            continue
        row, digit, reason = next(answered)
        prediction = add(digit=digit, confidence=row[digit])
        if reason is not None:
            prediction.rejected = True
            prediction.reason = REASONS[reason]
        if probabilities:
            prediction.probabilities.extend(row)
    return response


def rows_of(message: pb.ClassifyRowsRequest) -> NDArray[np.uint8]:
    """Give the rows of a message, uint8 [n, 28], n at least 1.

    Raises:
        BadRequestError: the bytes are not whole rows.
    """
    if not message.rows or len(message.rows) % COLUMNS:
        raise BadRequestError(
            f"`rows` has {len(message.rows)} bytes, expected a multiple of {COLUMNS}: one uint8 a pixel"
        )
    return np.frombuffer(message.rows, np.uint8).reshape(-1, COLUMNS)


def row_answer_of(probabilities: NDArray[np.float32], rows_seen: int) -> pb.ClassifyRowsResponse:
    """Turn the probabilities after a row, float32 [10], into a message."""
    shares = probabilities.tolist()
    confidence = max(shares)
    return pb.ClassifyRowsResponse(
        rows_seen=rows_seen, digit=shares.index(confidence), confidence=confidence, probabilities=shares
    )


def model_of(version: Version, settings: ServeSettings) -> pb.GetModelResponse:
    """Turn a version of the model, and the server's limits, into a message."""
    return pb.GetModelResponse(
        model_version=version.name,
        card={key.removeprefix(METADATA_PREFIX): value for key, value in version.card.to_metadata().items()},
        limits=pb.Limits(max_images=settings.max_images, max_message_bytes=settings.max_message_bytes),
        file=version.model.version,
    )
