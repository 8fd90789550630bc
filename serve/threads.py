"""The plain transport: grpc.server with its thread pool, on nothing but the public API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from serve.calls import Calls
from serve.interceptor import CallInterceptor, Handler


class ThreadServer:
    """A gRPC server in which each call has a thread; takes servicers as a grpc.Server does."""

    def __init__(self, calls: Calls, *, threads: int, max_calls: int, options: Sequence[tuple[str, int]]) -> None:
        """Prepare the server.

        Args:
            calls: counts and names the calls of our own services.
            threads: how many calls are handled at once; others wait for a thread.
            max_calls: the most calls that are under way or wait; others are refused.
            options: the core's channel arguments.
        """
        self._server = grpc.server(
            ThreadPoolExecutor(threads, thread_name_prefix="call"),
            interceptors=[CallInterceptor(calls)],
            maximum_concurrent_rpcs=max_calls,
            options=options,
        )

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Add services by a function that looks their methods up."""
        self._server.add_generic_rpc_handlers(generic_rpc_handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Handler]) -> None:
        """Add the methods of a service."""
        self._server.add_registered_method_handlers(service_name, dict[str, Any](method_handlers))

    def bind(self, address: str) -> int:
        """Listen on an address, ``host:port``, and give the port; 0 if it can't be had."""
        try:
            return self._server.add_insecure_port(address)
        except RuntimeError:
            return 0

    def start(self) -> None:
        """Begin to answer."""
        self._server.start()

    def stop(self) -> None:
        """Take no more calls, cancel those that are under way, and wait until all is closed."""
        self._server.stop(0).wait()
