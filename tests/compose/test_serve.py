"""docker compose as a user runs it: build, up, calls from this host, a folder scored, what is inside, stop."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from queue import SimpleQueue

import grpc
import pytest

from scanline import Client, __version__, samples
from scanline.contract import ROWS
from scanline.inference import open_inference_pb2 as oip
from scanline.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from scanline.model import find
from scanline.preprocess import to_rows
from scanline.reader import Reader
from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsStub
from tests.compose.conftest import ON_AN_ENGINE, ROOT, Project, Projects, inspect
from tests.faults.server import until

pytestmark = ON_AN_ENGINE

STREAMS = 6


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of images, one of them broken, and a folder for results."""
    images, results = tmp_path_factory.mktemp("images"), tmp_path_factory.mktemp("results")
    for file in samples.files():
        shutil.copy(file, images)
    (images / "broken.png").write_bytes(b"not an image")
    return images, results


@pytest.fixture(scope="module")
def project(project_of: Projects, folders: tuple[Path, Path]) -> Project:
    images, results = folders
    project = project_of(
        "serve", {"SCANLINE_MAX_STREAMS": str(STREAMS)}, IMAGES=str(images), RESULTS=str(results),
        SCORE_USER=f"{os.getuid()}:{os.getgid()}", VERSION="9.8.7", REVISION="abc", MODEL_SHA256="def",
    )  # fmt: skip
    project.up()
    return project


def test_a_client_outside_the_container_is_answered(project: Project) -> None:
    files = samples.files()
    with Client(f"127.0.0.1:{project.port}") as client, Reader() as reader:
        assert [answer.digit for answer in client.classify(files)] == [
            answer.digit for answer in reader.classify(files)
        ]


def test_the_open_inference_protocol_is_answered_too(project: Project) -> None:
    file = samples.files()[0]
    request = oip.ModelInferRequest(model_name="digits", raw_input_contents=[to_rows(file).tobytes()])
    request.inputs.add(name="rows", datatype="UINT8", shape=[1, 28, 28])
    with grpc.insecure_channel(f"127.0.0.1:{project.port}") as channel:
        response = GRPCInferenceServiceStub(channel).ModelInfer(request)
    names = [output.name for output in response.outputs]
    digit = int.from_bytes(response.raw_output_contents[names.index("digit")], "little")
    assert digit == samples.label(file)


def test_a_mounted_folder_is_scored_against_the_server(project: Project, folders: tuple[Path, Path]) -> None:
    result = project.run("run", "--rm", "--no-TTY", "score", check=False)
    assert result.returncode == 1, result.stderr  # one file is broken, and the exit code says so
    with (folders[1] / "digits.csv").open(newline="") as table:
        rows = {Path(row["path"]).name: row for row in csv.DictReader(table)}
    assert len(rows) == len(samples.files()) + 1
    assert rows["broken.png"]["status"] == "error"
    expected = Reader().classify(samples.files())
    assert [rows[file.name]["digit"] for file in samples.files()] == [str(answer.digit) for answer in expected]


def test_the_server_is_not_root_and_has_no_rights(project: Project) -> None:
    status = project.inside("print(open('/proc/1/status').read())").stdout
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == ["10001"] * 4
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"] == "1"


@pytest.mark.parametrize("place", ["/opt/scanline", "/models", "/"])
def test_the_server_cannot_write(project: Project, place: str) -> None:
    assert "Read-only file system" in project.inside(f"open('{place}/x', 'w')", check=False).stderr


def test_the_server_has_a_little_room_for_temporary_files(project: Project) -> None:
    assert project.inside("import tempfile as t; t.TemporaryFile().write(b'x'); print('done')").stdout == "done\n"


def test_the_limits_are_in_force(project: Project) -> None:
    host = inspect(project.containers()[0])["HostConfig"]
    assert host["Memory"] == host["MemorySwap"] == 512 * 2**20
    assert (host["NanoCpus"], host["PidsLimit"]) == (10**9, 512)
    assert host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}
    serving = next(event for event in project.events() if event["event"] == "serving")
    assert (serving["memory"], serving["instances"]) == (host["Memory"], 1)


def test_the_image_holds_the_base_install_alone(project: Project) -> None:
    names = ("torch", "onnx", "sklearn", "pip", "setuptools")
    look = f"import importlib.util as u; print([n for n in {names} if u.find_spec(n)])"
    assert project.inside(look).stdout == "[]\n"
    look = "import shutil; print([n for n in ('gcc', 'cc', 'pip', 'pip3', 'scanline') if shutil.which(n)])"
    assert project.inside(look).stdout == "['scanline']\n"
    assert "No module named pip" in project.run("exec", "--no-TTY", "serve", "python3", "-m", "pip", check=False).stderr


def test_the_labels_say_what_it_is(project: Project) -> None:
    labels = inspect(project.images[0])["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == "9.8.7"
    assert labels["org.opencontainers.image.revision"] == "abc"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["scanline.model.sha256"] == "def"


def test_make_image_fills_them_in() -> None:
    would = subprocess.run(
        ["make", "--no-print-directory", "-n", "image"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    # what make would run, with the build replaced by a look at what it would be given
    shown = would.replace("docker compose build serve", "sh -c 'echo $VERSION $MODEL_SHA256'")
    result = subprocess.run(["sh", "-c", shown], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.split() == [__version__, sha256(find(None).read_bytes()).hexdigest()]


def test_stopping_finishes_the_calls_that_are_under_way(project: Project) -> None:
    row = pb.ClassifyRowsRequest(rows=bytes(28))
    sources: list[SimpleQueue[pb.ClassifyRowsRequest | None]] = [SimpleQueue() for _ in range(STREAMS)]
    with grpc.insecure_channel(f"127.0.0.1:{project.port}") as channel, ThreadPoolExecutor(1) as pool:
        stub = DigitsStub(channel)
        streams = [stub.ClassifyRows(iter(source.get, None), timeout=120) for source in sources]
        for source, stream in zip(sources, streams, strict=True):
            source.put(row)
            assert next(stream).rows_seen == 1
        stopping = pool.submit(project.run, "stop", "serve")
        until(lambda: _is_refused(stub), "new calls are refused")
        for source, stream in zip(sources, streams, strict=True):
            for message in [row] * (ROWS - 1) + [None]:
                source.put(message)
            assert [answer.rows_seen for answer in stream] == [*range(2, ROWS + 1)]
        stopping.result()
    assert project.state()["ExitCode"] == 0
    end = [event for event in project.events() if event["event"] in {"not serving", "draining", "stopped"}]
    assert [event["event"] for event in end] == ["not serving", "draining", "stopped"]
    assert end[-1]["finished"] is True


def _is_refused(stub: DigitsStub) -> bool:
    try:
        stub.Classify(pb.ClassifyRequest(pixels=bytes(784)), timeout=10)
    except grpc.RpcError as error:
        return bool(error.code() is grpc.StatusCode.UNAVAILABLE)
    return False
