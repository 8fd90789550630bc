"""A call as serve.loop sees it: the part of grpc.ServicerContext that handlers use, and what is sent and received."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, NoReturn

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined] # it ships no types

from serve.core import Metadata

_NO_FLAGS: Final = 0
_NO_METADATA: Final = ()
# The core's codes by those of the public API.
_CODES: Final = {code: code.value[0] for code in grpc.StatusCode}


class AbortedError(Exception):
    """A handler has called `abort`."""


class LoopCall:
    """One call, from the event that brought it to its status.

    Operations are started in any thread; their events are handled in the thread of the call's completion queue.

    Attributes:
        method: the full name of the method that is called.
    """

    __slots__ = ("_answered", "_call", "_callbacks", "_code", "_deadline", "_details", "_lock", "_metadata", "_over",
                 "_started", "_trailing", "method")  # fmt: skip

    def __init__(self, event: Any) -> None:
        """Take a call that has come, and be told when it is over."""
        self._call = event.call
        self.method: str = event.call_details.method.decode(errors="replace")
        # from the wall clock, in which the core gives it, to one that nobody sets
        self._deadline: float = time.monotonic() + event.call_details.deadline - time.time()
        self._metadata: Metadata = event.invocation_metadata
        self._trailing: Metadata = ()
        self._code = grpc.StatusCode.OK
        self._details = ""
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []
        self._over = False  # the caller has its status, or has gone
        self._started = False  # the initial metadata is out
        self._answered = False  # the status is out
        self._start((cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS),), self._on_over)

    # What handlers see: as in grpc.ServicerContext.

    def time_remaining(self) -> float:
        return max(self._deadline - time.monotonic(), 0)

    def is_active(self) -> bool:
        return not self._over and not self._answered

    def add_callback(self, callback: Callable[[], None]) -> bool:
        with self._lock:
            if self._over:
                return False
            self._callbacks.append(callback)
            return True

    def invocation_metadata(self) -> Metadata:
        return self._metadata

    def set_trailing_metadata(self, trailing_metadata: Metadata) -> None:
        self._trailing = trailing_metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        self._code = code

    def set_details(self, details: str) -> None:
        self._details = details

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        self._code, self._details = code, details
        raise AbortedError

    # What the loop does.

    def when_received(self, listener: Callable[[bytes | None], None]) -> None:
        """Read a message and hand it to a listener, in the loop's thread; None where no message comes any more."""
        operation = cygrpc.ReceiveMessageOperation(_NO_FLAGS)
        if not self._start((operation,), lambda event: listener(event.batch_operations[0].message())):
            listener(None)

    def receive(self) -> bytes | None:
        """Wait for a message; None where no message comes any more. Not in the loop's thread."""
        received: SimpleQueue[bytes | None] = SimpleQueue()
        self.when_received(received.put)
        return received.get()

    def when_sent(self, content: bytes, listener: Callable[[bool], None]) -> None:
        """Send one of several messages, and tell a listener, in the loop's thread, whether it went out."""
        operations = (*self._opening(), cygrpc.SendMessageOperation(content, _NO_FLAGS))
        if not self._start(operations, lambda event: listener(bool(event.success))):
            listener(False)

    def send(self, content: bytes) -> bool:
        """Send one of several messages, wait until it is out, and say whether it is. Not in the loop's thread."""
        sent: SimpleQueue[bool] = SimpleQueue()
        self.when_sent(content, sent.put)
        return sent.get()

    def answer(self, content: bytes) -> None:
        """Send the only message and the status."""
        self._end(cygrpc.SendMessageOperation(content, _NO_FLAGS))

    def end(self, code: grpc.StatusCode | None = None, details: str = "") -> None:
        """Send the status: the one given, or else what the handler has set."""
        if code is not None:
            self._code, self._details = code, details
        self._end()

    def _end(self, *operations: cygrpc.SendMessageOperation) -> None:
        with self._lock:
            if self._answered:
                return
            self._answered = True
        status = cygrpc.SendStatusFromServerOperation(
            self._trailing, _CODES[self._code], self._details.encode(), _NO_FLAGS
        )
        self._start((*self._opening(), *operations, status), lambda _: None)

    def _start(self, operations: tuple[Any, ...], on_event: Callable[[Any], None]) -> bool:
        """Start operations, unless the call is over, and say whether they are started: an event comes of it then."""
        with self._lock:
            if self._over:
                return False
            self._call.start_server_batch(operations, on_event)
            return True

    def _opening(self) -> tuple[Any, ...]:
        if self._started:
            return ()
        self._started = True
        return (cygrpc.SendInitialMetadataOperation(_NO_METADATA, _NO_FLAGS),)

    def _on_over(self, event: Any) -> None:  # noqa: ARG002 - every event's handler is given the event
        with self._lock:
            self._over = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()
