"""The plain transport: grpc.server with its thread pool, on nothing but the public API."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any, Final

import grpc

from serve.calls import OWN_METHODS, PROBES, Calls, Tally
from serve.errors import CallError
from serve.interceptor import Handler

REFUSING: Final = 2  # threads that tell callers to come back while all others have calls


def thread_server(
    wrap: Callable[[str, Handler], Handler], calls: Calls, options: Sequence[tuple[str, int]]
) -> grpc.Server:
    """Make a gRPC server in which each call has a thread.

    Args:
        wrap: puts around a handler what surrounds every call that is let in.
        calls: says which are, and names the others. Each that is under way has a thread, since grpc.server gives a
            call its thread before its message is there.
        options: the core's channel arguments.
    """
    pool = _BoundedPool(wrap, calls)
    return grpc.server(pool, interceptors=[pool], options=options)


class _BoundedPool(ThreadPoolExecutor, grpc.ServerInterceptor):
    """The calls' threads. Refuses calls beyond the most that may have or await one, and those of strangers.

    grpc.server's own bound would not say when to come back, or count what it refuses.
    """

    def __init__(self, wrap: Callable[[str, Handler], Handler], calls: Calls) -> None:
        super().__init__(calls.max_calls + PROBES + REFUSING, thread_name_prefix="call")
        self._under_way = Tally()
        self._calls = calls
        self._wrap = cache(wrap)

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        self._under_way.enter()
        future = super().submit(function, *arguments, **named)
        future.add_done_callback(lambda _: self._under_way.leave())
        return future

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Give the handler of a call, or one that refuses it: as of a stream, which does not wait for a message."""
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        try:
            asks_for_health = handler.unary_unary is not None and not method.startswith(OWN_METHODS)
            self._calls.check_token(method, handler_call_details.invocation_metadata)
            self._calls.check_room(self._under_way.now + 1 - (PROBES if asks_for_health else 0))
        except CallError as error:
            objection = error
        else:
            return self._wrap(method, handler)

        def refuse(_: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            context.abort(*self._calls.turn_away(method, context, objection))

        return grpc.stream_stream_rpc_method_handler(refuse)
