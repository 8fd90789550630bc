"""Puts serve.calls around the handlers of our own services; health and reflection go by untouched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from scanline.v1 import digits_pb2
from serve.calls import Calls
from serve.errors import BadRequestError

OWN_METHODS: Final = f"/{digits_pb2.DESCRIPTOR.package}."

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class CallInterceptor(grpc.ServerInterceptor):
    """Surrounds each call: counted, named, its errors turned into a status, logged."""

    def __init__(self, calls: Calls) -> None:
        """Report to the calls under way."""
        self._calls = calls
        self._handlers: dict[str, Handler] = {}

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Give the handler of a call, wrapped."""
        method = handler_call_details.method
        if method not in self._handlers:
            handler = continuation(handler_call_details)
            if handler is None:
                return None
            self._handlers[method] = self.wrap(method, handler)
        return self._handlers[method]

    def wrap(self, method: str, handler: Handler) -> Handler:
        """Put what surrounds a call around a handler; give other services' handlers back as they are."""
        if not method.startswith(OWN_METHODS):
            return handler
        codec = {
            "request_deserializer": _tolerant(handler.request_deserializer),
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_unary is not None:
            behaviour = handler.unary_unary

            def unary(request: Any, context: grpc.ServicerContext) -> Any:
                with self._surround(method, context):
                    return behaviour(_readable(request), context)

            return grpc.unary_unary_rpc_method_handler(unary, **codec)

        stream_behaviour = handler.stream_stream
        assert stream_behaviour is not None, f"{method} is of a kind that no service of ours has"

        def stream(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            with self._surround(method, context):
                yield from stream_behaviour(map(_readable, requests), context)

        return grpc.stream_stream_rpc_method_handler(stream, **codec)

    @contextmanager
    def _surround(self, method: str, context: grpc.ServicerContext) -> Iterator[None]:
        call = self._calls.begin(method, context)
        try:
            call.admit()
            yield
        except Exception as error:  # noqa: BLE001 - the border to the client: nothing of ours but a status may pass
            context.abort(*call.fail(error))
        call.succeed()


def _tolerant(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    """Make a deserializer give its error instead of raising it: gRPC would answer INTERNAL for what is the caller's."""
    assert deserialize is not None  # generated code always has one

    def attempt(content: bytes) -> Any:
        try:
            return deserialize(content)
        except DecodeError as error:
            return BadRequestError(f"the message is not what this method takes: {error}")

    return attempt


def _readable(request: Any) -> Any:
    if isinstance(request, BadRequestError):
        raise request
    return request
