"""The fast transport: threads that handle the gRPC core's own events and run the model between them.

grpc.server hands each call through two or three threads, which costs more than reading a digit. Here a thread takes
what the core has for it, queues the images, and when nothing more is there it runs what is queued as one batch and
answers. Nothing waits, nothing is handed over; under load the batches grow by themselves. There is one thread more than
the model may have runs, so that calls are taken, refused and cancelled even if the model never returned. While it runs
that thread looks for events now and then only: those that run the model will take them at once when they are done.

It stands on `grpc._cython.cygrpc`, which grpcio does not promise to keep. That is why serve.threads does the same on
the public API, why `--transport` can choose it, and why the tests hold both to one behaviour. docs/decisions has what
it gains.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

import grpc
import structlog
from grpc._cython import cygrpc  # type: ignore[attr-defined] # it ships no types

from serve.calls import Calls
from serve.deferred import Deferred
from serve.errors import CallError
from serve.interceptor import CallInterceptor, Handler
from serve.loop_call import AbortedError, LoopCall

# Calls that the core may hand over before we come to ask for more.
ACCEPT_AHEAD: Final = 16
# How often the last thread looks for events while all others run the model, in seconds. Each event that it took as it
# comes would interrupt a run twice and fill the core's caches with other things.
NAP: Final = 0.01
AT_ONCE: Final = 0.0  # a deadline that has passed: take an event that is there, don't wait for one
AS_LONG_AS_IT_TAKES: Final = None

log = structlog.get_logger("scanline.loop")


Updates: TypeAlias = Callable[[Any, Any, Callable[[Any], None]], None]
Stream: TypeAlias = Callable[[Iterator[Any], Any], Generator[Any, None, None]]


@dataclass(frozen=True, slots=True)
class Method:
    """A method of a service; one of the three kinds of handler is set.

    Attributes:
        name: its full name, ``/package.Service/Method``.
        deserialize: reads a request; for our own services it gives a CallError for what is no message.
        serialize: writes a response.
        unary: gives a response for a request.
        updates: takes a request and a function, which it calls with each response, and with None in the end.
        stream: gives an iterator of responses for one of requests.
    """

    name: str
    deserialize: Callable[[bytes], Any]
    serialize: Callable[[Any], bytes]
    unary: Callable[[Any, Any], Any] | None
    updates: Updates | None
    stream: Stream | None

    @classmethod
    def of(cls, name: str, handler: Handler) -> Method:
        """Read it from grpc's handler, as generated code makes it."""
        assert handler.request_deserializer is not None
        assert handler.response_serializer is not None
        return cls(
            name,
            handler.request_deserializer,
            handler.response_serializer,
            handler.unary_unary,
            # grpc's stubs know neither the non-blocking kind nor that its iterators are generators
            cast("Updates | None", handler.unary_stream),
            cast("Stream | None", handler.stream_stream),
        )


