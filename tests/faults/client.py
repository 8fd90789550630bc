"""A client that streams without end until it is killed: `python -m tests.faults.client HOST:PORT STREAMS`."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import grpc

from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsStub


def batches() -> Iterator[pb.ClassifyRequest]:
    """Give requests without end."""
    while True:
        yield pb.ClassifyRequest(pixels=bytes(784 * 10))


def half_an_image() -> Iterator[pb.ClassifyRowsRequest]:
    """Give half the rows of an image, and never the others."""
    yield pb.ClassifyRowsRequest(rows=bytes(28 * 14))
    threading.Event().wait()


def main() -> None:
    """Stream, say so, and go on."""
    address, streams = sys.argv[1], int(sys.argv[2])
    channel = grpc.insecure_channel(address)
    stub = DigitsStub(channel)
    calls = [
        stub.ClassifyStream(batches()) if number % 2 else stub.ClassifyRows(half_an_image())
        for number in range(streams)
    ]
    for call in calls:
        next(call)
    sys.stdout.write("streaming\n")
    sys.stdout.flush()
    for call in calls[1::2]:
        threading.Thread(target=lambda answers: [None for _ in answers], args=(call,)).start()


if __name__ == "__main__":
    main()
