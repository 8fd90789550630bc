"""The two protocols as load generators use them: a request for images, and what must come back."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final
from urllib.request import Request, urlopen

import grpc
import numpy as np
from numpy.typing import NDArray

from scanline.contract import CLASSES, COLUMNS, ROWS, to_network
from scanline.errors import GateError
from scanline.inference import open_inference_pb2 as oip
from scanline.reader import Reader
from scanline.samples.draw import draw
from scanline.v1 import digits_pb2 as pb

Images = NDArray[np.uint8]
PATIENCE: Final = 30.0
PREFIX_BYTES: Final = 5  # before each gRPC message
DISTINCT: Final = 500
# The least and the most of scanline.samples.draw's height and pen, and of where the middle is.
DRAWN: Final = ((0.62, 0.1, 0.47, 0.47), (0.74, 0.18, 0.53, 0.53))


@dataclass(frozen=True)
class Protocol:
    """A way of asking for digits.

    Attributes:
        method: the full name of the gRPC method.
        request: makes the message for images, uint8 [n, 28, 28].
        read: reads digits and confidences out of the bytes of an answer.
    """

    method: str
    request: Callable[[Images], Any]
    read: Callable[[bytes], list[tuple[int, float]]]

    def answer(self, address: str, images: Images) -> bytes:
        """Ask a server once; give the bytes of its answer, once they are seen to be right.

        Raises:
            GateError: they are not the shipped model's own, computed in this process, bit for bit.
        """
        with grpc.insecure_channel(address) as channel:
            ask: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(self.method)
            answer = ask(self.request(images).SerializeToString(), timeout=PATIENCE)
        check(self.read(answer), images)
        return answer

    def load(self, images: Images) -> tuple[bytes, list[str]]:
        """Give what h2load sends for images, and its options for that."""
        content = self.request(images).SerializeToString()
        prefix = struct.pack(">BI", 0, len(content))  # not compressed, and the length
        return prefix + content, ["-H", "content-type: application/grpc", "-H", "te: trailers"]

    def size(self, answer: bytes) -> int:
        """Give how many bytes h2load counts for an answer."""
        return PREFIX_BYTES + len(answer)


class JsonProtocol(Protocol):
    """Rows as base64 in JSON over HTTP/1.1, for servers that have no gRPC."""

    def __init__(self, path: str) -> None:
        """Post to a path."""
        super().__init__(path, _text_request, _read_text)

    def answer(self, address: str, images: Images) -> bytes:
        """Ask a server once, as Protocol.answer does."""
        headers = {"content-type": "application/json"}
        url = f"http://{address}{self.method}"
        with urlopen(Request(url, self.request(images), headers), timeout=PATIENCE) as response:
            answer: bytes = response.read()
        check(self.read(answer), images)
        return answer

    def load(self, images: Images) -> tuple[bytes, list[str]]:
        """Give what h2load sends for images, and its options for that."""
        return self.request(images), ["--h1", "-H", "content-type: application/json"]

    def size(self, answer: bytes) -> int:
        """Give how many bytes h2load counts for an answer."""
        return len(answer)


def check(found: list[tuple[int, float]], images: Images) -> None:
    """Compare digits and confidences with the shipped model's own.

    Raises:
        GateError: they are not the same.
    """
    if found != expected_of(images):
        raise GateError("the server's answers are not those of the model in process")


def some_images(count: int) -> Images:
    """Give images of drawn digits, uint8 [count, 28, 28], of which the first 500 are distinct.

    They are what callers send, digits that the model is sure of: an image that is rejected makes a longer answer.
    """
    return np.resize(_drawn_digits(), (count, ROWS, COLUMNS))


@cache
def _drawn_digits() -> Images:
    chance = np.random.default_rng(5)
    return np.stack(
        [
            np.asarray(draw(index % CLASSES, (COLUMNS, ROWS), height=height, pen=pen, at=(x, y)))
            for index, (height, pen, x, y) in enumerate(chance.uniform(*DRAWN, (DISTINCT, len(DRAWN[0]))))
        ]
    )


def expected_of(images: Images) -> list[tuple[int, float]]:
    """Give the digit and the confidence of each image, computed in this process."""
    return [(int(answer.digit or 0), float(answer.confidence or 0)) for answer in Reader().classify(images)]


def tensors_request(images: Images) -> oip.ModelInferRequest:
    """Ask for images over the Open Inference Protocol, as raw FP32."""
    tensor = oip.ModelInferRequest.InferInputTensor(name="rows", datatype="FP32", shape=images.shape)
    return oip.ModelInferRequest(
        model_name="digits", inputs=[tensor], raw_input_contents=[to_network(images).tobytes()]
    )


def _read_tensors(answer: bytes) -> list[tuple[int, float]]:
    response = oip.ModelInferResponse.FromString(answer)
    contents = {
        output.name: content for output, content in zip(response.outputs, response.raw_output_contents, strict=True)
    }
    confidences = np.frombuffer(contents["probabilities"], "<f4").reshape(-1, 10).max(axis=1)
    return [*zip(np.frombuffer(contents["digit"], "<i8").tolist(), confidences.tolist(), strict=True)]


def _text_request(images: Images) -> bytes:
    return json.dumps({"rows": base64.b64encode(to_network(images).tobytes()).decode()}).encode()


def _read_text(answer: bytes) -> list[tuple[int, float]]:
    return [(digit, confidence) for digit, confidence in json.loads(answer)["answers"]]


DIGITS: Final = Protocol(
    "/scanline.v1.Digits/Classify",
    lambda images: pb.ClassifyRequest(pixels=images.tobytes()),
    lambda answer: [(each.digit, each.confidence) for each in pb.ClassifyResponse.FromString(answer).predictions],
)
OPEN_INFERENCE: Final = Protocol("/inference.GRPCInferenceService/ModelInfer", tensors_request, _read_tensors)
PROTOCOLS: Final = {"digits": DIGITS, "oip": OPEN_INFERENCE}
