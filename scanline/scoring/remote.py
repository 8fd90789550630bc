"""The engine that asks running servers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from scanline.client import Client
from scanline.images import Image
from scanline.prediction import Prediction
from scanline.scoring.engine import Batch


class Remote:
    """Reads with servers through a client, which keeps to their limits, retries, and has a few calls on their way.

    Attributes:
        version: the first 12 hexadecimal digits of the SHA-256 of the model's file, asked for at the start.
    """

    def __init__(self, client: Client, *, probabilities: bool) -> None:
        """Ask for the model.

        Args:
            client: of the servers; it stays the caller's to close.
            probabilities: whether to give those of all ten digits.

        Raises:
            ServiceError: there is no answer; its class says why.
            ModelError: the server's model keeps to another contract than this release.
        """
        self.version = client.model().file
        self._client = client
        self._probabilities = probabilities

    def run(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, list[Prediction]]]:
        """Give each batch with its predictions, in order.

        Raises:
            ServiceError: there is no answer; its class says why.
        """
        waiting: deque[Batch] = deque()
        read: deque[Prediction] = deque()

        def images() -> Iterator[Image]:
            for batch in batches:
                waiting.append(batch)
                yield from batch.images

        for prediction in self._client.stream(images(), probabilities=self._probabilities):
            read.append(prediction)
            yield from _complete(waiting, read)
        yield from _complete(waiting, read)


def _complete(waiting: deque[Batch], read: deque[Prediction]) -> Iterator[tuple[Batch, list[Prediction]]]:
    while waiting and len(read) >= len(waiting[0].images):
        batch = waiting.popleft()
        yield batch, [read.popleft() for _ in batch.images]
