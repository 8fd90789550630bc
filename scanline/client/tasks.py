"""AsyncClient: reading digits with servers, from the tasks of an event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np

from scanline.client.connection import TIMEOUT, Connection
from scanline.client.gather import Answer, Gatherer
from scanline.client.messages import Limits, model_of, pixels_part, split
from scanline.contract import ServedModel
from scanline.images import Image, items
from scanline.prediction import Prediction, bound
from scanline.tls import Tls


class AsyncClient:
    """Reads digits with running servers; the same calls as scanline.Client, for the tasks of one event loop.

    async with AsyncClient("127.0.0.1:50051") as client:
        [answer] = await client.classify("seven.png")

    What tasks ask for at the same time goes over the wire together, so that many tasks with one image each run nearly
    as fast as one with many.
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
        """Prepare the channels; connections are made with the first call. Arguments and errors are Client's."""
        self._connection = Connection(target, timeout=timeout, tls=tls, token=token, options=options)
        self._min_confidence = bound(min_confidence)
        self._opening: asyncio.Task[Gatherer] | None = None
        self._gatherer: Gatherer | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channels; calls under way, and later ones, end with ClosedError."""
        await asyncio.to_thread(self._connection.close)

    async def model(self) -> ServedModel:
        """Ask for the model that answers: its version, file and card; raises what scanline.Client.model does."""
        return model_of(await asyncio.wrap_future(self._connection.describe()))

    async def classify(self, images: Image | Iterable[Image], *, probabilities: bool = False) -> list[Prediction]:
        """Read the digit in each image; arguments, answers and errors are those of scanline.Client.classify.

        Files are read, Pillow images encoded and iterables gone through in a thread, so that the event loop never waits
        for a disk.
        """
        if isinstance(images, bytes) or (isinstance(images, np.ndarray) and images.ndim == 2):
            gatherer = self._gatherer or await self._open()
            part = (
                pixels_part(images) if isinstance(images, np.ndarray) else next(split(items(images), gatherer.limits))
            )
            return await gatherer.send(part, probabilities=probabilities)
        return [prediction async for prediction in self.stream(images, probabilities=probabilities)]

    async def stream(
        self, images: Image | Iterable[Image], *, probabilities: bool = False
    ) -> AsyncGenerator[Prediction, None]:
        """Read the digit in each image, and give the predictions one by one; see scanline.Client.stream."""
        gatherer = self._gatherer or await self._open()
        parts = split(items(images), gatherer.limits)
        waiting: deque[Answer] = deque()
        try:
            while (part := await asyncio.to_thread(next, parts, None)) is not None:
                waiting.append(gatherer.send(part, probabilities=probabilities))
                while waiting and (len(waiting) > self._connection.window or waiting[0].done()):
                    for prediction in await waiting.popleft():
                        yield prediction
            while waiting:
                for prediction in await waiting.popleft():
                    yield prediction
        finally:
            for answer in waiting:
                answer.cancel()  # which also tells asyncio not to report an error that nobody has looked at

    async def _open(self) -> Gatherer:
        """Ask a server for its limits; all tasks that come meanwhile wait for the same call."""
        if self._opening is None or self._opening.done():
            self._opening = asyncio.get_running_loop().create_task(self._ask())
            # looked at where all who waited have gone; asyncio would report an error that nobody has looked at
            self._opening.add_done_callback(lambda opening: opening.cancelled() or opening.exception())
        return await asyncio.shield(self._opening)

    async def _ask(self) -> Gatherer:
        description = await asyncio.wrap_future(self._connection.describe())
        self._gatherer = Gatherer(self._connection, Limits(description.limits), self._min_confidence)
        return self._gatherer
