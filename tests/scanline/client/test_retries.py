"""What is tried again, when, and how it ends where that does not help."""

from __future__ import annotations

import asyncio
import gc
import itertools
import socket
import threading
from types import SimpleNamespace

import grpc
import pytest

from scanline import AccessError, AsyncClient, BusyError, Client, ClosedError, ServiceError, SlowError, UnreachableError
from scanline.client import call
from scanline.client.call import FIRST_CONTACT
from scanline.client.connection import Connection
from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsStub
from tests.faults.server import until
from tests.scanline.client.servers import Refusal, numbered, scripted
from tests.serve.conftest import PATIENCE

UNAVAILABLE = Refusal(grpc.StatusCode.UNAVAILABLE)
FULL = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED)


@pytest.mark.parametrize("refusal", [UNAVAILABLE, FULL])
def test_what_fails_for_the_moment_is_tried_again(refusal: Refusal) -> None:
    with scripted([refusal] * 5) as server, Client(server.address) as client:
        answers = client.classify(numbered(120))
    assert [answer.digit for answer in answers] == [number % 10 for number in range(120)]
    assert sum(server.images) == 120 + sum(server.images[:5])


def test_only_what_failed_is_sent_again() -> None:
    with scripted([UNAVAILABLE]) as server, Client(server.address) as client:
        answers = list(client.stream(numbered(500)))
    assert [answer.digit for answer in answers] == [number % 10 for number in range(500)]
    assert sum(server.images) == 500 + server.images[0]


def test_tasks_share_a_retry() -> None:
    async def ask() -> list[int | None]:
        async with AsyncClient(server.address) as client:
            answers = await asyncio.gather(*map(client.classify, numbered(50)))
        return [answer.digit for [answer] in answers]

    with scripted([FULL]) as server:
        assert asyncio.run(ask()) == [number % 10 for number in range(50)]
    assert server.images == [50, 50]


def test_it_comes_back_when_the_server_says() -> None:
    with scripted([Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "700")]) as server, Client(server.address) as client:
        client.classify(numbered(1))
    assert server.times[1] - server.times[0] >= 0.7


@pytest.mark.parametrize("pushback", ["-1", "soon", "9" * 400])
def test_a_server_may_forbid_to_come_back(pushback: str) -> None:
    script = itertools.repeat(Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, pushback))
    with scripted(script) as server, Client(server.address) as client, pytest.raises(BusyError):
        client.classify(numbered(1))
    assert len(server.times) == 1


def test_a_server_that_stays_full_is_an_error_at_the_deadline() -> None:
    with (
        scripted(itertools.repeat(FULL)) as server,
        Client(server.address, timeout=1) as client,
        pytest.raises(BusyError, match=r"had no room for 1 s: as the script says; try again later") as error,
    ):
        client.classify(numbered(1))
    assert error.value.code == "RESOURCE_EXHAUSTED"
    assert len(server.times) > 2


def test_no_answer_in_time_is_an_error() -> None:
    with scripted() as server, Client(server.address, timeout=0.5) as client:
        server.answer.clear()
        with pytest.raises(SlowError, match=r"did not answer within 0\.5 s"):
            client.classify(numbered(1))


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, AccessError, "token"),
        (grpc.StatusCode.PERMISSION_DENIED, AccessError, "token"),
        (grpc.StatusCode.INVALID_ARGUMENT, ServiceError, "refused"),
        (grpc.StatusCode.INTERNAL, ServiceError, "refused"),
        (grpc.StatusCode.UNIMPLEMENTED, ServiceError, "no Scanline server, or one of another release"),
    ],
)
def test_what_will_not_change_is_said_at_once(code: grpc.StatusCode, kind: type[ServiceError], says: str) -> None:
    with scripted([Refusal(code)]) as server, Client(server.address) as client, pytest.raises(kind) as error:
        client.classify(numbered(1))
    assert type(error.value) is kind
    assert says in str(error.value)
    assert error.value.code == code.name
    assert len(server.times) == 1


def test_closing_ends_what_waits_for_its_next_attempt() -> None:
    script = itertools.repeat(Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "20000"))
    with scripted(script) as server:
        client = Client(server.address)

        def close() -> None:
            until(lambda: len(server.times) > 0, "a call came")
            client.close()

        closer = threading.Thread(target=close)
        closer.start()
        with pytest.raises(ClosedError):
            client.classify(numbered(1))
        closer.join()
    assert len(server.times) == 1


def test_servers_take_turns() -> None:
    with (
        scripted() as one,
        scripted() as other,
        Client(f"{one.address},{other.address}") as client,
    ):
        for _ in range(20):
            client.classify(numbered(1))
    assert len(one.times) == len(other.times) == 10


def test_one_of_two_that_is_down_costs_nothing() -> None:
    with scripted() as server, Client(f"127.0.0.1:1,{server.address}") as client:
        assert [answer.digit for answer in client.stream(numbered(1000))] == [number % 10 for number in range(1000)]


def test_an_attempt_that_failed_goes_to_the_next_address_whatever_others_do() -> None:
    with (
        scripted(itertools.repeat(UNAVAILABLE)) as down,
        scripted() as server,
        Client(f"{down.address},{server.address}") as client,
    ):
        client.classify(numbered(400))
    assert len(down.times) == 4  # of eight messages of 50 every other one, once


