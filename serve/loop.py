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
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any, Final

import grpc
import structlog
from grpc._cython import cygrpc  # type: ignore[attr-defined] # it ships no types

from serve.calls import OWN_METHODS, PROBES, Calls, Tally
from serve.core import when_over
from serve.errors import CallError
from serve.intake import Deferred
from serve.interceptor import Handler
from serve.loop_call import AbortedError, LoopCall
from serve.settings import ServeSettings

# Calls that the core may hand over before we come to ask for more.
ACCEPT_AHEAD: Final = 16
# How often the last thread looks for events while all others run the model, in seconds. Each event that it took as it
# comes would interrupt a run twice and fill the core's caches with other things. Where runs wait for company, which
# those bring, it looks a few times in their delay, but not so often that looking would cost more than waiting gains.
NAP: Final = 0.01
LOOKS: Final = 4
SHORTEST_NAP: Final = 0.001
AT_ONCE: Final = 0.0  # a deadline that has passed: take an event that is there, don't wait for one
AS_LONG_AS_IT_TAKES: Final = None

log = structlog.get_logger("scanline.loop")


class LoopServer(grpc.Server):
    """A gRPC server on completion queues."""

    def __init__(
        self,
        wrap: Callable[[str, Handler], Handler],
        calls: Calls,
        deferred: Mapping[str, Deferred | None],
        work: Callable[[], bool],
        *,
        settings: ServeSettings,
        options: Sequence[tuple[str, int]],
    ) -> None:
        """Prepare the server.

        Args:
            wrap: puts around a handler what surrounds every call but the deferred ones.
            calls: counts and names the deferred ones, and those that are refused.
            deferred: the methods that may take too long for a thread that handles events, by their full names: in two
                halves, or None where they have none.
            work: called when no event is there; runs a batch, and says whether more waits.
            settings: how many runs of the model there may be, and threads for streams and what is slow.
            options: the core's channel arguments.
        """
        self._wrap = wrap
        self._calls = calls
        self._deferred = deferred
        self._work = work
        self._open = Tally()  # the calls of all services, and those that the core is to hand over
        self._let_in = Tally()  # those of them that are not refused
        self._others = Tally()  # those of health and reflection among them, for which nobody needs a token
        self._probes = Tally()  # those of them that ask once for the health
        self._handed_over = Tally()  # what the pool has to do, for callers that may have gone
        self._working = 0  # loops that run the model, or are about to see whether they can
        self._stopping = False
        # Never set: to wait for it is to rest. time.sleep fails under libfaketime, and an error would end the thread.
        self._never = threading.Event()
        self._nap = max(min(NAP, settings.max_queue_delay / LOOKS or NAP), SHORTEST_NAP)
        self._lock = threading.Lock()
        self._handlers: dict[str, Any] = {}  # grpc.RpcMethodHandler, of which its stubs don't know all that we use
        self._pool = ThreadPoolExecutor(settings.threads, thread_name_prefix="call")
        self._server = cygrpc.Server(tuple(options), False)
        self._queue = cygrpc.CompletionQueue()
        self._server.register_completion_queue(self._queue)
        # one is there for calls if the others never come back from the model
        loops = range(settings.instances + 1)
        self._loops = [threading.Thread(target=self._run, name=f"loop-{index}", daemon=True) for index in loops]

    # What grpc.Server documents.

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Do nothing: the generated code adds every method in the other way, too."""

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Handler]) -> None:
        for short_name, handler in method_handlers.items():
            name = f"/{service_name}/{short_name}"
            self._handlers[name] = self._wrap(name, handler)

    def add_insecure_port(self, address: str) -> int:
        return self._bind(address, None)

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        wrapped = server_credentials._credentials  # type: ignore[attr-defined] # noqa: SLF001 - the core wants its own, to which the public class that wraps it gives no other way
        return self._bind(address, wrapped)

    def start(self) -> None:
        self._server.start()
        for _ in range(ACCEPT_AHEAD):
            self._accept_next()
        for loop in self._loops:
            loop.start()

    def stop(self, grace: float | None) -> threading.Event:  # noqa: ARG002 - grpc.Server has it; serve.lifecycle has waited for the calls by then, and gives 0
        shut_down, closed = threading.Event(), threading.Event()
        with self._lock:
            self._stopping = True
        self._server.shutdown(self._queue, lambda _: shut_down.set())
        self._server.cancel_all_calls()

        def close() -> None:
            shut_down.wait()
            # The queue must not be closed while somebody may start an operation on it: the core would end the process.
            self._open.wait_until_none()
            self._pool.shutdown()
            self._queue.shutdown()
            for loop in self._loops:
                loop.join()
            self._server.destroy()
            closed.set()

        threading.Thread(target=close, name="close", daemon=True).start()
        return closed

    def _bind(self, address: str, core_credentials: Any) -> int:
        port = int(self._server.add_http2_port(address.encode(), core_credentials))
        if not port:
            raise RuntimeError(f"can't bind {address}")  # as grpc.server's own does
        return port

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
        with self._lock:
            self._working += 1
        more_waits = self._work()
        with self._lock:
            self._working -= 1
            all_others_work = self._working == len(self._loops) - 1
        if more_waits:
            return AT_ONCE
        if all_others_work:
            self._never.wait(self._nap)
            return AT_ONCE
        return AS_LONG_AS_IT_TAKES

    def _accept_next(self) -> None:
        with self._lock:
            if not self._stopping:
                self._open.enter()
                self._server.request_call(self._queue, self._queue, self._accept)

    def _accept(self, event: Any) -> None:
        if not event.success:  # the server is shutting down
            self._open.leave()
            return
        self._accept_next()
        call = LoopCall(event)
        when_over(call, self._open.leave)
        handler = self._handlers.get(call.method)
        if handler is None:
            call.end(grpc.StatusCode.UNIMPLEMENTED, f"there is no method {call.method[:64]}")
            return
        try:
            self._calls.check_token(call.method, call.invocation_metadata())
            self._take_place(call, handler)
        except CallError as error:
            call.end(*self._calls.turn_away(call.method, call, error))
            return
        if handler.stream_stream is not None:
            self._hand_over(call, _converse, handler)
        else:
            call.when_received(lambda content: self._on_request(call, handler, content))

    def _take_place(self, call: LoopCall, handler: Any) -> None:
        """Let a call in until it is over, if there is room. Who is refused never has a place, and is in nobody's way.

        Raises:
            FullError: there is none.
        """
        is_own = call.method.startswith(OWN_METHODS)
        asks_for_health = not is_own and handler.unary_unary is not None
        places = [self._let_in]
        if not is_own:
            places.append(self._others)
        if asks_for_health:
            places.append(self._probes)
        with self._lock:
            if not asks_for_health or self._probes.now >= PROBES:
                self._calls.check_room(self._let_in.now + 1)
                if not is_own:  # half of the places are our own services'
                    self._calls.check_room(2 * self._others.now + 1)
            for place in places:
                place.enter()
        for place in places:
            when_over(call, place.leave)

    def _on_request(self, call: LoopCall, handler: Any, content: bytes | None) -> None:
        if content is None:
            call.end(grpc.StatusCode.UNIMPLEMENTED, f"{call.method} takes exactly one message")
            return
        request = handler.request_deserializer(content)
        if handler.unary_stream is not None:
            _watch(call, handler, request)
        elif isinstance(request, CallError) or call.method not in self._deferred:
            _answer(call, handler, request)
        elif (deferred := self._deferred[call.method]) is None or deferred.is_slow(request):
            self._hand_over(call, _answer, handler, request)
        else:
            self._begin(call, deferred, request)

    def _hand_over(self, call: LoopCall, act: Callable[..., None], *arguments: Any) -> None:
        """Let a thread of the pool see to a call, unless too much waits for one: calls that are over wait, too."""
        try:
            self._calls.check_room(self._handed_over.enter())
        except CallError as error:
            self._handed_over.leave()
            call.end(*self._calls.turn_away(call.method, call, error))
            return
        self._pool.submit(act, call, *arguments).add_done_callback(lambda _: self._handed_over.leave())

    def _begin(self, call: LoopCall, deferred: Deferred, request: Any) -> None:
        record = self._calls.begin(call.method, call)
        try:
            record.admit()
            pending = deferred.begin(request, call)
        except Exception as error:  # noqa: BLE001 - the border to the client: nothing of ours but a status may pass
            call.end(*record.fail(error))
            return

        def finish() -> None:
            try:
                content = deferred.end(request, pending).SerializeToString()
            except Exception as error:  # noqa: BLE001 - the border to the client here, too
                call.end(*record.fail(error))
            else:
                record.succeed()
                call.answer(content)

        pending.when_done(finish)


def _answer(call: LoopCall, handler: Any, request: Any) -> None:
    """Answer with a handler that is done when it returns."""
    with _answering_errors(call):
        call.answer(handler.response_serializer(handler.unary_unary(request, call)))


def _converse(call: LoopCall, handler: Any) -> None:
    """Run a stream's handler, which reads and writes in its own time."""
    contents = iter(call.receive, None)
    with (
        _answering_errors(call),
        closing(handler.stream_stream(map(handler.request_deserializer, contents), call)) as responses,
    ):
        for response in responses:
            if not call.send(handler.response_serializer(response)):
                break
        call.end()


def _watch(call: LoopCall, handler: Any, request: Any) -> None:
    """Send what a handler says, whenever it says it: grpc_health's Watch, called in its form with a callback."""
    lock = threading.RLock()  # a listener is called at once where the call is over
    unsent: deque[bytes] = deque()  # the first of them is on its way

    def say(response: Any) -> None:
        if response is None:
            call.end()
            return
        with lock:
            unsent.append(handler.response_serializer(response))
            if len(unsent) == 1:
                call.when_sent(unsent[0], on_sent)

    def on_sent(_: bool) -> None:
        with lock:
            unsent.popleft()
            if unsent:
                call.when_sent(unsent[0], on_sent)

    with _answering_errors(call):
        handler.unary_stream(request, call, say)


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
