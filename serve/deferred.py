"""A unary method in two halves, so that a thread which has other calls to look after need not wait between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from serve.calls import Context
from serve.core import Pending


class Begin(Protocol):
    """Checks a request and queues its images."""

    def __call__(self, request: Any, context: Context, /) -> Pending: ...


@dataclass(frozen=True, slots=True)
class Deferred:
    """The halves of a method.

    Attributes:
        is_slow: whether the first half of a request takes so long that it needs a thread of its own.
        begin: the first half.
        end: makes the response of a request, once its answers can be had without waiting.
    """

    is_slow: Callable[[Any], bool]
    begin: Begin
    end: Callable[[Any, Pending], Any]