def test_one_of_two_that_is_frozen_is_not_the_only_one_that_is_asked() -> None:
    # a connection takes longer to fail than a client goes on trying where none has answered
    patience = {"grpc.min_reconnect_backoff_ms": int(FIRST_CONTACT * 1_000) + 100}
    with socket.create_server(("127.0.0.1", 0)) as frozen, scripted() as server:
        target = f"127.0.0.1:{frozen.getsockname()[1]},{server.address}"
        with Client(target, options=patience) as client:
            assert [answer.digit for answer in client.classify(numbered(3))] == [0, 1, 2]


def test_where_no_server_ever_answered_it_gives_up_before_the_deadline() -> None:
    with Client("127.0.0.1:1,127.0.0.1:2", timeout=600) as client, pytest.raises(UnreachableError) as error:
        client.classify(numbered(1))
    assert str(error.value).startswith("no answer from 127.0.0.1:1,127.0.0.1:2: ")


def test_a_call_that_was_given_up_is_no_answer() -> None:
    async def ask(address: str) -> str:
        async with AsyncClient(address, timeout=600) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await client.model()
            place.close()  # from now on connections are refused
            with pytest.raises(UnreachableError) as error:
                await client.model()
            return str(error.value)

    with socket.create_server(("127.0.0.1", 0)) as place:  # takes connections, and says nothing
        address = f"127.0.0.1:{place.getsockname()[1]}"
        assert asyncio.run(asyncio.wait_for(ask(address), PATIENCE)).startswith(f"no answer from {address}: ")


def test_a_server_of_ours_that_can_t_answer_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call, "FIRST_CONTACT", 0.0)
    loading = Refusal(grpc.StatusCode.UNAVAILABLE, id="7")
    with scripted(describing=[loading] * 3) as server, Client(server.address) as client:
        assert [answer.digit for answer in client.classify(numbered(2))] == [0, 1]


def test_where_no_thread_can_wait_for_the_next_attempt_the_call_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(call, "threading", SimpleNamespace(Thread=refuse))  # a limit of processes spares root
    with scripted([UNAVAILABLE]) as server, Client(server.address) as client, pytest.raises(UnreachableError):
        client.classify(numbered(1))


def test_a_server_may_stay_full_for_more_rounds_than_a_float_can_be_doubled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call, "LONGEST_PAUSE", 0.0)
    script = itertools.repeat(FULL, 1_030)
    with scripted(script) as server, Client(server.address, timeout=PATIENCE) as client:
        assert [answer.digit for answer in client.classify(numbered(1))] == [0]
    assert len(server.times) == 1_031


def test_what_goes_wrong_between_attempts_ends_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: float) -> float:
        raise OverflowError("no pause")

    async def ask(address: str) -> None:
        async with AsyncClient(address) as client:
            await asyncio.wait_for(client.classify(numbered(1)), PATIENCE)

    monkeypatch.setattr(call, "CHANCE", SimpleNamespace(uniform=refuse))
    with scripted([FULL]) as server, Client(server.address) as client, pytest.raises(OverflowError, match="no pause"):
        client.classify(numbered(1))
    with scripted([FULL]) as server, pytest.raises(OverflowError, match="no pause"):
        asyncio.run(ask(server.address))


def test_an_attempt_that_can_t_be_made_ends_the_call() -> None:
    def send(attempt: int, seconds: float) -> grpc.Future[pb.ClassifyResponse]:
        if attempt:
            raise RuntimeError("can't start new thread")  # gRPC starts some of its own
        return DigitsStub(channel).Classify.future(pb.ClassifyRequest(pixels=bytes(784)), seconds)

    with scripted([FULL]) as server, grpc.insecure_channel(server.address) as channel:
        line = Connection(server.address, timeout=PATIENCE, tls=None, token=None, options=None)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            call.Call(line, send).answer.result(PATIENCE)
        line.close()


def test_a_call_that_is_cancelled_while_it_is_tried_again_leaves_no_attempt_behind() -> None:
    calls: list[call.Call[pb.ClassifyResponse]] = []
    attempts: list[grpc.Future[pb.ClassifyResponse]] = []

    def send(attempt: int, seconds: float) -> grpc.Future[pb.ClassifyResponse]:
        if attempt:
            calls[0].answer.cancel()
        attempts.append(DigitsStub(channel).Classify.future(pb.ClassifyRequest(pixels=bytes(784)), seconds))
        return attempts[-1]

    with scripted([UNAVAILABLE]) as server, grpc.insecure_channel(server.address) as channel:
        server.answer.clear()
        line = Connection(server.address, timeout=PATIENCE, tls=None, token=None, options=None)
        calls.append(call.Call(line, send))
        until(lambda: len(attempts) == 2 and attempts[1].cancelled(), "the second attempt is cancelled")
        line.close()


def test_an_answer_that_leaves_images_out_is_an_error() -> None:
    async def ask() -> None:
        async with AsyncClient(server.address) as client:
            await client.classify(numbered(3))

    with scripted() as server, Client(server.address) as client:
        server.lost = 1
        for asked in (lambda: client.classify(numbered(3)), lambda: asyncio.run(ask())):
            with pytest.raises(ServiceError, match="the server answered with 2 predictions for 3 images"):
                asked()


def test_a_call_is_forgotten_with_its_answer() -> None:
    with scripted([UNAVAILABLE, FULL]) as server, Client(server.address) as client:
        gc.collect()
        gc.disable()  # by its next visit requests of hundreds of megabytes may have been made
        try:
            client.classify(numbered(500))
            until(lambda: not any(type(thing) is call.Call for thing in gc.get_objects()), "they are gone")
        finally:
            gc.enable()
