"""Streams of requests that are answered in order, with the next ones queued while the model runs."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

import grpc

from serve.core import Pending
from serve.errors import CallError, FullError

# Requests of one stream that are read before the first of them is answered. With more, one stream could fill the queue;
# with fewer, the model would wait for the network.
IN_FLIGHT: Final = 4

Message = TypeVar("Message")


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
        except grpc.RpcError:  # the caller has gone
            ahead.put(None)
        except Exception as error:  # noqa: BLE001 - raised again where the call is
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
