"""Client: reading digits with servers, from threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeAlias

from scanline.client.connection import TIMEOUT, Connection
from scanline.client.messages import Limits, Part, is_about_size, model_of, predictions_of, smaller, split
from scanline.contract import ServedModel
from scanline.errors import ServiceError
from scanline.images import Image, items
from scanline.prediction import Prediction, bound
from scanline.tls import Tls
from scanline.v1 import digits_pb2 as pb

_Sent: TypeAlias = tuple[Part, "Future[pb.ClassifyResponse]"]


class Client:
    """Reads digits with running servers; the same calls as scanline.Reader, safe under threads.

    with Client("127.0.0.1:50051") as client:
        for answer in client.classify(["seven.png", "four.jpg"]):
            print(answer.digit, answer.confidence)
    """

    def __init__(
        self,
        target: str,
        *,
        timeout: float = TIMEOUT,
        tls: Tls | None = None,
        token: str | None = None,
        options: Mapping[str, Any] | None = None,
        min_confidence: float | None = None,
    ) -> None:
        """Prepare the channels; connections are made with the first call.

        Args:
            target: ``HOST:PORT[,HOST:PORT...]``. All addresses take turns, and so do those behind one host's name.
            timeout: the deadline of each message of images, in seconds, at most scanline.contract.MAX_TIMEOUT, a year.
                Until then what a server refused for want of room, and what broke with a connection, is tried again.
            tls: how to encrypt; None for no encryption.
            token: sent along as ``authorization: Bearer``; anybody on the way can read it where there is no TLS.
            options: gRPC's channel options, which go before scanline.client.connection.OPTIONS.
            min_confidence: answers of less confidence, 0 to 1, are rejected; None for the bound in the model's card.

        Raises:
            InputError: an address, the timeout, a certificate, the token or `min_confidence` can't be used.
        """
        self._connection = Connection(target, timeout=timeout, tls=tls, token=token, options=options)
        self._min_confidence = bound(min_confidence)
        self._limits: Limits | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the channels; calls under way, and later ones, end with ClosedError."""
        self._connection.close()

    def model(self) -> ServedModel:
        """Ask for the model that answers: its version, file and card.

        Raises:
            ServiceError: there is no answer; its class says why.
            ClosedError: the client is closed.
            ModelError: the server's model keeps to another contract than this release.
        """
        return model_of(self._connection.describe().result())

    def classify(self, images: Image | Iterable[Image], *, probabilities: bool = False) -> list[Prediction]:
        """Read the digit in each image.

        Args:
            images: any iterable of paths, bytes of image files, binary file objects, PIL images, or uint8 arrays
                [28, 28] or [n, 28, 28], 0 background to 255 ink, which are taken to be in the network's form already;
                or a single one of these.
            probabilities: whether to give those of all ten digits.

        Returns:
            One prediction for each image, in order. An image that can't be read is an error on its own prediction.

        Raises:
            InputError: something in `images` is no image at all.
            ServiceError: there is no answer; its class says why.
            ClosedError: the client is closed.
        """
        return list(self.stream(images, probabilities=probabilities))

    def stream(
        self, images: Image | Iterable[Image], *, probabilities: bool = False
    ) -> Generator[Prediction, None, None]:
        """Read the digit in each image, and give the predictions one by one, as they come.

        For any number of images in bounded memory: they are taken as they are wanted and split into calls that the
        server takes, a few of which are on their way at once. One that fails is repeated alone. Arguments, order and
        errors are those of `classify`; closing the generator cancels what is on its way.

        A message goes when it is full, and what has come meanwhile is given when the next one is: of a source that
        gives its images slowly the answers come a message or two later. Call `classify` for each image where that
        is too late.
        """
        if self._limits is None:
            self._limits = Limits(self._connection.describe().result().limits)
        limits = self._limits
        waiting: deque[_Sent | Prediction] = deque()
        try:
            for part in split(items(images), limits):
                waiting.append(self._send(part, probabilities=probabilities))
                while waiting and (len(waiting) >= self._connection.window or _is_done(waiting[0])):
                    yield from self._answers(waiting.popleft(), limits, probabilities=probabilities)
            while waiting:
                yield from self._answers(waiting.popleft(), limits, probabilities=probabilities)
        finally:
            for sent in waiting:
                if not isinstance(sent, Prediction):
                    sent[1].cancel()

    def _send(self, part: Part | Prediction, *, probabilities: bool) -> _Sent | Prediction:
        if isinstance(part, Prediction):
            return part
        return part, self._connection.classify(part.request(probabilities=probabilities))

    def _answers(self, sent: _Sent | Prediction, limits: Limits, *, probabilities: bool) -> list[Prediction]:
        """Wait for a part's answers. One that is refused for its size goes again in smaller ones."""
        if isinstance(sent, Prediction):
            return [sent]
        part, call = sent
        try:
            response = call.result()
        except ServiceError as error:
            if not is_about_size(error):
                raise
            if part.fits(limits):
                limits.take(self._connection.describe().result().limits)
            parts = smaller(part, limits)
            if not parts:
                raise
            return [
                answer
                for each in parts
                for answer in self._answers(
                    self._send(each, probabilities=probabilities), limits, probabilities=probabilities
                )
            ]
        return predictions_of(response, part, probabilities=probabilities, min_confidence=self._min_confidence)


def _is_done(sent: _Sent | Prediction) -> bool:
    """Tell whether the answer to what was sent can be given without waiting."""
    return isinstance(sent, Prediction) or sent[1].done()
