"""What happens around every call, whatever carries it: a request id, a count, a status for its error, a log line."""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable
from typing import Final

import grpc
import structlog

from scanline.contract import REQUEST_ID
from scanline.inference import open_inference_pb2
from scanline.v1 import digits_pb2
from serve.core import Caller, Metadata, when_over
from serve.errors import (
    BadRequestError,
    CallError,
    CancelledError,
    DisallowedError,
    ExpiredError,
    FullError,
    NoAnswerError,
    NotAvailableError,
    NotFoundError,
    NotReadyError,
    StoppingError,
    UnauthenticatedError,
)

RETRY_AFTER: Final = 0.05  # seconds that a caller is told to stay away when too many calls are under way
# So many that ask for the server's health are let in however many calls there are: who is busy must not seem dead.
PROBES: Final = 2
OWN_METHODS: Final = tuple(f"/{own.DESCRIPTOR.package}." for own in (digits_pb2, open_inference_pb2))
_ACCEPTABLE_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")

# What gRPC's own guide says (https://grpc.io/docs/guides/status-codes/); what is not here is INTERNAL.
CODES: Final[dict[type[Exception], grpc.StatusCode]] = {
    BadRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    DisallowedError: grpc.StatusCode.PERMISSION_DENIED,
    NotFoundError: grpc.StatusCode.NOT_FOUND,
    NotReadyError: grpc.StatusCode.UNAVAILABLE,
    NotAvailableError: grpc.StatusCode.FAILED_PRECONDITION,
    NoAnswerError: grpc.StatusCode.UNAVAILABLE,
    FullError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ExpiredError: grpc.StatusCode.DEADLINE_EXCEEDED,
    CancelledError: grpc.StatusCode.CANCELLED,
    StoppingError: grpc.StatusCode.UNAVAILABLE,
}

log = structlog.get_logger("scanline.call")


class Tally:
    """Counts what is under way.

    Attributes:
        now: how much is.
        ever: how much has been, that included.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.now = self.ever = 0

    def enter(self) -> int:
        """Count one more; give how many are under way with it."""
        with self._changed:
            self.now += 1
            self.ever += 1
            return self.now

    def leave(self) -> None:
        """Count one less."""
        with self._changed:
            self.now -= 1
            if self.now == 0:
                self._changed.notify_all()

    def wait_until_none(self, timeout: float | None = None) -> None:
        """Wait until nothing is under way, at most so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self.now == 0, timeout)


class Calls:
    """The calls of our own services.

    Attributes:
        under_way: those whose answers are not out yet.
        max_calls: the most that may be.
        refusing: whether each that comes from now on is answered with UNAVAILABLE. gRPC's own stop is not enough: it
            cancels what it has not handed out yet, and a caller that reads CANCELLED does not try elsewhere.
    """

    def __init__(
        self, max_calls: int, check: Callable[[Metadata], None] | None, count_failure: Callable[[str], None]
    ) -> None:
        """Begin with none.

        Args:
            max_calls: the most that may be under way.
            check: raises UnauthenticatedError for the metadata of a call that may not come in; None lets all in.
            count_failure: told the name of the status code of each call that fails.
        """
        self.max_calls = max_calls
        self._check = check
        self.count_failure = count_failure
        self.under_way = Tally()
        self.refusing = False

    def begin(self, method: str, context: Caller) -> Call:
        """Count a call that has come, until its answer is out or its caller is gone."""
        self.under_way.enter()
        when_over(context, self.under_way.leave)
        return Call(self, method, context)

    def check_room(self, under_way: int) -> None:
        """Check that so many calls may be under way.

        Raises:
            FullError: they are too many.
        """
        if under_way > self.max_calls:
            raise FullError(f"{self.max_calls} calls are under way, the most that may be", RETRY_AFTER)

    def check_token(self, method: str, metadata: Metadata) -> None:
        """Check who calls, by what comes before the message: no stranger's message is waited for, read or kept.

        Raises:
            UnauthenticatedError: the method is of our own services, and the call has no token where one is asked for.
        """
        if self._check is not None and method.startswith(OWN_METHODS):
            self._check(metadata)

    def turn_away(self, method: str, context: Caller, error: CallError) -> tuple[grpc.StatusCode, str]:
        """Refuse a call before it begins, or one of a library's service; give what to answer it with."""
        return self.begin(method, context).fail(error)


class Call:
    """One call."""

    __slots__ = ("_calls", "_context", "_method", "_request_id", "_started")

    def __init__(self, calls: Calls, method: str, context: Caller) -> None:
        """Give it the id that its caller sent, or one of our own, and have that sent back in the trailing metadata."""
        self._calls = calls
        self._method = method
        self._context = context
        self._started = time.perf_counter()
        self._request_id = _request_id(context)
        context.set_trailing_metadata(((REQUEST_ID, self._request_id),))

    def admit(self) -> None:
        """Let it in.

        Raises:
            StoppingError: the server is stopping.
        """
        if self._calls.refusing:
            raise StoppingError("the server is stopping; try another")

    def succeed(self) -> None:
        """Log that it was answered."""
        log.debug("answered", method=self._method, request_id=self._request_id, ms=self._milliseconds())

    def fail(self, error: Exception) -> tuple[grpc.StatusCode, str]:
        """Log why it fails; give the status code and the message with which to answer."""
        code, message = CODES.get(type(error), grpc.StatusCode.INTERNAL), str(error)
        if code is grpc.StatusCode.INTERNAL:
            message = f"internal error; the server's log has it under request id {self._request_id}"
        self._calls.count_failure(code.name)
        if isinstance(error, FullError):  # the pushback that gRPC's retry policy honours (gRFC A6)
            pushback = ("grpc-retry-pushback-ms", str(round(error.retry_after * 1000)))
            self._context.set_trailing_metadata(((REQUEST_ID, self._request_id), pushback))
        fields = {"method": self._method, "request_id": self._request_id, "code": code.name, "ms": self._milliseconds()}
        if isinstance(error, (CancelledError, ExpiredError)) or not self._context.is_active():
            log.info("dropped", **fields, message=message)  # nobody is there to read the answer
        elif code is grpc.StatusCode.INTERNAL:
            log.error("failed", **fields, error=str(error), exc_info=None if isinstance(error, CallError) else error)
        else:
            log.warning("refused", **fields, message=message)
        return code, message

    def _milliseconds(self) -> float:
        return round((time.perf_counter() - self._started) * 1000, 3)


def _request_id(context: Caller) -> str:
    for key, value in context.invocation_metadata():
        if key == REQUEST_ID and isinstance(value, str) and _ACCEPTABLE_ID.fullmatch(value):
            return value
    return secrets.token_hex(8)
