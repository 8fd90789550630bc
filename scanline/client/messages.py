"""Images to requests of the size that a server takes, and its responses to predictions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scanline.contract import COLUMNS, IMAGE_BYTES, METADATA_PREFIX, ROWS, ModelCard, ServedModel
from scanline.errors import ServiceError
from scanline.images import Item, stack
from scanline.prediction import Prediction, RejectReason
from scanline.v1 import digits_pb2 as pb

# What a call holds at most, if the server would take more: from here on larger messages gain nothing, while small ones
# spread over a server's cores and over servers, take little memory, and are soon repeated. A larger file goes alone.
MAX_IMAGES: Final = 128
# A file takes a server up to 0.2 s of a core. With 128 of them in a message, and 8 messages under way, a server of one
# core would need minutes for each, and none would meet its deadline.
MAX_FILES: Final = 16
MAX_BYTES: Final = 2 * 2**20
# Room in a message for everything but the images.
ENVELOPE_BYTES: Final = 1024
# Around each file in a message: its tag and its length.
FILE_ENVELOPE_BYTES: Final = 16

REASONS: Final = {
    pb.REJECT_REASON_BLANK: RejectReason.BLANK,
    pb.REJECT_REASON_NOT_A_DIGIT: RejectReason.NOT_A_DIGIT,
    pb.REJECT_REASON_SEVERAL: RejectReason.SEVERAL,
    pb.REJECT_REASON_LOW_CONFIDENCE: RejectReason.LOW_CONFIDENCE,
}


class Limits:
    """What one message may hold; it changes where a server takes less: one of several, or one that has started again.

    Attributes:
        images: how many images.
        size: how many bytes of them, if there are several.
        room: how many bytes the only one.
    """

    def __init__(self, message: pb.Limits) -> None:
        """Begin with what a server says."""
        self.take(message)

    def take(self, message: pb.Limits) -> None:
        """Take the server's limits, or our own where they are smaller."""
        self.room = message.max_message_bytes - ENVELOPE_BYTES
        self.images = min(message.max_images, MAX_IMAGES)
        self.size = min(self.room, MAX_BYTES)


@dataclass(slots=True)
class Part:
    """Images of one form that fit one message.

    Attributes:
        of_pixels: whether they are 784 bytes of pixels each, and not image files.
        contents: the bytes of each.
        size: the room that they take in a message, in bytes.
    """

    of_pixels: bool
    contents: list[bytes] = field(default_factory=list)
    size: int = 0

    def takes(self, images: int, size: int, limits: Limits) -> bool:
        """Say whether so many images of so many bytes fit in as well."""
        most = limits.images if self.of_pixels else min(limits.images, MAX_FILES)
        return len(self.contents) + images <= most and self.size + size <= limits.size

    def fits(self, limits: Limits) -> bool:
        """Say whether it may be a message: an image that is alone has all the room."""
        return Part(self.of_pixels).takes(len(self.contents), self.size, limits) or (
            len(self.contents) == 1 and self.size <= limits.room
        )

    def items(self) -> Iterator[Item]:
        """Give its images, to be split anew."""
        for content in self.contents:
            if self.of_pixels:
                yield Item(pixels=np.frombuffer(content, np.uint8).reshape(ROWS, COLUMNS))
            else:
                yield Item(encoded=content)

    def request(self, *, probabilities: bool) -> pb.ClassifyRequest:
        """Give the message."""
        if self.of_pixels:
            return pb.ClassifyRequest(pixels=b"".join(self.contents), probabilities=probabilities)
        return pb.ClassifyRequest(files=pb.EncodedImages(files=self.contents), probabilities=probabilities)


def split(stream: Iterable[Item], limits: Limits) -> Iterator[Part | Prediction]:
    """Gather neighbours of one form into the largest parts that fit; what can't be read becomes a prediction."""
    part = Part(of_pixels=False)
    for item in stream:
        of_pixels = item.pixels is not None
        content = item.encoded if item.pixels is None else item.pixels.tobytes()
        size = IMAGE_BYTES if of_pixels else len(content or b"") + FILE_ENVELOPE_BYTES
        error = item.error
        if size > limits.room:
            error = (
                f"the file has {len(content or b'')} bytes, the server takes at most {limits.room}; "
                f"its operator can set --max-message-bytes higher"
            )
        if part.contents and (error is not None or of_pixels != part.of_pixels or not part.takes(1, size, limits)):
            yield part
            part = Part(of_pixels)
        if error is not None or content is None:
            yield Prediction(error=error)
            continue
        part.of_pixels = of_pixels
        part.contents.append(content)
        part.size += size
    if part.contents:
        yield part


def smaller(part: Part, limits: Limits) -> list[Part | Prediction]:
    """Give the images of a part that was refused for its size in smaller ones; nothing where there is but one.

    A part within the limits is halved: of several servers another than the one that refused may have told them.
    """
    images, half = part.items(), len(part.contents) // 2
    if not part.fits(limits):
        return [*split(images, limits)]
    return [*split(islice(images, half), limits), *split(images, limits)] if half else []


def is_about_size(error: ServiceError) -> bool:
    """Say whether a call may have been refused for what it holds; of what else is wrong a server's limits tell nothing.

    A server that is full is another class of error.
    """
    return type(error) is ServiceError and error.code in {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"}


def pixels_part(image: NDArray[np.uint8]) -> Part:
    """Give what `split` gives for one array, uint8 [28, 28], in a third of its time.

    Raises:
        InputError: it is another kind of array.
    """
    return Part(of_pixels=True, contents=[stack(image).tobytes()], size=IMAGE_BYTES)


def predictions_of(
    response: pb.ClassifyResponse, part: Part, *, probabilities: bool, min_confidence: float | None
) -> list[Prediction]:
    """Give the predictions for a part's images, those of less confidence than a bound as rejected.

    Raises:
        ServiceError: there is not one for each.
    """
    came, sent = len(response.predictions), len(part.contents)
    if came != sent:
        raise ServiceError(f"the server answered with {came} predictions for {sent} images", "INTERNAL")
    answers = [_prediction_of(message, probabilities=probabilities) for message in response.predictions]
    return answers if min_confidence is None else [answer.held_to(min_confidence) for answer in answers]


def _prediction_of(message: pb.Prediction, *, probabilities: bool) -> Prediction:
    if message.error:
        return Prediction(error=message.error)
    return Prediction(
        digit=message.digit,
        confidence=message.confidence,
        probabilities=tuple(message.probabilities) if probabilities else None,
        rejected=message.rejected,
        reason=REASONS.get(message.reason),
    )


def model_of(message: pb.GetModelResponse) -> ServedModel:
    """Give the model that a message describes.

    Raises:
        ModelError: the card keeps to another contract than this release.
    """
    card = ModelCard.from_metadata({METADATA_PREFIX + key: value for key, value in message.card.items()})
    return ServedModel(message.model_version, message.file, card)
