"""A unary method in two halves, so that a thread which has other calls to look after need not wait between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from numpy.typing import NDArray

from serve.calls import Context
from serve.core import DigitService, Pending

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


def submit(
    service: DigitService,
    tracer: Tracer | None,
    context: Context,
    images: NDArray[Any] | Sequence[bytes],
    version: str,
    *,
    timeout: float | None = None,
) -> Pending:
    """Queue a call's images, to be dropped when its caller goes or its deadline passes.

    Args:
        service: what answers.
        tracer: makes the call's trace; None for none.
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
    trace = None if tracer is None else tracer.begin(context.invocation_metadata())
    pending = service.submit(images, version, deadline, trace)
    if not context.add_callback(pending.cancel):  # the caller went while files were read
        pending.cancel()
    return pending
