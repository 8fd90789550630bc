"""Puts serve.calls around the handlers of our own services, and the bounds that all share around every service."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError

from serve import parts
from serve.calls import OWN_METHODS, Calls
from serve.errors import BadRequestError, CallError, FullError

STREAM_RETRY_AFTER: Final = 1.0

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class Surroundings:
    """Surrounds each call of ours: counted, named, its errors turned into a status, logged.

    Of all services, health and reflection too, it bounds the open streams, each of which holds a thread, and answers
    what is no message with INVALID_ARGUMENT. Those two, which need no token, get half of them at most.
    """

    def __init__(self, calls: Calls, max_streams: int) -> None:
        """Report to the calls under way, and let so many streams be open at once."""
        self._calls = calls
        self._stream = _places(max_streams)
        self._stream_of_others = _places(max(1, max_streams // 2))

    def wrap(self, method: str, handler: Handler) -> Handler:
        """Put what surrounds a call around a handler."""
        if method.startswith(OWN_METHODS):
            surround: Callable[..., AbstractContextManager[None]] = self._surround
            among: Callable[[], AbstractContextManager[None]] = nullcontext
            kind = descriptor_pool.Default().FindMethodByName(method[1:].replace("/", ".")).input_type
        else:  # health and reflection, whose messages have no repeated parts
            surround, among, kind = self._answer_errors, self._stream_of_others, None
        codec = {
            "request_deserializer": _tolerant(handler.request_deserializer, kind),
            "response_serializer": handler.response_serializer,
        }
        behaviour: Any = handler.unary_unary or handler.unary_stream or handler.stream_stream
        read: Callable[[Any], Any] = _readable if handler.stream_stream is None else _until_gone

        def answer(request: Any, context: grpc.ServicerContext, *say: Any) -> Any:
            with surround(method, context):
                return behaviour(read(request), context, *say)

        def hold(given: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            with surround(method, context), among(), self._stream():
                yield from behaviour(read(given), context)

        def watch(request: Any, context: grpc.ServicerContext, *say: Any) -> Any:
            # the loop transport has it say what comes, which holds no thread
            return answer(request, context, *say) if say else hold(request, context)

        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(answer, **codec)
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(watch, **codec)
        return grpc.stream_stream_rpc_method_handler(hold, **codec)

    @contextmanager
    def _surround(self, method: str, context: grpc.ServicerContext) -> Iterator[None]:
        call = self._calls.begin(method, context)
        try:
            call.admit()
            yield
        except Exception as error:  # noqa: BLE001 - the border to the client: whatever went wrong leaves as a status, no text of ours with it
            context.abort(*call.fail(error))
        call.succeed()

    @contextmanager
    def _answer_errors(self, method: str, context: grpc.ServicerContext) -> Iterator[None]:
        """Surround a call of another service: what we refuse of it gets its status."""
        try:
            yield
        except CallError as error:
            context.abort(*self._calls.turn_away(method, context, error))


def _places(most: int) -> Callable[[], AbstractContextManager[None]]:
    """Make so many places for streams; give what holds one of them."""
    free = threading.BoundedSemaphore(most)

    @contextmanager
    def one() -> Iterator[None]:
        if not free.acquire(blocking=False):
            raise FullError(f"{most} streams are open, the most that may be", STREAM_RETRY_AFTER)
        try:
            yield
        finally:
            free.release()

    return one


def _tolerant(deserialize: Callable[[bytes], Any] | None, kind: Descriptor | None) -> Callable[[bytes], Any]:
    """Make a deserializer give its error instead of raising it: gRPC would answer INTERNAL for what is the caller's."""
    assert deserialize is not None  # generated code always has one

    def attempt(content: bytes) -> Any:
        if kind is not None and parts.too_many(content, kind):
            return BadRequestError(
                f"the message has more than {parts.most(len(content)):,} parts, which is more than images make"
            )
        try:
            return deserialize(content)
        except DecodeError as error:
            return BadRequestError(f"the message is not what this method takes: {error}")

    return attempt


def _until_gone(requests: Iterator[Any]) -> Iterator[Any]:
    """Give a stream's requests; a caller who goes, as is its right, only ends them."""
    with suppress(grpc.RpcError):
        for request in requests:
            yield _readable(request)


def _readable(request: Any) -> Any:
    if isinstance(request, BadRequestError):
        raise request
    return request
