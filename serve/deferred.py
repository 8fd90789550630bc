"""A unary method in two halves, so that a thread which has other calls to look after need not wait between them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from serve.calls import Context
from serve.core import DigitService, Pending, Request, Trace

if TYPE_CHECKING:
    from serve.tracing import Tracer

NO_DEADLINE: Final = 366 * 24 * 3600.0  # gRPC says hundreds of years where the caller set none


@dataclass(frozen=True, slots=True)
class Deferred:
    """The halves of a method.

    Attributes:
        is_slow: whether the first half of a request takes so long that it needs a thread of its own.
        begin: the first half, which checks a request and queues its images.
        end: makes the response of a request, once its answers can be had without waiting.
    """

    is_slow: Callable[[Any], bool]
    begin: Callable[[Any, Context], Pending]
    end: Callable[[Any, Pending], Any]


def deadline_of(context: Context) -> float | None:
    """Give the time.monotonic() at which a call's deadline passes, or None where its caller set none."""
    remaining = context.time_remaining()
    return time.monotonic() + remaining if remaining < NO_DEADLINE else None


def trace_of(context: Context, tracer: Tracer | None) -> Trace | None:
    """Begin a call's trace, where there is something that makes traces."""
    return None if tracer is None else tracer.begin(context.invocation_metadata())


def submit(service: DigitService, request: Request, context: Context) -> Pending:
    """Queue a call's images, to be dropped when its caller goes.

    Raises:
        CallError: as DigitService.submit does.
    """
    pending = service.submit(request)
    if not context.add_callback(pending.cancel):  # the caller went while files were read
        pending.cancel()
    return pending