class LoopServer:
    """A gRPC server on completion queues; takes servicers as a grpc.Server does."""

    def __init__(
        self,
        interceptor: CallInterceptor,
        calls: Calls,
        deferred: Mapping[str, Deferred],
        slow: Collection[str],
        work: Callable[[], bool],
        *,
        loops: int,
        threads: int,
        max_calls: int,
        options: Sequence[tuple[str, int]],
    ) -> None:
        """Prepare the server.

        Args:
            interceptor: stands around every call but the deferred ones.
            calls: counts and names the deferred ones, and those that are refused.
            deferred: the methods that come in two halves, by their full names.
            slow: the full names of others that take too long for a thread that handles events.
            work: called when no event is there; runs a batch, and says whether more waits.
            loops: how many threads handle events.
            threads: how many more handle streams and what is slow.
            max_calls: the most calls that are under way; others are refused.
            options: the core's channel arguments.
        """
        self._interceptor = interceptor
        self._calls = calls
        self._deferred = deferred
        self._slow = slow
        self._work = work
        self._max_calls = max_calls
        self._under_way = 0
        self._working = 0  # loops that run the model, or are about to see whether they can
        self._stopping = False
        self._changed = threading.Condition()
        self._methods: dict[str, Method] = {}
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="call")
        self._server = cygrpc.Server(tuple(options), False)
        self._queue = cygrpc.CompletionQueue()
        self._server.register_completion_queue(self._queue)
        self._loops = [threading.Thread(target=self._run, name=f"loop-{index}", daemon=True) for index in range(loops)]
        self._shut_down = threading.Event()

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Do nothing: the generated code adds every method in the other way, too."""

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Handler]) -> None:
        """Add the methods of a service."""
        for short_name, handler in method_handlers.items():
            name = f"/{service_name}/{short_name}"
            self._methods[name] = Method.of(name, self._interceptor.wrap(name, handler))

    def bind(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        """Listen on ``host:port``, with TLS if there are credentials, and give the port; 0 if it can't be had."""
        # what the public class wraps; None for none
        core_credentials = getattr(credentials, "_credentials", None)
        return int(self._server.add_http2_port(address.encode(), core_credentials))

    def start(self) -> None:
        """Begin to answer."""
        self._server.start()
        for _ in range(ACCEPT_AHEAD):
            self._accept_next()
        for loop in self._loops:
            loop.start()

    def stop(self, timeout: float) -> bool:
        """Take no more calls, cancel those that are under way, and say whether all is closed within so many seconds."""
        with self._changed:
            self._stopping = True
        self._server.shutdown(self._queue, lambda _: self._shut_down.set())
        self._server.cancel_all_calls()
        if not self._shut_down.wait(timeout):
            return False
        with self._changed:  # the queue must not be closed while somebody may start an operation on it
            if not self._changed.wait_for(lambda: self._under_way == 0, timeout):
                return False
        self._pool.shutdown()
        self._queue.shutdown()
        for loop in self._loops:
            loop.join()
        self._server.destroy()
        return True

    def _run(self) -> None:
        patience: float | None = AS_LONG_AS_IT_TAKES
        while True:
            event = self._queue.poll(patience)
            if event.completion_type == cygrpc.CompletionType.queue_timeout:
                patience = self._work_or_rest()
                continue
            if event.completion_type == cygrpc.CompletionType.queue_shutdown:
                return
            patience = AT_ONCE
            try:
                event.tag(event)
            except Exception:  # one call's mishap must not end all others
                log.exception("an event could not be handled")

    def _work_or_rest(self) -> float | None:
        """Run a batch if one waits, and give how long the next event may be waited for."""
        with self._changed:
            self._working += 1
        more_waits = self._work()
        with self._changed:
            self._working -= 1
            all_others_work = self._working == len(self._loops) - 1
        if more_waits:
            return AT_ONCE
        if all_others_work:
            time.sleep(NAP)
            return AT_ONCE
        return AS_LONG_AS_IT_TAKES

    def _accept_next(self) -> None:
        with self._changed:
            if not self._stopping:
                self._server.request_call(self._queue, self._queue, self._accept)

    def _accept(self, event: Any) -> None:
        if not event.success:  # the server is shutting down
            return
        self._accept_next()
        call = LoopCall(event)
        under_way = self._count()
        if not call.add_callback(self._discount):  # another thread has seen its end already
            self._discount()
        name = event.call_details.method.decode()
        method = self._methods.get(name)
        if method is None:
            call.end(grpc.StatusCode.UNIMPLEMENTED, f"there is no method {name}")
        elif under_way > self._max_calls:
            call.end(*self._calls.turn_away(name, call, self._max_calls))
        elif method.stream is not None:
            self._pool.submit(self._converse, call, method)
        else:
            call.when_received(lambda content: self._on_request(call, method, content))

    def _count(self) -> int:
        """Count a call that has come; give the number of those under way."""
        with self._changed:
            self._under_way += 1
            return self._under_way

    def _discount(self) -> None:
        with self._changed:
            self._under_way -= 1
            if self._under_way == 0:
                self._changed.notify_all()

    def _on_request(self, call: LoopCall, method: Method, content: bytes | None) -> None:
        if content is None:
            call.end(grpc.StatusCode.UNIMPLEMENTED, f"{method.name} takes exactly one message")
            return
        request = method.deserialize(content)
        deferred = self._deferred.get(method.name)
        if method.updates is not None:
            _Updates(call, method).begin(request)
        elif method.name in self._slow:
            self._pool.submit(self._answer, call, method, request)
        elif deferred is None or isinstance(request, CallError):
            self._answer(call, method, request)
        elif deferred.is_slow(request):
            self._pool.submit(self._answer, call, method, request)
        else:
            self._begin(call, method, deferred, request)

    def _begin(self, call: LoopCall, method: Method, deferred: Deferred, request: Any) -> None:
        record = self._calls.begin(method.name, call)
        try:
            record.admit()
            pending = deferred.begin(request, call)
        except Exception as error:  # noqa: BLE001 - the border to the client: nothing of ours but a status may pass
            call.end(*record.fail(error))
            return

        def finish() -> None:
            try:
                content = deferred.end(request, pending).SerializeToString()
            except Exception as error:  # noqa: BLE001 - as above
                call.end(*record.fail(error))
            else:
                record.succeed()
                call.answer(content)

        pending.when_done(finish)

    def _answer(self, call: LoopCall, method: Method, request: Any) -> None:
        """Answer with a handler that is done when it returns."""
        assert method.unary is not None
        with _answering_errors(call):
            call.answer(method.serialize(method.unary(request, call)))

    def _converse(self, call: LoopCall, method: Method) -> None:
        """Run a stream's handler, which reads and writes in its own time."""
        assert method.stream is not None
        with _answering_errors(call), closing(method.stream(_requests(call, method), call)) as responses:
            for response in responses:
                if not call.send(method.serialize(response)):
                    break
            call.end()


class _Updates:
    """Sends what a handler says, whenever it says it: grpc_health's Watch, called in its form with a callback."""

    def __init__(self, call: LoopCall, method: Method) -> None:
        self._call = call
        self._method = method
        self._lock = threading.RLock()  # a listener is called at once where the call is over
        self._waiting: deque[bytes] = deque()
        self._sending = False

    def begin(self, request: Any) -> None:
        assert self._method.updates is not None
        with _answering_errors(self._call):
            self._method.updates(request, self._call, self._say)

    def _say(self, response: Any) -> None:
        """Send a response after those before it; None ends the call."""
        if response is None:
            self._call.end()
            return
        with self._lock:
            self._waiting.append(self._method.serialize(response))
            if not self._sending:
                self._send_next()

    def _on_sent(self, went_out: bool) -> None:
        with self._lock:
            self._sending = False
            if self._waiting and went_out:
                self._send_next()

    def _send_next(self) -> None:
        self._sending = True
        self._call.when_sent(self._waiting.popleft(), self._on_sent)


def _requests(call: LoopCall, method: Method) -> Iterator[Any]:
    while (content := call.receive()) is not None:
        yield method.deserialize(content)


@contextmanager
def _answering_errors(call: LoopCall) -> Iterator[None]:
    """Answer a call whose handler raises."""
    try:
        yield
    except AbortedError:
        call.end()
    except Exception:  # our own handlers abort; this is a library's
        log.exception("a handler failed")
        call.end(grpc.StatusCode.UNKNOWN, "the handler failed")
