"""A server that does what a test's script says."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn

import grpc
import numpy as np
from numpy.typing import NDArray

from scanline.contract import IMAGE_BYTES, REQUEST_ID
from scanline.v1 import digits_pb2 as pb
from tests.faults.server import until


class Refusal(NamedTuple):
    """How a call is refused; `pushback` is the text of grpc-retry-pushback-ms, `id` that of a server of ours."""

    code: grpc.StatusCode
    pushback: str | None = None
    id: str | None = None

    def abort(self, context: grpc.ServicerContext) -> NoReturn:
        metadata = (("grpc-retry-pushback-ms", self.pushback), (REQUEST_ID, self.id))
        context.set_trailing_metadata(tuple((name, value) for name, value in metadata if value is not None))
        context.abort(self.code, "as the script says")


class Scripted:
    """Refuses calls as a script says, one after the other, then reads in each image the digit that its first byte is.

    Attributes:
        times: when each call of Classify came, by time.monotonic().
        images: how many images each of them had.
        sizes: how many bytes.
        described: how often GetModel was called.
        answer: what a call waits for before it is answered.
        lost: how many predictions are left out of each answer.
    """

    def __init__(self, script: Iterator[Refusal], describing: Iterator[Refusal]) -> None:
        self._script = script
        self._describing = describing
        self.times: list[float] = []
        self.images: list[int] = []
        self.sizes: list[int] = []
        self.described = 0
        self.answer = threading.Event()
        self.answer.set()
        self.lost = 0
        self.address = ""

    def describe(self, _: pb.GetModelRequest, context: grpc.ServicerContext) -> pb.GetModelResponse:
        self.described += 1
        refusal = next(self._describing, None)
        if refusal is not None:
            refusal.abort(context)
        return pb.GetModelResponse(limits=pb.Limits(max_images=50, max_message_bytes=2**24))

    def classify(self, request: pb.ClassifyRequest, context: grpc.ServicerContext) -> pb.ClassifyResponse:
        self.times.append(time.monotonic())
        images = list(request.files.files) or [
            request.pixels[start : start + IMAGE_BYTES] for start in range(0, len(request.pixels), IMAGE_BYTES)
        ]
        self.images.append(len(images))
        self.sizes.append(request.ByteSize())
        refusal = next(self._script, None)
        if refusal is not None:
            refusal.abort(context)
        self.answer.wait()
        answered = images[: len(images) - self.lost]
        return pb.ClassifyResponse(predictions=[pb.Prediction(digit=image[0], confidence=1) for image in answered])


def numbered(count: int) -> NDArray[np.uint8]:
    """Give images, uint8 [count, 28, 28], the first pixels of which count from 0 to 9 and again."""
    images = np.zeros((count, 28, 28), np.uint8)
    images[:, 0, 0] = np.arange(count) % 10
    return images


def slowly(sent: Sequence[Any], drawn: list[int]) -> Iterator[NDArray[np.uint8]]:
    """Give 200 numbered images, noting each; the last 125 once the first of the futures sent is done, of 50 images."""
    for number, image in enumerate(numbered(200)):
        if number == 75:
            until(lambda: bool(sent[0].done()), "the first message is answered")
        drawn.append(number)
        yield image


@contextmanager
def scripted(
    script: Iterable[Refusal] = (), address: str = "127.0.0.1:0", *, describing: Iterable[Refusal] = ()
) -> Iterator[Scripted]:
    """Run a scripted server in this process; an endless script refuses for ever. GetModel has one of its own."""
    servicer = Scripted(iter(script), iter(describing))
    server = grpc.server(
        ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]
    )
    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "GetModel": grpc.unary_unary_rpc_method_handler(
            servicer.describe, pb.GetModelRequest.FromString, pb.GetModelResponse.SerializeToString
        ),
        "Classify": grpc.unary_unary_rpc_method_handler(
            servicer.classify, pb.ClassifyRequest.FromString, pb.ClassifyResponse.SerializeToString
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("scanline.v1.Digits", methods),))
    host, _, _ = address.rpartition(":")
    servicer.address = f"{host}:{server.add_insecure_port(address)}"
    server.start()
    try:
        yield servicer
    finally:
        servicer.answer.set()
        server.stop(None).wait()
