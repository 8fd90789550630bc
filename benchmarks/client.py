"""What gathering is worth: 1,000 tasks with one image each, through AsyncClient and with a call an image.

    python -m benchmarks.client     # about two minutes on two idle cores

The server and the client, in this process, share two cores. The ways take turns, several times over; the medians are
reported, and ratios to a call an image, for which 1,000 tasks share a plain grpc.aio stub, 256 calls at a time.
docs/benchmarks.md has what came out.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Final

import grpc
import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from rich.table import Column, Table
from rich.text import Text

from benchmarks.ending import end_with
from benchmarks.serving.processes import Running, serving, two_cores
from benchmarks.serving.protocols import some_images
from scanline import AsyncClient, Client, console
from scanline.errors import GateError
from scanline.reader import Reader
from scanline.settings import Settings, parse
from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsStub

TASKS: Final = 1_000
# A server takes so many calls at once and no more: tasks that call it themselves must see to that.
AT_ONCE: Final = 256

Images = NDArray[np.uint8]
# Reads images, uint8 [n, 28, 28], with the server at an address, and gives their digits.
Way = Callable[[str, Images], list[int | None]]


class ClientBenchmark(Settings):
    """Compare ways of reading many single images with one server."""

    repeats: int = Field(5, ge=1, description="how often each way is measured")
    images: int = Field(
        20_000, ge=TASKS, description="how many images each way reads; a call an image: a fifth of them"
    )


def _in_tasks(images: Images, ask: Callable[[Images], Awaitable[int | None]]) -> Awaitable[list[int | None]]:
    """Have 1,000 tasks read images, each the next one as soon as it has its answer."""
    digits: list[int | None] = [None] * len(images)
    coming = iter(enumerate(images))

    async def task() -> None:
        for index, image in coming:
            digits[index] = await ask(image)

    async def all_tasks() -> list[int | None]:
        await asyncio.gather(*(task() for _ in range(TASKS)))
        return digits

    return all_tasks()


def gathered(address: str, images: Images) -> list[int | None]:
    """AsyncClient, 1,000 tasks."""

    async def read() -> list[int | None]:
        async with AsyncClient(address) as client:

            async def ask(image: Images) -> int | None:
                [answer] = await client.classify(image)
                return answer.digit

            return await _in_tasks(images, ask)

    return asyncio.run(read())


def a_call_an_image(address: str, images: Images) -> list[int | None]:
    """A call an image, 1,000 tasks."""

    async def read() -> list[int | None]:
        async with grpc.aio.insecure_channel(address) as channel:
            stub, room = DigitsStub(channel), asyncio.Semaphore(AT_ONCE)

            async def ask(image: Images) -> int | None:
                async with room:
                    response = await stub.Classify(pb.ClassifyRequest(pixels=image.tobytes()))
                return response.predictions[0].digit

            return await _in_tasks(images, ask)

    return asyncio.run(read())


def in_turn(address: str, images: Images) -> list[int | None]:
    """A call an image, one after the other."""
    with grpc.insecure_channel(address) as channel:
        stub = DigitsStub(channel)
        return [stub.Classify(pb.ClassifyRequest(pixels=image.tobytes())).predictions[0].digit for image in images]


def at_once(address: str, images: Images) -> list[int | None]:
    """Client, all images in one call."""
    with Client(address) as client:
        return [answer.digit for answer in client.stream(images)]


BASE: Final = a_call_an_image
WAYS: Final[tuple[Way, ...]] = (gathered, a_call_an_image, in_turn, at_once)


def measure(settings: ClientBenchmark) -> dict[Way, list[tuple[float, float, float]]]:
    """Give images/s and the client's and the server's CPU time for an image in microseconds, of each way and repeat.

    Raises:
        GateError: an answer is not the model's own.
    """
    cores = two_cores()
    os.sched_setaffinity(0, cores)
    images = some_images(settings.images)
    expected = [answer.digit for answer in Reader().classify(images)]
    figures: dict[Way, list[tuple[float, float, float]]] = defaultdict(list)
    with serving("loop", *cores) as server, console.progress("ways") as progress:
        task = progress.add_task("measuring", total=settings.repeats * len(WAYS))
        for _ in range(settings.repeats):
            for way in WAYS:
                count = len(images) if way in {gathered, at_once} else len(images) // 5
                figures[way].append(_measure(way, server, images[:count], expected[:count]))
                progress.advance(task)
    return figures


def _measure(way: Way, server: Running, images: Images, expected: list[int | None]) -> tuple[float, float, float]:
    started, own, other = time.perf_counter(), time.process_time(), server.cpu_seconds()
    digits = way(server.address, images)
    took, own, other = time.perf_counter() - started, time.process_time() - own, server.cpu_seconds() - other
    if digits != expected:
        raise GateError(f"{way.__name__}: the answers are not those of the model in process")
    return len(images) / took, own / len(images) * 1e6, other / len(images) * 1e6


def main() -> None:
    """Measure, and print the table."""
    figures = measure(parse(ClientBenchmark, "benchmarks.client", sys.argv[1:]))
    medians = {way: [statistics.median(values) for values in zip(*rows, strict=True)] for way, rows in figures.items()}
    cpu = [Column(Text(f"{who} CPU\nus/image")) for who in ("client", "server")]
    table = Table("way", "images/s", "ratio", *cpu, title="medians")
    for way, (rate, own, other) in medians.items():
        ratio = rate / medians[BASE][0]
        table.add_row(way.__doc__, f"{rate:,.0f}", f"{ratio:.2f}", f"{own:.0f}", f"{other:.0f}")
    console.out.print(table)


if __name__ == "__main__":
    end_with(main)
