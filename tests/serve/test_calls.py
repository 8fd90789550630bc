"""What happens around every call: request ids, log lines, errors, deadlines and cancels."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any, Final, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from PIL import Image

from scanline.contract import REQUEST_ID
from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsStub
from serve.core import Metadata
from serve.health import Health
from serve.lifecycle import Server
from tests.faults.server import running, until
from tests.serve.conftest import PATIENCE, HeldModel, ServerProcess, serving

ONE_IMAGE = pb.ClassifyRequest(pixels=bytes(784))


def trailing(call: grpc.Call | grpc.RpcError) -> dict[str, str | bytes]:
    return {entry[0]: entry[1] for entry in cast("Metadata", call.trailing_metadata())}


def test_the_caller_s_request_id_comes_back(stub: DigitsStub) -> None:
    _, call = stub.Classify.with_call(ONE_IMAGE, metadata=((REQUEST_ID, "order-66"),))
    assert trailing(call)[REQUEST_ID] == "order-66"


@pytest.mark.parametrize("given", [(), ((REQUEST_ID, "x" * 129),), ((REQUEST_ID, "two words"),)])
def test_a_missing_or_unfit_request_id_is_replaced(stub: DigitsStub, given: tuple[tuple[str, str], ...]) -> None:
    _, first = stub.Classify.with_call(ONE_IMAGE, metadata=given)
    _, second = stub.Classify.with_call(ONE_IMAGE, metadata=given)
    made = trailing(first)[REQUEST_ID]
    assert len(made) == 16
    assert made != trailing(second)[REQUEST_ID]


def test_an_unexpected_failure_shows_nothing_but_the_request_id(held: HeldModel, held_server: Server) -> None:
    held.failure = RuntimeError("the password is swordfish")
    held.allowed.release()
    with grpc.insecure_channel(held_server.address) as channel, pytest.raises(grpc.RpcError) as error:
        DigitsStub(channel).Classify(ONE_IMAGE, metadata=((REQUEST_ID, "order-66"),))
    assert error.value.code() is grpc.StatusCode.INTERNAL
    assert error.value.details() == "internal error; the server's log has it under request id order-66"
    assert trailing(error.value)[REQUEST_ID] == "order-66"


def test_a_full_server_says_when_to_come_back(held: HeldModel, held_server: Server) -> None:
    with grpc.insecure_channel(held_server.address) as channel:
        stub = DigitsStub(channel)
        running = stub.Classify.future(ONE_IMAGE)
        assert held.started.acquire(timeout=PATIENCE)
        full = pb.ClassifyRequest(pixels=bytes(784 * 1024))
        # one of these two waits and fills the queue, the other is refused at once
        calls = [stub.Classify.future(full), stub.Classify.future(full)]
        refused = threading.Event()
        for call in calls:
            call.add_done_callback(lambda _: refused.set())
        assert refused.wait(PATIENCE)
        error = next(call.exception() for call in calls if call.done())
        assert isinstance(error, grpc.RpcError)
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert int(trailing(error)["grpc-retry-pushback-ms"]) > 0
        held.allowed.release(100)
        assert len(running.result(PATIENCE).predictions) == 1
        assert len(next(call for call in calls if call.exception() is None).result(PATIENCE).predictions) == 1024


def test_a_call_beyond_the_most_that_may_be_under_way_is_told_when_to_come_back(
    held: HeldModel, transport: str
) -> None:
    with serving(transport=transport, instances=1, max_calls=2) as server, grpc.insecure_channel(server.address) as to:
        assert held.started.acquire(timeout=PATIENCE)  # the warm-up
        stub = DigitsStub(to)
        running = stub.Classify.future(ONE_IMAGE)
        assert held.started.acquire(timeout=PATIENCE)
        queued = stub.Classify.future(ONE_IMAGE)
        with pytest.raises(grpc.RpcError) as error:
            stub.Classify(ONE_IMAGE, timeout=PATIENCE, metadata=((REQUEST_ID, "order-66"),))
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error.value.details() == "2 calls are under way, the most that may be"
        assert int(trailing(error.value)["grpc-retry-pushback-ms"]) > 0
        assert trailing(error.value)[REQUEST_ID] == "order-66"
        with pytest.raises(grpc.RpcError) as of_a_stream:
            next(stub.ClassifyStream(iter([ONE_IMAGE]), timeout=PATIENCE))
        assert of_a_stream.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert server.statistics.snapshot().calls_failed == {"RESOURCE_EXHAUSTED": 2}
        health = health_pb2_grpc.HealthStub(to).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
        assert health.status == health_pb2.HealthCheckResponse.SERVING  # a busy server is not dead
        held.allowed.release(100)
        assert len(running.result(PATIENCE).predictions) == 1
        assert len(queued.result(PATIENCE).predictions) == 1


def test_a_deadline_passes_behind_a_stalled_model(held: HeldModel, held_server: Server) -> None:
    with grpc.insecure_channel(held_server.address) as channel:
        stub = DigitsStub(channel)
        running = stub.Classify.future(ONE_IMAGE)
        assert held.started.acquire(timeout=PATIENCE)
        with pytest.raises(grpc.RpcError) as error:
            stub.Classify(ONE_IMAGE, timeout=0.05)
        assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED

        def failed() -> dict[str, int]:
            return held_server.statistics.snapshot().models["digits", "1"].failed

        until(lambda: bool(failed()), "it is counted")
        assert failed() == {"REJECTED": 1}  # and not as one that its caller gave up
        held.allowed.release(2)
        assert len(running.result(PATIENCE).predictions) == 1
        assert len(stub.Classify(ONE_IMAGE).predictions) == 1
    # the warm-up, the running one and the last: the expired one never reached the model
    assert not held.started.acquire(blocking=False) or not held.started.acquire(blocking=False)


def test_a_cancelled_call_frees_its_place_and_its_batch_mates_are_answered(
    held: HeldModel, held_server: Server
) -> None:
    with grpc.insecure_channel(held_server.address) as channel:
        stub = DigitsStub(channel)
        running = stub.Classify.future(ONE_IMAGE)
        assert held.started.acquire(timeout=PATIENCE)
        mates = [stub.Classify.future(ONE_IMAGE) for _ in range(5)]
        until(lambda: held_server.statistics.in_flight() == 6, "all have come")
        mates[2].cancel()
        until(lambda: held_server.statistics.in_flight() == 5, "one has gone")
        held.allowed.release(100)
        assert len(running.result(PATIENCE).predictions) == 1
        for index, mate in enumerate(mates):
            if index != 2:
                assert len(mate.result(PATIENCE).predictions) == 1
    assert sum(held.images[1:]) == 5  # after the warm-up


@pytest.fixture(scope="module")
def slow_files() -> pb.ClassifyRequest:
    """A call whose files take far longer to read than a test waits."""
    content = BytesIO()
    Image.new("L", (4000, 4000)).save(content, "PNG")
    return pb.ClassifyRequest(files=pb.EncodedImages(files=[content.getvalue()] * 1000))


SLOW: Final = {"instances": 1, "max_message_bytes": 2**25, "max_pixels": 2**24}


def test_files_are_not_read_for_a_caller_who_has_gone(slow_files: pb.ClassifyRequest, transport: str) -> None:
    with serving(transport=transport, **SLOW) as server, grpc.insecure_channel(server.address) as channel:
        call = DigitsStub(channel).Classify.future(slow_files)
        until(lambda: server.statistics.in_flight() == 1, "the call has come")
        call.cancel()
        until(lambda: server.statistics.snapshot().calls_failed == {"CANCELLED": 1}, "it is dropped")


def test_calls_that_are_taken_back_wait_for_threads_within_bounds(slow_files: pb.ClassifyRequest) -> None:
    few = {"max_calls": 4, "threads": 2, "max_streams": 1}
    with serving(transport="loop", **few, **SLOW) as server, grpc.insecure_channel(server.address) as channel:
        stub = DigitsStub(channel)
        running = [stub.Classify.future(slow_files) for _ in range(2)]
        until(lambda: server.statistics.in_flight() == len(running), "both threads have calls")

        def is_refused() -> bool:
            call = stub.Classify.future(pb.ClassifyRequest(files=pb.EncodedImages(files=[b""])))
            try:
                error = call.exception(timeout=0.1)
            except grpc.FutureTimeoutError:
                call.cancel()
                return False
            return isinstance(error, grpc.RpcError) and error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

        until(is_refused, "as many wait as may")
        assert len(stub.Classify(ONE_IMAGE, timeout=PATIENCE).predictions) == 1


def refusal_of(stream: Any) -> grpc.StatusCode | None:
    try:
        next(stream)
    except grpc.RpcError as error:
        return error.code()
    return None


def test_health_and_reflection_leave_half_of_the_places_to_others(transport: str) -> None:
    over = threading.Event()

    def questions() -> Iterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        over.wait(PATIENCE)

    with (
        serving(transport=transport, max_calls=16, max_streams=2) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        held: list[Any] = [reflection.ServerReflectionInfo(questions())]
        next(held[0])
        with pytest.raises(grpc.RpcError) as error:
            next(reflection.ServerReflectionInfo(questions()))
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert trailing(error.value)["grpc-retry-pushback-ms"] == "1000"
        assert server.statistics.snapshot().calls_failed == {"RESOURCE_EXHAUSTED": 1}
        stub = DigitsStub(channel)
        assert len(list(stub.ClassifyStream(iter([ONE_IMAGE]), timeout=PATIENCE))) == 1
        health = health_pb2_grpc.HealthStub(channel)
        watches = [health.Watch(health_pb2.HealthCheckRequest()) for _ in range(16)]
        refusals = [refusal_of(each) for each in watches]  # the server may take them in another order
        assert grpc.StatusCode.RESOURCE_EXHAUSTED in refusals
        assert set(refusals) <= {None, grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert (None in refusals) == (transport == "loop")  # where watching takes a thread, reflection has the only one
        assert refusals.count(None) < 8  # one of the eight places is reflection's
        held += watches
        assert len(stub.Classify(ONE_IMAGE, timeout=PATIENCE).predictions) == 1
        over.set()
        for call in held:
            call.cancel()


def silent_checks(channel: grpc.Channel, count: int, over: threading.Event) -> list[Any]:
    """Ask for the health as with unary calls, so many times, whose message does not come."""

    def nothing() -> Iterator[bytes]:
        over.wait(PATIENCE)
        yield from ()

    check: grpc.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary("/grpc.health.v1.Health/Check")
    return [check.future(nothing(), timeout=PATIENCE) for _ in range(count)]


def test_who_asks_for_the_health_and_sends_nothing_holds_up_no_refusal(transport: str) -> None:
    over = threading.Event()
    with serving(transport=transport, max_calls=4) as server, grpc.insecure_channel(server.address) as channel:
        checks = silent_checks(channel, 7, over)  # one connection takes eight calls
        until(lambda: any(call.done() for call in checks), "some are refused")
        try:
            code = DigitsStub(channel).Classify.with_call(ONE_IMAGE, timeout=PATIENCE)[1].code()
        except grpc.RpcError as error:
            code = error.code()
        # where a call takes a thread before its message is there, strangers can fill the places: that is said at once
        assert code is (grpc.StatusCode.OK if transport == "loop" else grpc.StatusCode.RESOURCE_EXHAUSTED)
        over.set()
        for call in checks:
            call.cancel()


def test_who_is_refused_is_in_nobodys_way() -> None:
    over = threading.Event()
    with (
        running("--transport", "loop", "--max-calls", "8") as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        stub = DigitsStub(channel)
        for _ in range(20):
            stub.Classify(ONE_IMAGE, timeout=PATIENCE)
            over.clear()
            server.process.send_signal(signal.SIGSTOP)  # so that it finds at once what is asked now
            checks = silent_checks(channel, 9, over)
            asked = stub.Classify.future(ONE_IMAGE, timeout=PATIENCE)
            server.process.send_signal(signal.SIGCONT)
            assert asked.code() is grpc.StatusCode.OK
            over.set()
            assert grpc.StatusCode.RESOURCE_EXHAUSTED in {call.code() for call in checks}


def test_the_name_of_a_method_that_there_is_not_does_not_come_back_whole(transport: str) -> None:
    with serving(transport=transport) as server, grpc.insecure_channel(server.address) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{'x' * 5000}")
        with pytest.raises(grpc.RpcError) as error:
            call(b"", timeout=PATIENCE)
        assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert len(str(error.value.details())) < 100


class OverCall:
    """A call that ended just before: no caller can be made to leave at that moment."""

    def add_callback(self, _: Callable[[], None]) -> bool:
        return False


def test_who_watches_health_and_goes_at_once_is_forgotten() -> None:
    health = Health()
    said: list[health_pb2.HealthCheckResponse | None] = []
    health.Watch(health_pb2.HealthCheckRequest(), cast("grpc.ServicerContext", OverCall()), said.append)
    assert said[-1] is None
    health.tell(is_serving=True)
    assert said[-1] is None


def test_log_lines_are_data(start_server: Callable[..., ServerProcess]) -> None:
    server = start_server("--log-level", "debug")
    serving_line = server.wait_for("serving")
    assert {"address", "model", "version", "accuracy", "timestamp", "level"} <= serving_line.keys()
    with grpc.insecure_channel(serving_line["address"]) as channel:
        stub = DigitsStub(channel)
        stub.Classify(ONE_IMAGE, metadata=((REQUEST_ID, "good"),))
        with pytest.raises(grpc.RpcError):
            stub.Classify(pb.ClassifyRequest(), metadata=((REQUEST_ID, "bad"),))
    answered, refused = server.wait_for("answered"), server.wait_for("refused")
    assert (answered["request_id"], answered["level"]) == ("good", "debug")
    assert (refused["request_id"], refused["code"], refused["level"]) == ("bad", "INVALID_ARGUMENT", "warning")
    assert refused["method"] == "/scanline.v1.Digits/Classify"
    server.process.terminate()
    code, rest = server.end()
    assert code == 0
    assert [json.loads(line)["event"] for line in rest.splitlines()] == ["not serving", "draining", "stopped"]


def test_a_quiet_server_logs_no_answered_call(start_server: Callable[..., ServerProcess]) -> None:
    server = start_server()
    with grpc.insecure_channel(server.wait_for("serving")["address"]) as channel:
        DigitsStub(channel).Classify(ONE_IMAGE)
    server.process.terminate()
    assert "answered" not in server.end()[1]


def test_calls_that_are_over_take_no_place_on_their_connection(transport: str) -> None:
    """A stream that gRPC still counts when its call is answered would have a later call refused, REFUSED_STREAM."""
    with serving(transport=transport, max_calls=64) as server, grpc.insecure_channel(server.address) as channel:
        classify = DigitsStub(channel).Classify
        with ThreadPoolExecutor(48) as callers:
            answers = list(callers.map(lambda _: len(classify(ONE_IMAGE, timeout=PATIENCE).predictions), range(2000)))
    assert answers == [1] * 2000


def test_who_has_seen_enough_rows_and_goes_is_no_failure(transport: str) -> None:
    over = threading.Event()

    def rows() -> Iterator[pb.ClassifyRowsRequest]:
        yield pb.ClassifyRowsRequest(rows=bytes(28))
        over.wait(PATIENCE)

    with serving(transport=transport) as server, grpc.insecure_channel(server.address) as channel:
        stub = DigitsStub(channel)
        for _ in range(4):
            answers = stub.ClassifyRows(rows())
            next(answers)
            stub.GetModel(pb.GetModelRequest())  # by then it waits for another row
            answers.cancel()
        over.set()
    assert server.statistics.snapshot().calls_failed == {}
