"""One call with its attempts, and the errors that it can end with.

gRPC retries calls itself, but at most four times, and never a message over 256 KB; a server that starts again takes
longer than that, and one that is full may be full for longer. So the attempts are made here, after gRPC's own rules
(https://github.com/grpc/proposal/blob/master/A6-client-retries.md): backoff with jitter, the server's pushback, one
deadline for all attempts together. Classifying twice does no harm.
"""

from __future__ import annotations

import secrets
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import grpc

from scanline.contract import REQUEST_ID
from scanline.errors import (
    AccessError,
    BusyError,
    ClosedError,
    ServiceError,
    SlowError,
    UnreachableError,
)
from scanline.tls import question

if TYPE_CHECKING:
    from scanline.client.connection import Connection

RETRIED: Final = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}
# Between attempts, in seconds: the first pause, each further one twice as long, and the longest.
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 2.0
# By then a pause is past the longest; a float can't be doubled for ever.
DOUBLINGS: Final = 10
# How long a client that no server has answered yet goes on trying, in seconds, once it has tried every address: they
# may be wrong.
FIRST_CONTACT: Final = 2.0
# What gRPC says where no server has answered; one may say it, too.
SAID_ON_THIS_SIDE: Final = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}
# What gRPC itself says of a message over a server's limit, with the status that a full server has, too.
TOO_LARGE: Final = "message larger than max"
PUSHBACK: Final = "grpc-retry-pushback-ms"
CHANCE: Final = secrets.SystemRandom()  # spreads callers out

Response = TypeVar("Response")


class Call(Generic[Response]):
    """A call under way.

    Attributes:
        answer: what it ends with: the response, a ServiceError, a ClosedError, or whatever else went wrong here.
            Cancelling it cancels the call.
    """

    def __init__(self, line: Connection, send: Callable[[int, float], grpc.Future[Response]]) -> None:
        """Make the first attempt.

        Args:
            line: the connection.
            send: makes an attempt, counted from 0, that may take so many seconds; raises ValueError once the
                connection is closed.
        """
        self.answer: Future[Response] = Future()
        self._line = line
        self._send = send
        self._started = time.monotonic()
        self._attempts = 0
        self._running: grpc.Future[Response] | None = None
        stop = weakref.WeakMethod(self._stop)  # or call and answer would be a circle, which keeps the request
        self.answer.add_done_callback(lambda answer: None if (method := stop()) is None else method(answer))
        self._attempt()

    def _attempt(self) -> None:
        if self.answer.done():
            return
        try:
            self._running = self._send(self._attempts, self._started + self._line.timeout - time.monotonic())
        except ValueError:
            self._fail(ClosedError("client"))
            return
        self._attempts += 1
        self._running.add_done_callback(partial(self._ending_with_errors, self._judge))
        if self.answer.cancelled():  # since it was looked at: `_stop` may have seen the attempt before
            self._running.cancel()

    def _ending_with_errors(self, step: Callable[..., None], *arguments: object) -> None:
        """Take a step in a thread of gRPC's or of our own."""
        try:
            step(*arguments)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer of a caller that would else wait for ever: nobody watches this thread
            self._fail(error)

    def _judge(self, running: Any) -> None:
        """Look at how an attempt ended: answer, fail, or try again."""
        code, details, trailing = running.code(), running.details() or "", running.trailing_metadata()
        self._line.reached |= code not in SAID_ON_THIS_SIDE or _is_of_ours(trailing)
        if code is grpc.StatusCode.OK:
            response = running.result()
            if self.answer.set_running_or_notify_cancel():
                self.answer.set_result(response)
        elif self._line.closed.is_set():
            self._fail(ClosedError("client"))
        elif TOO_LARGE in details or not self._tries_again(self._pause(code, trailing)):
            self._fail(translate(code, details, self._line, trailing))

    def _tries_again(self, pause: float | None) -> bool:
        """Make another attempt after so many seconds; say whether there will be one."""
        if pause is None:
            return False
        try:
            step = partial(self._ending_with_errors, self._wait_and_attempt, pause)
            threading.Thread(target=step, daemon=True).start()
        except RuntimeError:  # the process has as many threads as it may
            return False
        return True

    def _wait_and_attempt(self, pause: float) -> None:
        self._line.closed.wait(pause)
        self._attempt()

    def _pause(self, code: grpc.StatusCode, trailing: Iterable[tuple[str, str | bytes]] | None) -> float | None:
        """Say how long to wait before the next attempt, in seconds; None where there is none to be made."""
        if code not in RETRIED:
            return None
        passed = time.monotonic() - self._started
        rounds, untried = divmod(self._attempts, len(self._line.addresses))
        if rounds and not self._line.reached and passed > FIRST_CONTACT:
            return None
        pushback = next((str(value) for key, value in trailing or () if key == PUSHBACK), None)
        if pushback is not None:
            # a number below 0, or none at all, is how a server says: do not come back
            pause = float(pushback) / 1000 if pushback.isdecimal() else self._line.timeout
        elif untried:
            pause = 0.0  # another address may be well
        else:
            doubled = FIRST_PAUSE * 2 ** min(rounds - 1, DOUBLINGS)
            pause = min(LONGEST_PAUSE, doubled) * CHANCE.uniform(0.8, 1.2)  # so that callers spread out
        return pause if passed + pause < self._line.timeout else None

    def _fail(self, error: Exception) -> None:
        if self.answer.set_running_or_notify_cancel():
            self.answer.set_exception(error)

    def _stop(self, answer: Future[Response]) -> None:
        if answer.cancelled() and self._running is not None:
            self._running.cancel()


def _is_of_ours(trailing: Iterable[tuple[str, str | bytes]] | None) -> bool:
    """Say whether a status came from a server of ours; gRPC itself has no ids."""
    return any(key == REQUEST_ID for key, _ in trailing or ())


def translate(
    code: grpc.StatusCode, details: str, line: Connection, trailing: Iterable[tuple[str, str | bytes]] | None
) -> ServiceError:
    """Give the error that says in a caller's terms why there is no answer, and what to do.

    Args:
        code: the status.
        details: its message.
        line: what the call went over.
        trailing: the metadata that came with it.
    """
    name, target = code.name, line.target
    match code:
        case grpc.StatusCode.UNAVAILABLE:
            look = question(details, encrypted=line.encrypted, proxy=line.proxy)
            reason = f"no answer from {target}: {details}; {look}"
            if _is_of_ours(trailing):
                reason = f"{target} can't answer now: {details}; try again later"
            return UnreachableError(reason, name)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            advice = "give it more, as --timeout or timeout=, or ask for less at once"
            return SlowError(f"{target} did not answer within {line.timeout:g} s; {advice}", name)
        case grpc.StatusCode.RESOURCE_EXHAUSTED if TOO_LARGE not in details:
            return BusyError(f"{target} had no room for {line.timeout:g} s: {details}; try again later", name)
        case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
            return AccessError(f"{target} lets nobody in without the right token: {details} ({name})", name)
        case grpc.StatusCode.UNIMPLEMENTED:
            return ServiceError(f"{target} is no Scanline server, or one of another release: {details} ({name})", name)
        case _:
            return ServiceError(f"{target} refused: {details} ({name})", name)
