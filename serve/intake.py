"""How calls come to the core that do not come whole, whatever protocol brings them: in two halves, or as a stream."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from serve.core import Caller, Pending, when_over
from serve.errors import CallError

# Requests of one stream that are read before the first of them is answered. With more, one stream could fill the queue;
# with fewer, the model would wait for the network.
IN_FLIGHT: Final = 4

Message = TypeVar("Message")


@dataclass(frozen=True, slots=True)
class Deferred:
    """A unary method in two halves, so that a thread which has other calls to look after need not wait between them.

    Attributes:
        is_slow: whether a request needs a thread of its own: for its first half, or because its end may come before the
            answers do.
        begin: the first half, which checks a request and queues its images.
        end: makes the response of a request, once its answers can be had without waiting.
    """

    is_slow: Callable[[Any], bool]
    begin: Callable[[Any, Caller], Pending]
    end: Callable[[Any, Pending], Any]


def submitted(
    requests: Iterator[Message], call: Caller, submit: Callable[[Message, Caller, threading.Event], Pending]
) -> Iterator[tuple[Message, Pending | CallError]]:
    """Submit a stream's requests ahead of their answers; give each, in order, with what became of it.

    A stream is slowed down where a lone call would be told that the server is full.

    Args:
        requests: what the stream brings.
        call: the stream.
        submit: queues a request; it waits for room until the event is set.

    Raises:
        CallError: what came was no request.
    """
    ahead = _ReadAhead(submit, call)
    threading.Thread(target=ahead.read, args=(requests,), name="stream-reader", daemon=True).start()
    try:
        while (following := ahead.places.get()) is not None:
            if isinstance(following, Exception):
                raise following
            yield following
    finally:
        ahead.over.set()
        ahead.take_back()  # the reader may be waiting for a place, too


class _ReadAhead(Generic[Message]):
    """What is read of a stream ahead of its answers.

    Attributes:
        places: the requests that are not looked at yet, an error that ends them, or None at their end.
        over: set once nobody will look at them.
    """

    def __init__(self, submit: Callable[[Message, Caller, threading.Event], Pending], call: Caller) -> None:
        self.places: queue.Queue[tuple[Message, Pending | CallError] | Exception | None] = queue.Queue(IN_FLIGHT)
        self.over = threading.Event()
        self._submit = submit
        self._call = call
        # gRPC keeps what is to be done at a call's end until then, and a stream can have any number of requests: this
        # keeps the last alone, among which are all that may be unanswered: one more is answered, and one submitted.
        self._last: deque[Pending] = deque(maxlen=IN_FLIGHT + 2)
        when_over(call, self._cancel)

    def read(self, requests: Iterator[Message]) -> None:
        try:
            for message in requests:
                self.places.put((message, self._became_of(message)))
                if self.over.is_set():
                    self.take_back()
                    return
        except Exception as error:  # noqa: BLE001 - handed to the thread of the call and raised there; here it would end a thread that nobody watches
            self.places.put(error)
        else:
            self.places.put(None)

    def take_back(self) -> None:
        """Drop what nobody will look at."""
        with suppress(queue.Empty):
            while True:
                following = self.places.get_nowait()
                if isinstance(following, tuple) and isinstance(following[1], Pending):
                    following[1].drop()

    def _cancel(self) -> None:
        for pending in tuple(self._last):
            pending.cancel()

    def _became_of(self, message: Message) -> Pending | CallError:
        try:
            pending = self._submit(message, self._call, self.over)
        except CallError as error:
            return error
        self._last.append(pending)
        if not self._call.is_active():  # its end came before this one was kept
            pending.cancel()
        return pending
