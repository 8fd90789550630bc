"""What happens around every call: it gets a request id, its errors become a status, and it leaves a log line."""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import grpc
import structlog

from scanline.v1 import digits_pb2
from serve import status
from serve.errors import CallError, CancelledError, ExpiredError, StoppingError

REQUEST_ID: Final = "x-request-id"
_ACCEPTABLE_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")
OWN_METHODS: Final = f"/{digits_pb2.DESCRIPTOR.package}."

Behaviour = Callable[[Any, grpc.ServicerContext], Any]
log = structlog.get_logger("scanline.call")


class CallInterceptor(grpc.ServerInterceptor):
    """Surrounds the calls of our own services; health and reflection go by untouched."""

    def __init__(self) -> None:
        """Begin with no call under way."""
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        self._lock = threading.Condition()
        self._under_way = 0
        self._refusing = False

    def refuse(self) -> None:
        """Answer every call that comes from now on with UNAVAILABLE.

        gRPC's own stop does not quite: it cancels what has arrived but is not yet handed out, and a caller that reads
        CANCELLED does not try elsewhere.
        """
        self._refusing = True

    def wait_until_idle(self, timeout: float) -> bool:
        """Wait until no call is under way, answers included, and say whether it came to that within so many seconds."""
        with self._lock:
            return self._lock.wait_for(lambda: self._under_way == 0, timeout)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Give the handler of a call, wrapped."""
        handler = continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(OWN_METHODS):
            return handler
        if method not in self._handlers:
            self._handlers[method] = self._wrap(method, handler)
        return self._handlers[method]

    def _wrap(self, method: str, handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
        codec = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_unary is not None:
            behaviour = handler.unary_unary

            def unary(request: Any, context: grpc.ServicerContext) -> Any:
                with self._surround(method, context):
                    return behaviour(request, context)

            return grpc.unary_unary_rpc_method_handler(unary, **codec)

        stream_behaviour = handler.stream_stream
        assert stream_behaviour is not None, f"{method} is of a kind that no service of ours has"

        def stream(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            with self._surround(method, context):
                yield from stream_behaviour(requests, context)

        return grpc.stream_stream_rpc_method_handler(stream, **codec)

    @contextmanager
    def _surround(self, method: str, context: grpc.ServicerContext) -> Iterator[None]:
        started = time.perf_counter()
        request_id = _request_id(context)
        trailing: status.Metadata = ((REQUEST_ID, request_id),)
        context.set_trailing_metadata(trailing)
        with self._lock:
            self._under_way += 1
        # Called when the answer is out or the caller is gone: only then may the server stop.
        if not context.add_callback(self._end):
            self._end()
        try:
            if self._refusing:
                raise StoppingError("the server is stopping; try another")
            yield
        except Exception as error:  # noqa: BLE001 - the border to the client: nothing of ours but a status may pass
            code, message, more = status.of(error, request_id)
            _log_failure(error, code, message, context, method=method, request_id=request_id, started=started)
            context.set_trailing_metadata(trailing + more)
            context.abort(code, message)
        log.debug("answered", method=method, request_id=request_id, ms=_since(started))

    def _end(self) -> None:
        with self._lock:
            self._under_way -= 1
            if self._under_way == 0:
                self._lock.notify_all()


def _request_id(context: grpc.ServicerContext) -> str:
    for key, value in context.invocation_metadata():
        if key == REQUEST_ID and isinstance(value, str) and _ACCEPTABLE_ID.fullmatch(value):
            return value
    return secrets.token_hex(8)


def _log_failure(
    error: Exception,
    code: grpc.StatusCode,
    message: str,
    context: grpc.ServicerContext,
    *,
    method: str,
    request_id: str,
    started: float,
) -> None:
    fields = {"method": method, "request_id": request_id, "code": code.name, "ms": _since(started)}
    if isinstance(error, (CancelledError, ExpiredError)) or not context.is_active():
        log.info("dropped", **fields, message=message)  # nobody is there to read the answer
    elif code is grpc.StatusCode.INTERNAL:
        log.error("failed", **fields, error=str(error), exc_info=None if isinstance(error, CallError) else error)
    else:
        log.warning("refused", **fields, message=message)


def _since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)
