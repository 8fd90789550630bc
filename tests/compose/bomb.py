"""Callers that try to fill a server's memory, each in its own way, all at once."""

from __future__ import annotations

import gc
import io
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import grpc
from PIL import Image

from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsStub

CALLERS = 150
SECONDS = 6.0
TIMEOUT = 8.0
STREAMS = 40  # that a caller opens at once


@dataclass(frozen=True)
class Largest:
    """The largest messages that a server takes.

    Attributes:
        pictures: as many of the largest pictures as fit.
        junk: one file that is none.
        pixels: as many images as there may be in a call.
        hollow: as many files as fit, all empty, which parsed take many times their size.
    """

    pictures: pb.ClassifyRequest
    junk: pb.ClassifyRequest
    pixels: pb.ClassifyRequest
    hollow: pb.ClassifyRequest

    @classmethod
    def of(cls, address: str, max_pixels: int) -> Largest:
        """Make them by what the server says of itself."""
        with grpc.insecure_channel(address) as channel:
            limits = DigitsStub(channel).GetModel(pb.GetModelRequest()).limits
        room = limits.max_message_bytes - 1024
        buffer = io.BytesIO()
        side = int(max_pixels**0.5)
        Image.new("RGB", (side, side), (250, 250, 250)).save(buffer, "PNG")
        picture = buffer.getvalue()
        return cls(
            pb.ClassifyRequest(files=pb.EncodedImages(files=[picture] * (room // (len(picture) + 16)))),
            pb.ClassifyRequest(files=pb.EncodedImages(files=[b"\x89PNG\r\n\x1a\n" + bytes(room - 64)])),
            pb.ClassifyRequest(pixels=bytes(784 * min(limits.max_images, room // 784)), probabilities=True),
            pb.ClassifyRequest(files=pb.EncodedImages(files=[b""] * (room // 2))),
        )


def _stream(request: pb.ClassifyRequest, stub: DigitsStub) -> int:
    return sum(1 for _ in stub.ClassifyStream(iter([request] * 20), timeout=TIMEOUT))


def _rows(stub: DigitsStub, largest: Largest) -> int:
    answered = threading.Event()

    def one_and_wait() -> Iterator[pb.ClassifyRowsRequest]:
        yield pb.ClassifyRowsRequest(rows=bytes(28))
        answered.wait(TIMEOUT)  # all are open until each has its answer, or one is refused

    opened = [stub.ClassifyRows(one_and_wait(), timeout=TIMEOUT) for _ in range(STREAMS)]
    try:
        return sum(1 for stream in opened for _ in islice(stream, 1))
    finally:
        answered.set()


def _call(request: pb.ClassifyRequest, stub: DigitsStub) -> int:
    return len(stub.Classify(request, timeout=TIMEOUT).predictions)


# What each caller does again and again, and how many things were answered.
ATTACKS: list[Callable[[DigitsStub, Largest], int]] = [
    lambda stub, largest: _call(largest.pictures, stub),
    lambda stub, largest: _call(largest.junk, stub),
    lambda stub, largest: _call(largest.pixels, stub),
    lambda stub, largest: _call(largest.hollow, stub),
    lambda stub, largest: _stream(largest.pixels, stub),
    lambda stub, largest: _stream(largest.hollow, stub),
    _rows,
]


def bomb(address: str, largest: Largest) -> Counter[str]:
    """Attack from many connections at once; give what came of it."""
    outcomes: Counter[str] = Counter()
    end = time.monotonic() + SECONDS

    def attack(number: int) -> None:
        with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = DigitsStub(channel)
            while time.monotonic() < end:
                try:
                    outcomes["answered"] += ATTACKS[number % len(ATTACKS)](stub, largest)
                except grpc.RpcError as error:
                    outcomes[error.code().name] += 1

    callers = [threading.Thread(target=attack, args=(number,)) for number in range(CALLERS)]
    # What grpcio does when a stream is collected takes a lock that the collecting thread may hold: it would hang here.
    gc.disable()
    try:
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    finally:
        gc.enable()
    return outcomes
