"""Reading digits with a server, over gRPC."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Final, Self

import grpc

from scanline.contract import IMAGE_BYTES, METADATA_PREFIX, ModelCard
from scanline.errors import ServiceError
from scanline.images import Image, Item, items
from scanline.prediction import Prediction, RejectReason
from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsStub

# Calls on their way at once: enough that the server never waits for the network.
IN_FLIGHT: Final = 4
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


class Client:
    """Reads digits with a running server; the same calls as scanline.Reader, safe under threads.

    with Client("127.0.0.1:50051") as client:
        for answer in client.classify(["seven.png", "four.jpg"]):
            print(answer.digit, answer.confidence)
    """

    def __init__(self, target: str, *, timeout: float = 30.0, min_confidence: float | None = None) -> None:
        """Prepare a channel; the connection is made with the first call.

        Args:
            target: the server's address, ``host:port`` or any gRPC target.
            timeout: the deadline of each call, in seconds.
            min_confidence: answers of less confidence, 0 to 1, are rejected; None for the bound in the model's card.
        """
        self._target = target
        self._timeout = timeout
        self._min_confidence = min_confidence
        self._channel = grpc.insecure_channel(target, options=[("grpc.max_receive_message_length", -1)])
        self._stub = DigitsStub(self._channel)
        self._limits: pb.Limits | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel; calls on their way are cancelled."""
        self._channel.close()

    def model(self) -> tuple[str, ModelCard]:
        """Ask for the version and the card of the model that answers.

        Raises:
            ServiceError: the server can't be reached or refuses.
            ModelError: the server's model keeps to another contract than this release.
        """
        response = self._describe()
        card = {METADATA_PREFIX + key: value for key, value in response.card.items()}
        return response.model_version, ModelCard.from_metadata(card)

    def classify(self, images: Image | Iterable[Image], *, probabilities: bool = False) -> list[Prediction]:
        """Read the digit in each image.

        Any number of images: they are split into calls that the server takes, a few of which are on their way at once.

        Args:
            images: any iterable of paths, bytes of image files, binary file objects, PIL images, or uint8 arrays
                [28, 28] or [n, 28, 28], 0 background to 255 ink, which are taken to be in the network's form already;
                or a single one of these.
            probabilities: whether to give those of all ten digits.

        Returns:
            One prediction for each image, in order. An image that can't be read is an error on its own prediction.

        Raises:
            InputError: something in `images` is no image at all.
            ServiceError: the server can't be reached, refuses, or does not answer in time.
        """
        if self._limits is None:
            self._limits = self._describe().limits
        answers: list[Prediction] = []
        waiting: deque[grpc.Future[pb.ClassifyResponse] | Prediction] = deque()
        try:
            for step in _steps(items(images), self._limits):
                if isinstance(step, pb.ClassifyRequest):
                    step.probabilities = probabilities
                    waiting.append(self._stub.Classify.future(step, timeout=self._timeout))
                else:
                    waiting.append(step)
                if len(waiting) > IN_FLIGHT:
                    answers += self._collect(waiting.popleft())
            while waiting:
                answers += self._collect(waiting.popleft())
        finally:
            for call in waiting:
                if not isinstance(call, Prediction):
                    call.cancel()
        return answers

    def _collect(self, call: grpc.Future[pb.ClassifyResponse] | Prediction) -> list[Prediction]:
        if isinstance(call, Prediction):
            return [call]
        try:
            return [_prediction(message).held_to(self._min_confidence) for message in call.result().predictions]
        except grpc.RpcError as error:
            raise self._translate(error) from None

    def _describe(self) -> pb.GetModelResponse:
        try:
            return self._stub.GetModel(pb.GetModelRequest(), timeout=self._timeout)
        except grpc.RpcError as error:
            raise self._translate(error) from None

    def _translate(self, error: grpc.RpcError) -> ServiceError:
        code, details = error.code(), error.details()
        if code is grpc.StatusCode.UNAVAILABLE:
            return ServiceError(
                f"no answer from {self._target}: {details}; is `scanline serve` running there?", code.name
            )
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return ServiceError(f"{self._target} did not answer within {self._timeout:g} s", code.name)
        return ServiceError(f"{self._target} refused: {details} ({code.name})", code.name)


def _steps(stream: Iterator[Item], limits: pb.Limits) -> Iterator[pb.ClassifyRequest | Prediction]:
    """Gather neighbours of one form into the largest calls that the server takes; pass errors on in their place."""
    room = limits.max_message_bytes - ENVELOPE_BYTES
    group: list[bytes] = []
    of_pixels, size = False, 0
    for item in stream:
        content = item.pixels.tobytes() if item.pixels is not None else item.encoded
        cost = IMAGE_BYTES if item.pixels is not None else len(content or b"") + FILE_ENVELOPE_BYTES
        error = item.error
        if cost > room:
            error = f"the file has {len(content or b'')} bytes, the server takes at most {room}"
        full = len(group) == limits.max_images or size + cost > room
        if group and (error is not None or full or of_pixels != (item.pixels is not None)):
            yield _request(group, of_pixels=of_pixels)
            group, size = [], 0
        if error is not None or content is None:
            yield Prediction(error=error)
            continue
        group.append(content)
        of_pixels, size = item.pixels is not None, size + cost
    if group:
        yield _request(group, of_pixels=of_pixels)


def _request(group: list[bytes], *, of_pixels: bool) -> pb.ClassifyRequest:
    if of_pixels:
        return pb.ClassifyRequest(pixels=b"".join(group))
    return pb.ClassifyRequest(files=pb.EncodedImages(files=group))


def _prediction(message: pb.Prediction) -> Prediction:
    if message.error:
        return Prediction(error=message.error)
    return Prediction(
        digit=message.digit,
        confidence=message.confidence,
        probabilities=tuple(message.probabilities) or None,
        rejected=message.rejected,
        reason=REASONS.get(message.reason),
    )
