"""A server that does what a test's script says."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import grpc
import numpy as np
from numpy.typing import NDArray

from scanline.contract import IMAGE_BYTES
from scanline.v1 import digits_pb2 as pb


class Refusal(NamedTuple):
    """How a call is refused; `pushback` is the text of grpc-retry-pushback-ms."""

    code: grpc.StatusCode
    pushback: str | None = None


class Scripted:
    """Refuses calls as a script says, one after the other, then reads in each image the digit that its first byte is.

    Attributes:
        times: when each call of Classify came, by time.monotonic().
        images: how many images each of them had.
        sizes: how many bytes.
        answer: what a call waits for before it is answered.
    """

    def __init__(self, script: Iterator[Refusal]) -> None:
        self._script = script
        self.times: list[float] = []
        self.images: list[int] = []
        self.sizes: list[int] = []
        self.answer = threading.Event()
        self.answer.set()
        self.address = ""

    def describe(self, _: pb.GetModelRequest, __: grpc.ServicerContext) -> pb.GetModelResponse:
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
            if refusal.pushback is not None:
                context.set_trailing_metadata((("grpc-retry-pushback-ms", refusal.pushback),))
            context.abort(refusal.code, "as the script says")
        self.answer.wait()
        return pb.ClassifyResponse(predictions=[pb.Prediction(digit=image[0], confidence=1) for image in images])


def numbered(count: int) -> NDArray[np.uint8]:
    """Give images, uint8 [count, 28, 28], the first pixels of which count from 0 to 9 and again."""
    images = np.zeros((count, 28, 28), np.uint8)
    images[:, 0, 0] = np.arange(count) % 10
    return images


@contextmanager
def scripted(script: Iterable[Refusal] = (), address: str = "127.0.0.1:0") -> Iterator[Scripted]:
    """Run a scripted server in this process; an endless script refuses for ever."""
    servicer = Scripted(iter(script))
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
