"""The plain transport: grpc.server with its thread pool, on nothing but the public API."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import grpc

from serve.calls import Calls
from serve.interceptor import CallInterceptor, Handler

REFUSING: Final = 2  # threads that tell callers to come back while all others have calls


class ThreadServer:
    """A gRPC server in which each call has a thread; takes servicers as a grpc.Server does."""

    def __init__(
        self, interceptor: CallInterceptor, calls: Calls, *, max_calls: int, options: Sequence[tuple[str, int]]
    ) -> None:
        """Prepare the server.

        Args:
            interceptor: stands around every call that is let in.
            calls: counts and names those that are not.
            max_calls: the most calls that are under way, each with a thread, since grpc.server gives a call its
                thread before its message is there; others are refused.
            options: the core's channel arguments.
        """
        pool = _Pool(max_calls + REFUSING, thread_name_prefix="call")
        self._server = grpc.server(pool, interceptors=[_Bound(pool, calls, max_calls), interceptor], options=options)

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Add services by a function that looks their methods up."""
        self._server.add_generic_rpc_handlers(generic_rpc_handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Handler]) -> None:
        """Add the methods of a service."""
        self._server.add_registered_method_handlers(service_name, dict[str, Any](method_handlers))

    def bind(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        """Listen on ``host:port``, with TLS if there are credentials, and give the port; 0 if it can't be had."""
        try:
            if credentials is not None:
                return self._server.add_secure_port(address, credentials)
            return self._server.add_insecure_port(address)
        except RuntimeError:
            return 0

    def start(self) -> None:
        """Begin to answer."""
        self._server.start()

    def stop(self, timeout: float) -> bool:
        """Take no more calls, cancel those that are under way, and say whether all is closed within so many seconds."""
        return self._server.stop(0).wait(timeout)


class _Pool(ThreadPoolExecutor):
    """Counts what it has to do.

    Attributes:
        under_way: how many calls have a thread or wait for one.
    """

    def __init__(self, threads: int, thread_name_prefix: str) -> None:
        super().__init__(threads, thread_name_prefix)
        self.under_way = 0
        self._lock = threading.Lock()

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        with self._lock:
            self.under_way += 1
        future = super().submit(function, *arguments, **named)
        future.add_done_callback(self._discount)
        return future

    def _discount(self, _: Future[Any]) -> None:
        with self._lock:
            self.under_way -= 1


class _Bound(grpc.ServerInterceptor):
    """Refuses calls beyond the most that may be; grpc.server itself would not say when to come back, or count it."""

    def __init__(self, pool: _Pool, calls: Calls, max_calls: int) -> None:
        self._pool = pool
        self._calls = calls
        self._max_calls = max_calls

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Give the handler of a call, or one that refuses it: as of a stream, which does not wait for a message."""
        handler = continuation(handler_call_details)
        if handler is None or self._pool.under_way < self._max_calls:
            return handler

        def refuse(_: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            context.abort(*self._calls.turn_away(handler_call_details.method, context, self._max_calls))

        return grpc.stream_stream_rpc_method_handler(refuse)
