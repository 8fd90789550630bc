"""How calls' images come to the core, whatever protocol brings them: whole, in two halves, or as a stream."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from serve.calls import Context
from serve.core import DigitService, Given, Pending
from serve.errors import CallError, FullError

if TYPE_CHECKING:
    from serve.tracing import Tracer

NO_DEADLINE: Final = 366 * 24 * 3600.0  # gRPC says hundreds of years where the caller set none
# Requests of one stream that are read before the first of them is answered. With more, one stream could fill the queue;
# with fewer, the model would wait for the network.
IN_FLIGHT: Final = 4

Message = TypeVar("Message")


@dataclass(frozen=True, slots=True)
class Deferred:
    """A unary method in two halves, so that a thread which has other calls to look after need not wait between them.

    Attributes:
        is_slow: whether the first half of a request takes so long that it needs a thread of its own.
        begin: the first half, which checks a request and queues its images.
        end: makes the response of a request, once its answers can be had without waiting.
    """

    is_slow: Callable[[Any], bool]
    begin: Callable[[Any, Context], Pending]
    end: Callable[[Any, Pending], Any]


class Intake:
    """Submits calls to a service."""

    def __init__(self, service: DigitService, tracer: Tracer | None) -> None:
        """Have the calls traced, where there is something that makes traces."""
        self._service = service
        self._tracer = tracer

    def submit(self, context: Context, images: Given, version: str, *, timeout: float | None = None) -> Pending:
        """Queue a call's images, to be dropped when its caller goes or its deadline passes.

        Args:
            context: the call.
            images: as DigitService.submit takes them.
            version: likewise.
            timeout: seconds after which the caller wants no answer, if it says more than its deadline does.

        Raises:
            CallError: as DigitService.submit does.
        """
        remaining = context.time_remaining()
        if timeout is not None:
            remaining = min(remaining, timeout)
        deadline = time.monotonic() + remaining if remaining < NO_DEADLINE else None
        trace = None if self._tracer is None else self._tracer.begin(context.invocation_metadata())
        pending = self._service.submit(images, version, deadline, trace)
        if not context.add_callback(pending.cancel):  # the caller went while files were read
            pending.cancel()
        return pending


def submitted(
    requests: Iterator[Message], submit: Callable[[Message], Pending]
) -> Iterator[tuple[Message, Pending | CallError]]:
    """Submit a stream's requests ahead of their answers; give each, in order, with what became of it.

    A stream is slowed down where a lone call would be told that the server is full.

    Raises:
        CallError: what came was no request.
    """
    ahead: queue.Queue[tuple[Message, Pending | CallError] | Exception | None] = queue.Queue(IN_FLIGHT)
    over = threading.Event()

    def read() -> None:
        try:
            for message in requests:
                ahead.put((message, _submit_patiently(message, submit, over)))
                if over.is_set():
                    return
        except Exception as error:  # noqa: BLE001 - handed to the thread of the call and raised there; here it would end a thread that nobody watches
            ahead.put(error)
        else:
            ahead.put(None)

    threading.Thread(target=read, name="stream-reader", daemon=True).start()
    try:
        while (following := ahead.get()) is not None:
            if isinstance(following, Exception):
                raise following
            yield following
    finally:
        over.set()
        while not ahead.empty():  # the reader may be waiting for room
            ahead.get_nowait()


def _submit_patiently(
    message: Message, submit: Callable[[Message], Pending], over: threading.Event
) -> Pending | CallError:
    while True:
        try:
            return submit(message)
        except FullError as full:
            if over.wait(full.retry_after):
                return full
        except CallError as error:
            return error
