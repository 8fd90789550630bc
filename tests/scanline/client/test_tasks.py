"""AsyncClient: the same answers as Client, from many tasks at once."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from scanline import AsyncClient, ClosedError, InputError, Prediction, Reader, ServiceError, UnreachableError, samples
from scanline.client import call, connection
from scanline.client.connection import IN_FLIGHT
from scanline.client.gather import Answer, Gatherer
from scanline.client.messages import Part
from serve.lifecycle import Server
from tests.faults.server import until
from tests.scanline.client.servers import Refusal, numbered, scripted, slowly
from tests.serve.conftest import PATIENCE, serving

NOISE = np.random.default_rng(8).integers(0, 256, (300, 28, 28), dtype=np.uint8)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader()


def same(answers: list[Prediction], expected: list[Prediction]) -> bool:
    return [(answer.digit, answer.error) for answer in answers] == [(wanted.digit, wanted.error) for wanted in expected]


def test_every_task_gets_the_answer_to_its_own_image(server: Server, reader: Reader) -> None:
    async def ask() -> list[list[Prediction]]:
        async with AsyncClient(server.address) as client:
            return await asyncio.gather(
                *(client.classify(image, probabilities=index % 3 == 0) for index, image in enumerate(NOISE)),
                *(client.classify(file) for file in samples.files()),
            )

    answers = asyncio.run(ask())
    assert same([answer for [answer] in answers], reader.classify([*NOISE, *samples.files()]))
    assert [answer.probabilities is not None for [answer] in answers[: len(NOISE)]] == [
        index % 3 == 0 for index in range(len(NOISE))
    ]


def test_every_form_of_image_in_one_call(server: Server, reader: Reader, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"broken")
    sample = samples.files()[0]
    images = [sample, sample.read_bytes(), tmp_path / "broken.png", NOISE[0], NOISE[1:200], tmp_path / "none.png"]

    async def ask() -> list[Prediction]:
        async with AsyncClient(server.address) as client:
            return [answer async for answer in client.stream(images)]

    assert same(asyncio.run(ask()), reader.classify(images))


def test_answers_come_before_a_slow_source_has_given_all(monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[Answer] = []
    send = Gatherer.send

    def noted(gatherer: Gatherer, part: Part | Prediction, *, probabilities: bool) -> Answer:
        parts.append(send(gatherer, part, probabilities=probabilities))
        return parts[-1]

    async def ask(address: str) -> int:
        async with AsyncClient(address) as client:
            async for _ in client.stream(slowly(parts, drawn)):
                return len(drawn)
        raise AssertionError("no answer")

    monkeypatch.setattr(Gatherer, "send", noted)
    drawn: list[int] = []
    with scripted() as server:
        assert asyncio.run(ask(server.address)) < 110


def test_a_small_server_gets_small_messages(reader: Reader) -> None:
    async def ask(address: str) -> list[list[Prediction]]:
        async with AsyncClient(address) as client:
            await client.classify([])
            return await asyncio.gather(
                client.classify(NOISE), *(client.classify(image) for image in NOISE), client.classify(samples.files())
            )

    with serving(max_images=7, max_message_bytes=20_000) as small:
        answers = asyncio.run(ask(small.address))
    assert same([answer for call in answers for answer in call], reader.classify([NOISE, NOISE, *samples.files()]))


@pytest.mark.parametrize("less", [{"max_message_bytes": 16_384}, {"max_images": 7}], ids=lambda less: next(iter(less)))
def test_a_server_that_takes_less_since_it_started_again_is_asked_again(reader: Reader, less: dict[str, int]) -> None:
    async def ask() -> list[list[Prediction]]:
        with serving() as before:
            client = AsyncClient(before.address)
            await client.classify([])
        with serving(listen=before.address, **less):
            async with client:
                return await asyncio.gather(
                    client.classify(NOISE), *map(client.classify, NOISE), client.classify(samples.files())
                )

    answers = asyncio.run(ask())
    assert same([answer for call in answers for answer in call], reader.classify([NOISE, NOISE, *samples.files()]))


def test_a_task_that_gives_up_costs_the_others_nothing(server: Server, reader: Reader) -> None:
    async def ask() -> list[list[Prediction] | BaseException]:
        async with AsyncClient(server.address) as client:
            await client.classify([])
            under_way = asyncio.Semaphore(0)

            async def classify(image: NDArray[np.uint8]) -> list[Prediction]:
                under_way.release()
                return await client.classify(image)

            tasks = [asyncio.create_task(classify(image)) for image in NOISE]
            for _ in tasks:
                await under_way.acquire()
            for task in tasks[::2]:
                task.cancel()
            return await asyncio.gather(*tasks, return_exceptions=True)

    answers = asyncio.run(ask())
    assert all(isinstance(answer, asyncio.CancelledError) for answer in answers[::2])
    kept = [answer for call in answers[1::2] if isinstance(call, list) for answer in call]
    assert same(kept, reader.classify(NOISE[1::2]))


def test_messages_that_nobody_waits_for_any_more_are_in_nobody_s_way() -> None:
    async def ask() -> list[Prediction]:
        async with AsyncClient(full.address, timeout=600) as client:
            await client.classify([])
            tasks = [asyncio.create_task(client.classify(numbered(50))) for _ in range(IN_FLIGHT)]
            await asyncio.to_thread(until, lambda: len(full.times) == IN_FLIGHT, "every message has been refused")
            for task in tasks:
                task.cancel()
            async with asyncio.timeout(PATIENCE):
                return await client.classify(numbered(3))

    come_back_later = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "300000")
    with scripted([come_back_later] * IN_FLIGHT) as full:
        assert [answer.digit for answer in asyncio.run(ask())] == [0, 1, 2]


def test_what_has_been_made_smaller_is_taken_back_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask() -> list[Prediction]:
        async with AsyncClient(full.address, timeout=600) as client:
            await client.classify([])
            task = asyncio.create_task(client.classify(numbered(50)))
            await asyncio.to_thread(until, lambda: len(full.times) == 2, "it and its first half have been refused")
            task.cancel()
            async with asyncio.timeout(PATIENCE):
                return await client.classify(numbered(3))

    monkeypatch.setattr(connection, "IN_FLIGHT", 1)
    too_large = Refusal(grpc.StatusCode.INVALID_ARGUMENT)
    come_back_later = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "300000")
    with scripted([too_large, come_back_later]) as full:
        assert [answer.digit for answer in asyncio.run(ask())] == [0, 1, 2]
    assert full.images == [50, 25, 3]


def test_servers_that_take_less_than_others_get_smaller_messages(reader: Reader) -> None:
    async def ask(target: str) -> list[list[Prediction]]:
        async with AsyncClient(target) as client:  # one call after the other: each address has each of its turns
            return [await client.classify(NOISE[:100]) for _ in range(3)]

    with serving() as one, serving(max_images=3) as other:
        for answers in asyncio.run(ask(f"{one.address},{other.address}")):
            assert same(answers, reader.classify(NOISE[:100]))


def test_what_is_no_image_is_refused_to_the_task_that_sent_it(server: Server) -> None:
    async def ask() -> list[list[Prediction] | BaseException]:
        async with AsyncClient(server.address) as client:
            images = [NOISE[0], np.zeros((28, 28)), NOISE[1]]
            return await asyncio.gather(*map(client.classify, images), return_exceptions=True)

    before, refused, after = asyncio.run(ask())
    assert isinstance(refused, InputError)
    assert isinstance(before, list)
    assert isinstance(after, list)


def test_one_error_of_many_messages_is_the_only_one_that_is_heard(caplog: pytest.LogCaptureFixture) -> None:
    async def ask() -> None:
        async with AsyncClient(refusing.address) as client:
            await client.classify([])

            def images() -> Iterator[NDArray[np.uint8]]:
                yield from numbered(400)
                gatherer = client._gatherer
                until(lambda: gatherer is not None and gatherer._on_their_way == 0, "all have failed")

            await client.classify(images())

    refusals = repeat(Refusal(grpc.StatusCode.INVALID_ARGUMENT))
    with scripted(refusals) as refusing, pytest.raises(ServiceError, match="as the script says"):
        asyncio.run(ask())
    gc.collect()  # asyncio complains of an error that nobody has looked at when its future goes
    assert caplog.messages == []


def test_a_closed_client_says_so(server: Server) -> None:
    async def ask() -> None:
        client = AsyncClient(server.address)
        await client.classify(NOISE[:1])
        await client.close()
        await client.classify(NOISE[:1])

    with pytest.raises(ClosedError, match="the client is closed"):
        asyncio.run(ask())


def test_all_tasks_hear_that_there_is_no_server() -> None:
    async def ask() -> list[list[Prediction] | BaseException]:
        async with AsyncClient("127.0.0.1:1", timeout=0.5) as client:
            return await asyncio.gather(*(client.classify(image) for image in NOISE), return_exceptions=True)

    assert {type(answer) for answer in asyncio.run(ask())} == {UnreachableError}


def test_where_nobody_waits_for_the_first_answer_its_error_is_not_heard(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def ask() -> None:
        async with AsyncClient("127.0.0.1:1") as client:
            began = asyncio.Event()

            async def classify() -> None:
                began.set()
                await client.classify(NOISE)

            task = asyncio.create_task(classify())
            await began.wait()  # and goes on to where it waits for the server, before this does
            task.cancel()
            opening = client._opening
            assert opening is not None
            await asyncio.wait([opening])

    monkeypatch.setattr(call, "FIRST_CONTACT", 0.0)
    asyncio.run(ask())
    gc.collect()  # asyncio complains of an error that nobody has looked at when its task goes
    assert caplog.messages == []


def test_the_client_knows_the_server_s_model(server: Server, reader: Reader) -> None:
    async def ask() -> str:
        async with AsyncClient(server.address) as client:
            return (await client.model()).card.name

    assert asyncio.run(ask()) == reader.model().card.name


def test_a_refusal_that_is_not_about_size_asks_for_no_limits() -> None:
    async def ask(address: str) -> None:
        async with AsyncClient(address) as client:
            for _ in range(3):
                with pytest.raises(ServiceError, match="as the script says"):
                    await client.classify(numbered(1))

    with scripted([Refusal(grpc.StatusCode.INTERNAL)] * 3) as server:
        asyncio.run(ask(server.address))
        assert server.described == 1
