"""Puts what several tasks send at the same time into common messages, as a batch that is on its way to a server.

It works as the server's own batcher does: nobody waits for company. What has gathered goes off as soon as the tasks
that can run have run and fewer calls than the connection's window are on their way; under load the messages grow by
themselves.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from itertools import islice
from typing import TypeAlias

from scanline.client.connection import Connection
from scanline.client.messages import Limits, Part, is_about_size, predictions_of, smaller
from scanline.errors import ServiceError
from scanline.prediction import Prediction

Answer: TypeAlias = "asyncio.Future[list[Prediction]]"


class Gatherer:
    """What waits to be sent, and how much is on its way; for the tasks of one event loop.

    Attributes:
        limits: what one message may hold.
    """

    def __init__(self, connection: Connection, limits: Limits, min_confidence: float | None) -> None:
        """Send over a connection, in messages within the limits; answers of less confidence are rejected."""
        self._connection = connection
        self._min_confidence = min_confidence
        self.limits = limits
        self._loop = asyncio.get_running_loop()
        # by what all images of a message share: their form, and whether probabilities are wanted
        self._waiting: dict[tuple[bool, bool], deque[tuple[Part, Answer]]] = defaultdict(deque)
        self._on_their_way = 0
        self._due = False
        self._carriers: set[asyncio.Task[None]] = set()

    def send(self, part: Part | Prediction, *, probabilities: bool) -> Answer:
        """Queue a part; give the future of its answers, one for each image. Cancelling it takes back what still waits.

        The error of an image that could not be read has its answer at once, in its place.
        """
        answer: Answer = self._loop.create_future()
        if isinstance(part, Prediction):
            answer.set_result([part])
            return answer
        self._waiting[part.of_pixels, probabilities].append((part, answer))
        if not self._due:
            self._due = True
            self._loop.call_soon(self._flush)
        return answer

    def _flush(self) -> None:
        """Send what waits, as far as the window lets us; each kind has its turn."""
        self._due = False
        while self._on_their_way < self._connection.window:
            kinds = [kind for kind, queue in self._waiting.items() if queue]
            if not kinds:
                return
            for kind in kinds:
                self._send_one(self._waiting[kind], probabilities=kind[1])

    def _send_one(self, queue: deque[tuple[Part, Answer]], *, probabilities: bool) -> None:
        """Send as much of a queue as fits one message."""
        message: Part | None = None
        shares: list[tuple[int, Answer]] = []
        while queue:
            part, answer = queue[0]
            if not answer.cancelled():
                if message is None:
                    message = Part(part.of_pixels)
                elif not message.takes(len(part.contents), part.size, self.limits):
                    break
                message.contents += part.contents
                message.size += part.size
                shares.append((len(part.contents), answer))
            queue.popleft()
        if message is not None:
            self._on_their_way += 1
            carrier = self._loop.create_task(self._carry(message, shares, probabilities=probabilities))
            self._carriers.add(carrier)  # the loop itself keeps no hold of a task
            carrier.add_done_callback(self._arrived)

            def take_back(_: Answer) -> None:
                if all(answer.cancelled() for _, answer in shares):
                    carrier.cancel()

            for _, answer in shares:
                answer.add_done_callback(take_back)

    def _arrived(self, carrier: asyncio.Task[None]) -> None:
        self._carriers.discard(carrier)
        self._on_their_way -= 1
        self._flush()

    async def _carry(self, message: Part, shares: list[tuple[int, Answer]], *, probabilities: bool) -> None:
        """Send a message and hand out its answers, or its error."""
        try:
            answers = await self._answers(message, probabilities=probabilities)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer of tasks that would else wait for ever: nobody awaits this one
            for _, answer in shares:
                if not answer.cancelled():
                    answer.set_exception(error)
        else:
            coming = iter(answers)
            for count, answer in shares:
                share = list(islice(coming, count))
                if not answer.cancelled():
                    answer.set_result(share)

    async def _answers(self, message: Part, *, probabilities: bool) -> list[Prediction]:
        """Send a message and wait for its answers. One that is refused for its size goes again in smaller ones."""
        try:
            response = await asyncio.wrap_future(
                self._connection.classify(message.request(probabilities=probabilities))
            )
        except ServiceError as error:
            if not is_about_size(error):
                raise
            if message.fits(self.limits):
                self.limits.take((await asyncio.wrap_future(self._connection.describe())).limits)
            parts = smaller(message, self.limits)
            if not parts:
                raise
            answers: list[Prediction] = []
            for each in parts:
                answers += (
                    [each] if isinstance(each, Prediction) else await self._answers(each, probabilities=probabilities)
                )
            return answers
        return predictions_of(response, message, probabilities=probabilities, min_confidence=self._min_confidence)
