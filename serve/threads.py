"""The plain transport: grpc.server with its thread pool, on nothing but the public API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from serve.interceptor import CallInterceptor, Handler


class ThreadServer:
    """A gRPC server in which each call has a thread; takes servicers as a grpc.Server does."""

    def __init__(self, interceptor: CallInterceptor, *, max_calls: int, options: Sequence[tuple[str, int]]) -> None:
        """Prepare the server.

        Args:
            interceptor: stands around every call.
            max_calls: the most calls that are under way, each with a thread, since grpc.server gives a call its
                thread before its message is there; others are refused.
            options: the core's channel arguments.
        """
        self._server = grpc.server(
            ThreadPoolExecutor(max_calls, thread_name_prefix="call"),
            interceptors=[interceptor],
            maximum_concurrent_rpcs=max_calls,
            options=options,
        )

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
