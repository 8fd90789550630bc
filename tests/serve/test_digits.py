"""The RPCs of scanline.v1.Digits, over a real socket."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from numpy.typing import NDArray
from PIL import Image

from scanline import Client, Reader, samples
from scanline.contract import IMAGE_BYTES, METADATA_PREFIX
from scanline.model import SHIPPED
from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsStub
from serve.digits import SERVICE
from serve.lifecycle import Server
from serve.oip import servicer as oip
from tests.serve.conftest import PATIENCE, serving


def png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def refusal(call: object) -> tuple[grpc.StatusCode, str]:
    """Make a call that must be refused; give the status and the words."""
    with pytest.raises(grpc.RpcError) as error:
        call()  # type: ignore[operator] # any call
    return error.value.code(), error.value.details() or ""


def test_pixels_get_the_answers_that_the_reader_gives(stub: DigitsStub, images: NDArray[np.uint8]) -> None:
    response = stub.Classify(pb.ClassifyRequest(pixels=images.tobytes()))
    expected = Reader().classify(images)
    assert [answer.digit for answer in response.predictions] == [answer.digit for answer in expected]
    for answer, other in zip(response.predictions, expected, strict=True):
        assert answer.confidence == pytest.approx(other.confidence, abs=1e-6)
    assert response.model_version == "1"


def test_probabilities_come_only_when_asked_for(stub: DigitsStub, images: NDArray[np.uint8]) -> None:
    request = pb.ClassifyRequest(pixels=images[:3].tobytes())
    assert [len(answer.probabilities) for answer in stub.Classify(request).predictions] == [0, 0, 0]
    request.probabilities = True
    for answer in stub.Classify(request).predictions:
        assert sum(answer.probabilities) == pytest.approx(1, abs=1e-5)
        assert answer.probabilities[answer.digit] == max(answer.probabilities) == answer.confidence


def test_files_are_read_and_a_broken_one_is_its_own_error(stub: DigitsStub, images: NDArray[np.uint8]) -> None:
    files = [png(images[0]), b"not an image", png(images[1]), b""]
    response = stub.Classify(pb.ClassifyRequest(files=pb.EncodedImages(files=files)))
    expected = Reader().classify(files)
    assert [answer.error for answer in response.predictions] == [answer.error or "" for answer in expected]
    assert [bool(answer.error) for answer in response.predictions] == [False, True, False, True]
    assert [answer.digit for answer in response.predictions] == [expected[0].digit, -1, expected[2].digit, -1]


def test_a_call_of_broken_files_alone_is_answered(stub: DigitsStub) -> None:
    response = stub.Classify(pb.ClassifyRequest(files=pb.EncodedImages(files=[b"x", b"y"])))
    assert all(answer.error for answer in response.predictions)
    assert len(response.predictions) == 2


@pytest.mark.parametrize(
    ("request_message", "code", "words"),
    [
        (
            pb.ClassifyRequest(),
            "INVALID_ARGUMENT",
            "the call has no images: set `pixels` (784 bytes an image) or `files`",
        ),
        (
            pb.ClassifyRequest(pixels=b""),
            "INVALID_ARGUMENT",
            "the call has 0 images, expected 1 to 1024, the server's --max-images",
        ),
        (
            pb.ClassifyRequest(pixels=b"x" * 785),
            "INVALID_ARGUMENT",
            "`pixels` has 785 bytes, expected a multiple of 784: 28 rows of 28 uint8 pixels an image",
        ),
        (
            pb.ClassifyRequest(pixels=bytes(IMAGE_BYTES * 1025)),
            "INVALID_ARGUMENT",
            "the call has 1025 images, expected 1 to 1024, the server's --max-images",
        ),
        (
            pb.ClassifyRequest(files=pb.EncodedImages()),
            "INVALID_ARGUMENT",
            "the call has 0 images, expected 1 to 1024, the server's --max-images",
        ),
        (
            pb.ClassifyRequest(pixels=bytes(784), model_version="7"),
            "NOT_FOUND",
            "model version '7' is not loaded; 1 is",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(
    stub: DigitsStub, request_message: pb.ClassifyRequest, code: str, words: str
) -> None:
    status, details = refusal(lambda: stub.Classify(request_message))
    assert status.name == code
    assert details.startswith(words)


def test_a_message_over_the_limit_is_refused_and_the_connection_lives_on(
    images: NDArray[np.uint8], transport: str
) -> None:
    with serving(transport=transport, max_message_bytes=4096) as small, grpc.insecure_channel(small.address) as channel:
        stub = DigitsStub(channel)
        assert (
            refusal(lambda: stub.Classify(pb.ClassifyRequest(pixels=bytes(IMAGE_BYTES * 6))))[0].name
            == "RESOURCE_EXHAUSTED"
        )
        assert len(stub.Classify(pb.ClassifyRequest(pixels=images[:5].tobytes())).predictions) == 5
        assert stub.GetModel(pb.GetModelRequest()).limits.max_message_bytes == 4096


def test_a_picture_with_too_many_pixels_is_its_own_error(images: NDArray[np.uint8], transport: str) -> None:
    files = [png(images[0]), png(np.zeros((40, 40), np.uint8))]
    with serving(transport=transport, max_pixels=1000) as server, grpc.insecure_channel(server.address) as channel:
        fine, refused = (
            DigitsStub(channel).Classify(pb.ClassifyRequest(files=pb.EncodedImages(files=files))).predictions
        )
    assert fine.error == ""
    assert refused.error == "the image has 40x40 pixels; at most 1,000 can be read"


def test_the_model_is_described(stub: DigitsStub) -> None:
    response = stub.GetModel(pb.GetModelRequest())
    model = Reader().model()
    assert (response.model_version, response.file) == (model.version, model.file)
    assert {METADATA_PREFIX + key: value for key, value in response.card.items()} == model.card.to_metadata()
    assert response.limits.max_images == 1024
    assert refusal(lambda: stub.GetModel(pb.GetModelRequest(model_version="7")))[0].name == "NOT_FOUND"


def test_a_stream_is_answered_in_order(stub: DigitsStub, images: NDArray[np.uint8]) -> None:
    cuts = [images[:1], images[1:20], images[20:22], images[22:]] * 5
    responses = list(stub.ClassifyStream(iter([pb.ClassifyRequest(pixels=cut.tobytes()) for cut in cuts])))
    alone = [stub.Classify(pb.ClassifyRequest(pixels=cut.tobytes())) for cut in cuts]
    assert [[answer.digit for answer in response.predictions] for response in responses] == [
        [answer.digit for answer in response.predictions] for response in alone
    ]


def test_a_stream_answers_each_request_before_the_next_is_sent(stub: DigitsStub, images: NDArray[np.uint8]) -> None:
    may_send = threading.Semaphore(1)

    def requests() -> Iterator[pb.ClassifyRequest]:
        for image in images[:5]:
            assert may_send.acquire(timeout=PATIENCE)
            yield pb.ClassifyRequest(pixels=image.tobytes())

    answered = 0
    for response in stub.ClassifyStream(requests(), timeout=PATIENCE):
        assert len(response.predictions) == 1
        answered += 1
        may_send.release()
    assert answered == 5


def test_a_bad_request_ends_a_stream_after_the_answers_before_it(stub: DigitsStub, images: NDArray[np.uint8]) -> None:
    requests = [pb.ClassifyRequest(pixels=images[0].tobytes()), pb.ClassifyRequest(pixels=b"x")]
    responses = stub.ClassifyStream(iter(requests))
    assert len(next(responses).predictions) == 1
    assert refusal(lambda: next(responses))[0].name == "INVALID_ARGUMENT"


def test_rows_are_answered_one_by_one_and_the_last_answer_is_the_image_s(
    stub: DigitsStub, images: NDArray[np.uint8]
) -> None:
    rows = [pb.ClassifyRowsRequest(rows=row.tobytes()) for row in images[0]]
    answers = list(stub.ClassifyRows(iter(rows)))
    assert [answer.rows_seen for answer in answers] == list(range(1, 29))
    assert all(sum(answer.probabilities) == pytest.approx(1, abs=1e-5) for answer in answers)
    whole = Reader(SHIPPED / "digits.onnx").classify(images[0], probabilities=True)[0]
    assert list(answers[-1].probabilities) == pytest.approx(whole.probabilities, abs=1e-5)
    assert answers[-1].digit == whole.digit
    in_pieces = [pb.ClassifyRowsRequest(rows=images[0][start : start + 7].tobytes()) for start in range(0, 28, 7)]
    assert list(stub.ClassifyRows(iter(in_pieces))) == answers


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (b"", "`rows` has 0 bytes, expected a multiple of 28: one uint8 a pixel"),
        (bytes(29), "`rows` has 29 bytes, expected a multiple of 28: one uint8 a pixel"),
        (bytes(28 * 29), "the image has had its 28 rows; begin another stream for another image"),
    ],
)
def test_rows_that_make_no_image_are_refused(stub: DigitsStub, rows: bytes, words: str) -> None:
    code, details = refusal(lambda: list(stub.ClassifyRows(iter([pb.ClassifyRowsRequest(rows=rows)]))))
    assert (code.name, details) == ("INVALID_ARGUMENT", words)


def test_a_model_that_ships_is_served_by_its_name(transport: str) -> None:
    files = samples.files()
    with serving(model=Path("accurate"), transport=transport) as server, Client(server.address) as client:
        assert client.model().card.name == "accurate"
        assert [answer.digit for answer in client.classify(files)] == [samples.label(file) for file in files]
        with grpc.insecure_channel(server.address) as channel:
            row = pb.ClassifyRowsRequest(rows=bytes(28))
            code, details = refusal(lambda: next(DigitsStub(channel).ClassifyRows(iter([row]))))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert details.startswith("the model digits.onnx (conv-16-32-32-bidirectional-lstm-64) can't be run row by row: ")
    assert details.endswith(", and there can be none of a network that reads ahead")


def test_every_concurrent_caller_gets_its_own_answer(server: Server, images: NDArray[np.uint8]) -> None:
    with grpc.insecure_channel(server.address) as channel:
        stub = DigitsStub(channel)

        def ask(image: NDArray[np.uint8]) -> tuple[int, float]:
            answer = stub.Classify(pb.ClassifyRequest(pixels=image.tobytes()), timeout=PATIENCE).predictions[0]
            return answer.digit, answer.confidence

        alone = [ask(image) for image in images]
        with ThreadPoolExecutor(40) as pool:
            together = list(pool.map(ask, np.concatenate([images] * 10)))
    assert together == alone * 10  # bit for bit: the shipped int8 model's answers do not depend on the batch


def test_health_and_reflection_answer(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", SERVICE, oip.SERVICE):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    statuses = health.List(health_pb2.HealthListRequest()).statuses
    assert {name: statuses[name].status for name in statuses} == dict.fromkeys(
        ("", SERVICE, oip.SERVICE), health_pb2.HealthCheckResponse.SERVING
    )
    listing = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
        iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    )
    names = {service.name for service in next(listing).list_services_response.service}
    assert {SERVICE, oip.SERVICE, "grpc.health.v1.Health"} <= names


def test_more_streams_than_may_be_open_are_refused(images: NDArray[np.uint8], transport: str) -> None:
    with serving(transport=transport, max_streams=1) as server, grpc.insecure_channel(server.address) as channel:
        stub = DigitsStub(channel)
        end = threading.Event()

        def slow() -> Iterator[pb.ClassifyRequest]:
            yield pb.ClassifyRequest(pixels=images[0].tobytes())
            assert end.wait(PATIENCE)

        first = stub.ClassifyStream(slow())
        next(first)
        code, details = refusal(lambda: next(stub.ClassifyStream(iter([]))))
        assert (code.name, details) == ("RESOURCE_EXHAUSTED", "1 streams are open, the most that may be")
        end.set()
        assert list(first) == []
        assert list(stub.ClassifyStream(iter([]))) == []  # its place is free again
