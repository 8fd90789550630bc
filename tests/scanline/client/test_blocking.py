"""Client and Reader: the same calls, the same answers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from scanline import Client, ClosedError, InputError, ModelError, Reader, ServiceError, UnreachableError, samples
from scanline.client.connection import IN_FLIGHT, Connection
from scanline.client.messages import MAX_BYTES, MAX_IMAGES
from scanline.contract import IMAGE_BYTES
from scanline.inference import open_inference_pb2 as oip
from scanline.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from scanline.v1 import digits_pb2 as pb
from serve.lifecycle import Server
from tests.scanline.client.servers import Refusal, numbered, scripted, slowly
from tests.serve.conftest import serving


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.address) as connected:
        yield connected


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader()


@pytest.fixture
def pixels() -> NDArray[np.uint8]:
    chance = np.random.default_rng(8)
    return chance.integers(0, 256, (300, 28, 28), dtype=np.uint8)


def test_every_form_of_image_in_one_call(
    client: Client, reader: Reader, tmp_path: Path, pixels: NDArray[np.uint8]
) -> None:
    sample = samples.files()[0]
    (tmp_path / "broken.png").write_bytes(b"broken")
    with sample.open("rb") as opened, Image.open(sample) as picture:
        images = [
            sample,
            str(sample),
            sample.read_bytes(),
            tmp_path / "broken.png",
            opened,
            tmp_path / "missing.png",
            picture,
            pixels[0],
            pixels[1:4],
            sample,
        ]
        answers = client.classify(images)
        opened.seek(0)
        expected = reader.classify(images)
    assert [index for index, answer in enumerate(answers) if answer.error is not None] == [3, 5]
    assert [(answer.digit, answer.reason, answer.error) for answer in answers] == [
        (answer.digit, answer.reason, answer.error) for answer in expected
    ]
    np.testing.assert_allclose(
        [answer.confidence or 0 for answer in answers], [answer.confidence or 0 for answer in expected], atol=1e-6
    )


def test_a_single_image_needs_no_list(client: Client, reader: Reader) -> None:
    sample = samples.files()[3]
    assert client.classify(sample)[0].digit == reader.classify(sample)[0].digit
    assert len(client.classify(str(sample))) == len(reader.classify(sample.read_bytes())) == 1


def test_no_image_at_all_is_no_answer(client: Client, reader: Reader) -> None:
    assert client.classify([]) == reader.classify([]) == []


def test_probabilities_on_request(client: Client, reader: Reader, pixels: NDArray[np.uint8]) -> None:
    for given in (client, reader):
        assert given.classify(pixels[:2])[0].probabilities is None
        shares = given.classify(pixels[:2], probabilities=True)[1].probabilities
        assert shares is not None
        assert len(shares) == 10
        assert sum(shares) == pytest.approx(1, abs=1e-5)


def test_any_number_of_images_fits_a_small_server(reader: Reader, pixels: NDArray[np.uint8]) -> None:
    with serving(max_images=7, max_message_bytes=4 * IMAGE_BYTES + 2000) as small, Client(small.address) as client:
        answers = client.classify([*pixels, samples.files()[0]])
        assert [answer.digit for answer in answers] == [
            answer.digit for answer in reader.classify([*pixels, samples.files()[0]])
        ]


@pytest.mark.parametrize("less", [{"max_message_bytes": 16_384}, {"max_images": 7}], ids=lambda less: next(iter(less)))
def test_a_server_that_takes_less_since_it_started_again_is_asked_again(
    reader: Reader, pixels: NDArray[np.uint8], tmp_path: Path, less: dict[str, int]
) -> None:
    large = tmp_path / "large.bmp"
    Image.new("L", (200, 100)).save(large)
    images = [*pixels, large, samples.files()[0]]
    with serving() as before:
        client = Client(before.address)
        client.classify(pixels[:1])
    with client, serving(listen=before.address, **less):
        for _ in range(2):
            *answers, refused, last = client.classify(images)
            expected = [answer.digit for answer in reader.classify(images)]
            assert [answer.digit for answer in answers] == expected[:-2]
            assert last.digit == expected[-1]
            assert (refused.error is not None) == ("max_message_bytes" in less)


@pytest.mark.parametrize("less", [{"max_message_bytes": 8192}, {"max_images": 7}], ids=lambda less: next(iter(less)))
def test_servers_that_take_less_than_others_get_smaller_messages(
    reader: Reader, pixels: NDArray[np.uint8], less: dict[str, int]
) -> None:
    expected = [answer.digit for answer in reader.classify(pixels[:100])]
    with serving() as one, serving(**less) as other, Client(f"{one.address},{other.address}") as client:
        for _ in range(3):  # one call after the other: each address is asked at each of its turns
            assert [answer.digit for answer in client.classify(pixels[:100])] == expected


def test_a_file_too_large_for_one_of_several_servers_is_said_at_once() -> None:
    with serving() as one, serving(max_message_bytes=8192) as less, Client(f"{one.address},{less.address}") as client:
        with pytest.raises(ServiceError, match=r"refused: .*larger than max .*\(RESOURCE_EXHAUSTED\)") as error:
            client.classify([bytes(10_000)])
        assert type(error.value) is ServiceError


def test_large_files_do_not_wait_for_each_other() -> None:
    files = [bytes([number]) * size for number, size in enumerate([1000, 2**20, 2**20, 2**20, 5 * 2**20, 1000, 1000])]
    with scripted() as server, Client(server.address) as client:
        assert [answer.digit for answer in client.classify(files)] == list(range(len(files)))
    assert sorted(server.images) == [1, 1, 1, 2, 2]
    assert sorted(server.sizes)[-2] <= MAX_BYTES


def test_a_file_too_large_for_the_server_is_its_own_error(tmp_path: Path) -> None:
    large = tmp_path / "large.bmp"
    Image.new("L", (100, 100)).save(large)
    with serving(max_message_bytes=8000) as small, Client(small.address) as client:
        fine, refused = client.classify([samples.files()[7], large])
    assert fine.error is None
    assert refused.error == (
        f"the file has {large.stat().st_size} bytes, the server takes at most 6976; "
        f"its operator can set --max-message-bytes higher"
    )


def test_what_is_no_image_is_refused_in_the_caller_s_own_terms(client: Client, reader: Reader) -> None:
    for given in (client, reader):
        with pytest.raises(InputError, match="uint8"):
            given.classify(np.zeros((28, 28)))
        with pytest.raises(InputError):
            given.classify([7])  # type: ignore[list-item] # the point


def test_a_stream_gives_answers_as_they_come_and_takes_images_as_it_needs_them(
    client: Client, reader: Reader, pixels: NDArray[np.uint8]
) -> None:
    taken = 0

    def endless() -> Iterator[NDArray[np.uint8]]:
        nonlocal taken
        while True:
            yield pixels[taken % len(pixels)]
            taken += 1

    expected = [answer.digit for answer in reader.classify(pixels[:200])]
    for answering in (client, reader):
        taken = 0
        stream = answering.stream(endless())
        assert [next(stream).digit for _ in range(200)] == expected
        assert taken < 20 * MAX_IMAGES
        stream.close()


def test_no_more_messages_are_on_their_way_than_the_window_lets() -> None:
    taken, full = 0, IN_FLIGHT * 50 + 1  # a message is full once the next image does not fit

    def images() -> Iterator[NDArray[np.uint8]]:
        nonlocal taken
        for image in numbered(1000):
            taken += 1
            if taken == full:
                scripts.answer.set()  # until then nothing makes room
            yield image

    with scripted() as scripts, Client(scripts.address) as client:
        scripts.answer.clear()
        next(client.stream(images()))
    assert taken == full


def test_an_array_may_be_filled_again_as_soon_as_the_next_is_asked_for(
    client: Client, reader: Reader, pixels: NDArray[np.uint8]
) -> None:
    def camera() -> Iterator[NDArray[np.uint8]]:
        buffer = np.empty((2, 28, 28), np.uint8)
        for picture in pixels:
            buffer[:] = picture
            yield buffer

    expected = [answer.digit for answer in reader.classify(np.repeat(pixels, 2, axis=0))]
    for answering in (client, reader):
        assert [answer.digit for answer in answering.stream(camera())] == expected


def test_a_reader_takes_a_client_s_place(server: Server) -> None:
    said = []
    for answering in (Client(server.address), Reader()):
        said.append((answering.model(), answering.classify(samples.files(), probabilities=True)))
        answering.close()
    assert said[0] == said[1]


def test_threads_share_a_client(client: Client, reader: Reader, pixels: NDArray[np.uint8]) -> None:
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(client.classify, pixels))
    assert [answer.digit for [answer] in answers] == [answer.digit for answer in reader.classify(pixels)]


def test_what_is_closed_says_so(server: Server, pixels: NDArray[np.uint8]) -> None:
    for closed, words in ((Client(server.address), "the client is closed"), (Reader(), "the reader is closed")):
        stream = closed.stream(itertools.cycle(pixels))
        next(stream)
        closed.close()
        closed.close()
        with pytest.raises(ClosedError):
            list(stream)
        with pytest.raises(ClosedError, match=words):
            closed.classify(pixels)
        with pytest.raises(ClosedError):
            closed.model()


def test_a_closed_reader_takes_no_image(pixels: NDArray[np.uint8]) -> None:
    given = iter(pixels)
    with Reader() as closed:
        pass
    with pytest.raises(ClosedError):
        closed.classify(given)
    assert len(list(given)) == len(pixels)


@pytest.mark.parametrize(
    "target",
    [
        "",
        "localhost",
        "localhost:",
        "a:1,",
        "a:1 b:2",
        "a:0",
        "a:65536",
        ":50051",
        "http://a:1",
        "::1:50051",
        "a:\u0661",
    ],
)
def test_what_is_no_address_is_named(target: str) -> None:
    with pytest.raises(InputError, match="is no address: expected HOST:PORT"):
        Client(target)


def test_an_address_is_text() -> None:
    with pytest.raises(InputError, match=r"the address is text, such as '127\.0\.0\.1:50051', not 50051"):
        Client(cast("str", 50051))  # what a caller without mypy may write


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), 1e10, None, "5"])
def test_a_timeout_has_bounds(timeout: Any) -> None:
    with pytest.raises(InputError, match=f"seconds above 0, at most 31536000, not {timeout!r}"):
        Client("127.0.0.1:1", timeout=timeout)


@pytest.mark.parametrize("target", ["a:1", "a:1,b:2", "a:1, b:2", "[::1]:50051", "dns:///digits.example:50051"])
def test_one_address_or_several(target: str) -> None:
    Client(target).close()


def test_answers_come_before_a_slow_source_has_given_all(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Future[pb.ClassifyResponse]] = []
    classify = Connection.classify

    def noted(line: Connection, request: pb.ClassifyRequest) -> Future[pb.ClassifyResponse]:
        calls.append(classify(line, request))
        return calls[-1]

    monkeypatch.setattr(Connection, "classify", noted)
    drawn: list[int] = []
    with scripted() as server, Client(server.address) as client:
        answers = client.stream(slowly(calls, drawn))
        assert next(answers).digit == 0
        assert len(drawn) < 110
        assert [answer.digit for answer in answers] == [number % 10 for number in range(1, 200)]


def test_no_server_is_said_in_plain_words() -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(UnreachableError) as error:
        client.classify(samples.files()[0])
    assert error.value.code == "UNAVAILABLE"
    assert str(error.value).startswith("no answer from 127.0.0.1:1: ")
    assert "is `scanline serve` running there, without TLS? (--tls-roots CA.PEM" in str(error.value)


def test_a_server_that_can_t_answer_is_no_missing_server() -> None:
    with serving(admin=True) as server, grpc.insecure_channel(server.address) as channel:
        GRPCInferenceServiceStub(channel).RepositoryModelUnload(oip.RepositoryModelUnloadRequest(model_name="digits"))
        with Client(server.address, timeout=1) as client, pytest.raises(UnreachableError) as error:
            client.classify(samples.files()[0])
    assert str(error.value) == f"{server.address} can't answer now: the model is unloaded; try again later"


def test_files_go_a_few_at_a_time_so_that_each_message_is_answered_in_time() -> None:
    with scripted() as server, Client(server.address) as client:
        answers = client.classify([bytes([number % 10, 0]) for number in range(100)])
    assert [answer.digit for answer in answers] == [number % 10 for number in range(100)]
    assert (sum(server.images), max(server.images)) == (100, 16)


def test_the_client_knows_the_server_s_model(client: Client, reader: Reader) -> None:
    assert client.model() == reader.model()


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model"):
        Reader(tmp_path / "none.onnx")


def test_a_refusal_that_is_not_about_size_asks_for_no_limits() -> None:
    with scripted([Refusal(grpc.StatusCode.INTERNAL)] * 3) as server, Client(server.address) as client:
        for _ in range(3):
            with pytest.raises(ServiceError, match="as the script says"):
                client.classify(numbered(1))
        assert server.described == 1
