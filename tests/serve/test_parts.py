"""The bound on a message's parts: what it lets through, and that no way of writing a message gets around it."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.message import Message

from scanline.inference import open_inference_pb2 as oip
from scanline.v1 import digits_pb2 as pb
from serve.parts import FREE, SMALL, too_many

EMPTY_FILE = pb.ClassifyRequest(files=pb.EncodedImages(files=[b""])).SerializeToString()
Tensor = oip.ModelInferRequest.InferInputTensor
Contents = oip.InferTensorContents
GROUP = b"\x7b"  # begins a group that no message has


def is_too_much(kind: type[Message], content: bytes) -> bool:
    return too_many(content, descriptor_pool.Default().FindMessageTypeByName(kind.DESCRIPTOR.full_name))


@pytest.mark.parametrize(
    "message",
    [
        pb.ClassifyRequest(pixels=bytes(784 * 1024), probabilities=True),
        pb.ClassifyRequest(files=pb.EncodedImages(files=[bytes(70)] * FREE)),
        pb.ClassifyRequest(files=pb.EncodedImages(files=[bytes(70)] * 20 * FREE)),
        oip.ModelInferRequest(inputs=[Tensor(shape=[1024, 28, 28])], raw_input_contents=[bytes(784 * 1024)]),
        oip.ModelInferRequest(inputs=[Tensor(contents=Contents(fp32_contents=[0.5] * 784 * 100))]),
        oip.ModelInferRequest(inputs=[Tensor(contents=Contents(bytes_contents=[bytes(70)] * FREE))]),
    ],
    ids=lambda message: f"{message.ByteSize()}",
)
def test_what_callers_send_passes(message: Message) -> None:
    assert not is_too_much(type(message), message.SerializeToString())


@pytest.mark.parametrize("start", [b"", GROUP, pb.ClassifyRequest(pixels=bytes(SMALL)).SerializeToString()])
def test_empty_parts_are_counted_wherever_they_stand(start: bytes) -> None:
    assert is_too_much(pb.ClassifyRequest, start + EMPTY_FILE * SMALL)


def test_parts_of_parts_are_counted() -> None:
    contents = Contents(bytes_contents=[b""] * SMALL)
    assert is_too_much(
        oip.ModelInferRequest, oip.ModelInferRequest(inputs=[Tensor(contents=contents)]).SerializeToString()
    )


def test_numbers_that_take_eight_bytes_for_one_are_counted() -> None:
    contents = Contents(int64_contents=[1] * SMALL)  # packed: one field
    assert is_too_much(
        oip.ModelInferRequest, oip.ModelInferRequest(inputs=[Tensor(contents=contents)]).SerializeToString()
    )


def test_fields_that_are_no_parts_of_the_message_are_counted() -> None:
    unknown = b"\xfa\x07\x00"  # field 127, empty
    assert is_too_much(pb.ClassifyRequest, unknown * SMALL)


def test_a_small_message_may_be_made_of_anything() -> None:
    content = EMPTY_FILE * (SMALL // len(EMPTY_FILE) + 1)
    assert is_too_much(pb.ClassifyRequest, content)
    assert not is_too_much(pb.ClassifyRequest, content[:SMALL])


@pytest.mark.parametrize("cut", [1, 2, 3, 70])
def test_what_is_cut_short_is_left_to_the_parser(cut: int) -> None:
    whole = pb.ClassifyRequest(files=pb.EncodedImages(files=[bytes(70)] * FREE)).SerializeToString()
    assert not is_too_much(pb.ClassifyRequest, whole[:-cut])


@pytest.mark.parametrize("end", [b"\x80", GROUP + b"\x80", b"\xff" * 11])
def test_parts_before_an_end_that_is_none_are_counted(end: bytes) -> None:
    parts = pb.EncodedImages(files=[b""] * SMALL)  # which the parser makes before it sees the end
    assert is_too_much(pb.ClassifyRequest, pb.ClassifyRequest(files=parts).SerializeToString() + end)


@pytest.mark.parametrize("octet", [b"\xff", b"\x80", b"\x00", b"\x07"])
def test_what_is_no_message_is_left_to_the_parser_or_refused_at_once(octet: bytes) -> None:
    assert is_too_much(pb.ClassifyRequest, octet * 2**20) == (octet < b"\x80")
