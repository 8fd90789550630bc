"""Servers that are killed, stopped and started again while a client reads: no answer may be lost or wrong."""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest

from scanline import AsyncClient, Client, Reader
from tests.faults.server import BesetServer
from tests.scanline.client.servers import numbered, scripted

NOISE = np.random.default_rng(8).integers(0, 256, (500, 28, 28), dtype=np.uint8)


@pytest.fixture(scope="module")
def digits() -> list[int | None]:
    return [answer.digit for answer in Reader().classify(NOISE)]


@pytest.fixture
def start() -> Iterator[Callable[..., BesetServer]]:
    """Start server processes; all are killed at the end."""
    with ExitStack() as ends:

        def begin(*arguments: str) -> BesetServer:
            server = BesetServer(*arguments)
            ends.callback(server.kill)
            return server

        yield begin


@pytest.mark.parametrize("end", [BesetServer.kill, BesetServer.stop])
def test_a_server_that_starts_again_costs_a_stream_nothing(
    start: Callable[..., BesetServer], end: Callable[[BesetServer], None], digits: list[int | None]
) -> None:
    server = start()
    with Client(server.address, timeout=120) as client:
        stream = client.stream(itertools.chain.from_iterable(itertools.repeat(NOISE, 8)))
        answers = [next(stream).digit for _ in range(100)]
        end(server)
        threading.Thread(target=start, args=("--listen", server.address)).start()
        answers += [answer.digit for answer in stream]
    assert answers == digits * 8


def test_one_of_three_killed_under_load_loses_no_answer(
    start: Callable[..., BesetServer], digits: list[int | None]
) -> None:
    servers = [start() for _ in range(3)]

    async def ask() -> list[int | None]:
        async with AsyncClient(",".join(server.address for server in servers), timeout=120) as client:
            rounds: list[int | None] = []
            for turn in range(4):
                tasks = [asyncio.create_task(client.classify(image)) for image in NOISE]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if turn == 1:
                    servers[0].kill()
                rounds += [answer.digit for task in tasks for answer in await task]
        return rounds

    assert asyncio.run(ask()) == digits * 4


@contextmanager
def name_server(*hosts: str) -> Iterator[str]:
    """Answer every DNS query for an address (RFC 1035) with all hosts, IPv4; give where it listens."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))

        def answer() -> None:
            while (received := listener.recvfrom(512))[0] != b"end":
                query, asker = received
                question = query[12 : query.index(b"\0", 12) + 5]
                records = [
                    b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 1, 4) + socket.inet_aton(host)
                    for host in hosts
                    if question[-4:-2] == b"\0\1"  # an address of version 4 is asked for
                ]
                header = query[:2] + struct.pack(">HHHHH", 0x8180, 1, len(records), 0, 0)
                listener.sendto(header + question + b"".join(records), asker)

        thread = threading.Thread(target=answer)
        thread.start()
        address = listener.getsockname()
        try:
            yield f"127.0.0.1:{address[1]}"
        finally:
            listener.sendto(b"end", address)
            thread.join()


def test_all_addresses_of_a_name_take_turns() -> None:
    with scripted() as one, name_server("127.0.0.1", "127.0.0.2") as names:
        port = one.address.rpartition(":")[2]
        with scripted(address=f"127.0.0.2:{port}") as other, Client(f"dns://{names}/digits.test:{port}") as client:
            assert [answer.digit for answer in client.stream(numbered(2000))] == [n % 10 for n in range(2000)]
            assert min(sum(one.images), sum(other.images)) > 500
