"""Versions of the model in a folder: which are served, how they come and go while calls go on."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from scanline import manifest
from scanline.inference import open_inference_pb2 as oip
from scanline.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsStub
from scanline.verify import GOLDEN
from serve import repository
from serve.folder import Stamp
from serve.lifecycle import Server
from tests.faults.server import until
from tests.serve.conftest import PATIENCE, ServerProcess, serving
from tests.serve.published import FLOAT32, INT8, publish
from tests.serve.test_digits import refusal
from tests.serve.test_lifecycle import NOT_SERVING, SERVING, failed_start
from tests.serve.test_metrics import get

SOON = 0.02  # seconds between looks at the folder


@pytest.fixture
def transport() -> str:
    """One transport: neither knows of versions."""
    return "loop"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with version 1, float32."""
    publish(tmp_path / "models", 1, FLOAT32)
    return tmp_path / "models"


@pytest.fixture
def settings() -> dict[str, Any]:
    return {}


@pytest.fixture
def server(models: Path, settings: dict[str, Any], transport: str) -> Iterator[Server]:
    with serving(model=models, model_poll=SOON, admin=True, transport=transport, **settings) as running:
        yield running


@pytest.fixture
def triton(channel: grpc.Channel) -> GRPCInferenceServiceStub:
    return GRPCInferenceServiceStub(channel)


def current(stub: DigitsStub) -> str:
    """Give the version that answers who names none."""
    version: str = stub.Classify(pb.ClassifyRequest(pixels=bytes(784))).model_version
    return version


def answer(stub: DigitsStub, version: str) -> str:
    """Ask a version by its name; give the one that answered, or the status."""
    try:
        response = stub.Classify(pb.ClassifyRequest(pixels=bytes(784), model_version=version))
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"
    return str(response.model_version)


def index(triton: GRPCInferenceServiceStub) -> dict[str, tuple[str, str]]:
    """Give state and reason of each version."""
    models = triton.RepositoryIndex(oip.RepositoryIndexRequest()).models
    return {entry.version: (entry.state, entry.reason) for entry in models if entry.name == "digits"}


@pytest.mark.parametrize(
    ("settings", "served"),
    [
        ({}, ["3"]),
        ({"model_versions": "latest:2"}, ["3", "2"]),
        ({"model_versions": "all"}, ["3", "2", "1"]),
        ({"model_versions": "1,2"}, ["2", "1"]),
    ],
)
def test_the_policy_says_which_versions_are_served(models: Path, settings: dict[str, Any], served: list[str]) -> None:
    publish(models, 2)
    publish(models, 3, FLOAT32)
    with (
        serving(model=models, model_poll=SOON, **settings) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        stub, triton = DigitsStub(channel), GRPCInferenceServiceStub(channel)
        assert current(stub) == served[0]
        for version in ("1", "2", "3"):
            expected = version if version in served else f"UNAVAILABLE: model version {version} is not served: "
            assert answer(stub, version).startswith(expected)
            ready = triton.ModelReady(oip.ModelReadyRequest(name="digits", version=version)).ready
            assert ready == (version in served)
        assert answer(stub, "4") == f"NOT_FOUND: model version '4' is not loaded; {', '.join(served)} is"
        assert triton.ModelMetadata(oip.ModelMetadataRequest(name="digits")).versions == served


@pytest.mark.parametrize("settings", [{"model_versions": "latest:2"}])
def test_a_version_that_is_published_takes_over(
    models: Path, server: Server, stub: DigitsStub, triton: GRPCInferenceServiceStub
) -> None:
    assert current(stub) == "1"
    assert stub.GetModel(pb.GetModelRequest()).card["precision"] == "float32"
    publish(models, 2)
    until(lambda: current(stub) == "2", "version 2 answers")
    assert stub.GetModel(pb.GetModelRequest()).card["precision"] == "int8"
    assert answer(stub, "1") == "1"
    publish(models, 10)  # by number, not by text
    until(lambda: current(stub) == "10", "version 10 answers")
    assert answer(stub, "1") == "UNAVAILABLE: model version 1 is not served: the policy leaves it out"
    assert index(triton) == {
        "10": ("READY", ""),
        "2": ("READY", ""),
        "1": ("UNAVAILABLE", "the policy leaves it out"),
    }
    ready = triton.RepositoryIndex(oip.RepositoryIndexRequest(ready=True)).models
    assert [(entry.name, entry.version) for entry in ready] == [
        ("digits", "10"),
        ("digits", "2"),
        ("digits-image", "10"),
        ("digits-image", "2"),
    ]
    assert server.statistics.snapshot().reloads == {("model", "done"): 2}


def test_a_version_that_is_published_again_is_taken_again(models: Path, server: Server, stub: DigitsStub) -> None:
    before = stub.GetModel(pb.GetModelRequest()).file
    publish(models, 1, INT8)
    until(lambda: stub.GetModel(pb.GetModelRequest()).file != before, "the new files answer")
    assert current(stub) == "1"


def exchanged(folder: Path) -> None:
    """Put the float32 model under the int8 model's name, with a manifest that fits: its numbers are others."""
    shutil.copy(folder / "digits.onnx", folder / "digits.int8.onnx")
    manifest.write(folder, "test", [*INT8, GOLDEN])


def truncated(folder: Path) -> None:
    content = (folder / "digits.int8.onnx").read_bytes()
    (folder / "digits.int8.onnx").write_bytes(content[: len(content) // 2])


def circular(folder: Path) -> None:
    (folder / "digits.int8.onnx").unlink()
    (folder / "digits.int8.onnx").symlink_to("digits.int8.onnx")


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut short": (truncated, "digits.int8.onnx has "),
    "empty": (lambda folder: (folder / "digits.int8.onnx").write_bytes(b""), "digits.int8.onnx has 0 bytes"),
    "gone": (lambda folder: (folder / "digits.int8.onnx").unlink(), "digits.int8.onnx is missing, though manifest"),
    "a link in a circle": (circular, "digits.int8.onnx is missing, though manifest.json"),
    "no manifest": (lambda folder: (folder / manifest.MANIFEST).unlink(), "no manifest.json beside"),
    "no golden vectors": (lambda folder: (folder / GOLDEN).unlink(), "no golden vectors of digits.int8.onnx"),
    "not its manifest": (
        lambda folder: manifest.write(folder, "test", [GOLDEN]),
        "manifest.json does not name digits.int8.onnx",
    ),
    "other numbers": (exchanged, "logits differ by"),
}


@pytest.mark.parametrize("damage", SPOILT)
def test_a_bad_version_is_refused_and_the_old_one_stays(
    models: Path, server: Server, stub: DigitsStub, triton: GRPCInferenceServiceStub, damage: str
) -> None:
    spoil, words = SPOILT[damage]
    names = (*INT8, *FLOAT32) if damage == "other numbers" else INT8[:1]
    publish(models, 2, names, spoil)
    until(lambda: "2" in index(triton), "version 2 is refused")
    assert current(stub) == "1"
    state, reason = index(triton)["2"]
    assert state == "UNAVAILABLE"
    assert words in reason
    assert answer(stub, "2").startswith("UNAVAILABLE: model version 2 is not served: ")
    assert server.statistics.snapshot().reloads == {("model", "refused"): 1}
    publish(models, 2)  # mended
    until(lambda: current(stub) == "2", "version 2 answers")
    assert index(triton)["2"] == ("READY", "")


def test_what_is_no_number_is_not_looked_at(models: Path, server: Server, triton: GRPCInferenceServiceStub) -> None:
    for name in ("0", "02", "-3", "4.tmp", ".5", "latest"):
        shutil.copytree(models / "1", models / name)
    (models / "6").write_text("no folder")
    publish(models, 2)
    until(lambda: "2" in index(triton), "the folder was looked at")
    assert set(index(triton)) == {"1", "2"}


def test_a_version_that_is_wanted_and_not_there_is_said(
    models: Path, start_server: Callable[..., ServerProcess]
) -> None:
    server = start_server("--model", str(models), "--model-versions", "1,7")
    said = server.wait_for("not there yet")
    assert (said["level"], said["versions"]) == ("warning", [7])
    server.wait_for("serving")


def test_a_folder_that_goes_costs_a_warning(
    tmp_path: Path, models: Path, start_server: Callable[..., ServerProcess]
) -> None:
    publish(models, 2)
    server = start_server("--model", str(models), "--model-poll", str(SOON))
    address = server.wait_for("serving")["address"]
    with grpc.insecure_channel(address) as channel:
        stub = DigitsStub(channel)
        shutil.rmtree(models / "2")
        gone = server.wait_for("gone, and served as before")
        assert (gone["level"], gone["versions"]) == ("warning", [2])
        assert current(stub) == "2"
        models.rename(tmp_path / "elsewhere")
        (tmp_path / "elsewhere").rename(models)
        publish(models, 3, spoil=truncated)
        refused = server.wait_for("version refused")
        assert (refused["level"], refused["version"]) == ("warning", "3")
        assert current(stub) == "2"
        publish(models, 3)
        assert server.wait_for("version loaded")["version"] == "3"
        assert current(stub) == "3"


def test_unloading_takes_the_model_out_of_service_until_it_is_loaded(
    models: Path, server: Server, stub: DigitsStub, triton: GRPCInferenceServiceStub
) -> None:
    triton.RepositoryModelUnload(oip.RepositoryModelUnloadRequest(model_name="digits"))
    assert not triton.ServerReady(oip.ServerReadyRequest()).ready
    assert not triton.ModelReady(oip.ModelReadyRequest(name="digits-image")).ready
    assert index(triton) == {"1": ("UNAVAILABLE", "unloaded")}
    assert answer(stub, "") == answer(stub, "1") == "UNAVAILABLE: the model is unloaded"
    publish(models, 2)  # which is not taken either
    triton.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name="digits-image"))
    assert current(stub) == "2"
    assert triton.ServerReady(oip.ServerReadyRequest()).ready


@pytest.mark.parametrize("settings", [{"metrics_listen": "127.0.0.1:0"}])
def test_a_server_whose_model_is_unloaded_asks_for_no_traffic(
    server: Server, channel: grpc.Channel, stub: DigitsStub, triton: GRPCInferenceServiceStub
) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    watch = health.Watch(health_pb2.HealthCheckRequest(service="scanline.v1.Digits"))
    assert next(watch).status == SERVING
    triton.RepositoryModelUnload(oip.RepositoryModelUnloadRequest(model_name="digits"))
    assert next(watch).status == NOT_SERVING
    for service in ("", "scanline.v1.Digits", "inference.GRPCInferenceService"):
        assert health.Check(health_pb2.HealthCheckRequest(service=service)).status == NOT_SERVING
    assert get(server.metrics_address, "/readyz") == (503, "not serving\n")
    assert get(server.metrics_address, "/healthz") == (200, "alive\n")
    for call in (
        lambda: stub.GetModel(pb.GetModelRequest()),
        lambda: next(stub.ClassifyRows(iter([pb.ClassifyRowsRequest(rows=bytes(28))]))),
        lambda: next(stub.ClassifyStream(iter([pb.ClassifyRequest(pixels=bytes(784))]))),
    ):
        assert refusal(call) == (grpc.StatusCode.UNAVAILABLE, "the model is unloaded")
    triton.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name="digits"))
    assert next(watch).status == SERVING
    assert get(server.metrics_address, "/readyz") == (200, "ready\n")
    watch.cancel()


def test_a_load_that_finds_nothing_sound_leaves_the_model_unloaded(
    models: Path, server: Server, stub: DigitsStub, triton: GRPCInferenceServiceStub
) -> None:
    triton.RepositoryModelUnload(oip.RepositoryModelUnloadRequest(model_name="digits"))
    publish(models, 1, spoil=truncated)
    request = oip.RepositoryModelLoadRequest(model_name="digits")
    assert refusal(lambda: triton.RepositoryModelLoad(request))[0] is grpc.StatusCode.FAILED_PRECONDITION
    assert answer(stub, "") == "UNAVAILABLE: the model is unloaded"
    state, reason = index(triton)["1"]
    assert state == "UNAVAILABLE"
    assert "digits.int8.onnx has " in reason
    assert server.statistics.snapshot().reloads == {("model", "refused"): 1}
    publish(models, 1)
    triton.RepositoryModelLoad(request)
    assert current(stub) == "1"
    assert server.statistics.snapshot().reloads == {("model", "refused"): 1, ("model", "done"): 1}


def test_a_load_that_finds_nothing_says_so(
    models: Path, server: Server, stub: DigitsStub, triton: GRPCInferenceServiceStub
) -> None:
    request = oip.RepositoryModelLoadRequest(model_name="digits")
    shutil.rmtree(models / "1")
    nothing = (grpc.StatusCode.FAILED_PRECONDITION, "no version in the folder is one of latest:1")
    assert refusal(lambda: triton.RepositoryModelLoad(request)) == nothing
    assert answer(stub, "") == "1"  # what was served stays
    triton.RepositoryModelUnload(oip.RepositoryModelUnloadRequest(model_name="digits"))
    assert refusal(lambda: triton.RepositoryModelLoad(request)) == nothing
    assert answer(stub, "") == "UNAVAILABLE: the model is unloaded"


def test_what_a_load_after_an_unload_finds_is_in_the_log(
    models: Path, start_server: Callable[..., ServerProcess]
) -> None:
    server = start_server("--model", str(models), "--admin")
    with grpc.insecure_channel(server.wait_for("serving")["address"]) as channel:
        stub, triton = DigitsStub(channel), GRPCInferenceServiceStub(channel)
        triton.RepositoryModelUnload(oip.RepositoryModelUnloadRequest(model_name="digits"))
        publish(models, 2, spoil=truncated)
        request = oip.RepositoryModelLoadRequest(model_name="digits")
        assert refusal(lambda: triton.RepositoryModelLoad(request))[0] is grpc.StatusCode.FAILED_PRECONDITION
        assert current(stub) == "1"
    server.process.terminate()
    server.wait_for("stopped")
    told = [(line["event"], line["version"]) for line in server.events if line["event"].startswith("version ")]
    assert told == [("version refused", "2"), ("version loaded", "1")]


def test_loading_goes_by_what_is_there_now(
    models: Path, server: Server, stub: DigitsStub, triton: GRPCInferenceServiceStub
) -> None:
    publish(models, 2)
    until(lambda: current(stub) == "2", "version 2 answers")
    shutil.rmtree(models / "2")  # back to version 1
    triton.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name="digits"))
    assert current(stub) == "1"
    publish(models, 3, spoil=truncated)
    code, details = refusal(lambda: triton.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name="digits")))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "digits.int8.onnx has " in details
    assert current(stub) == "1"


def test_a_load_that_makes_no_sense_is_refused(server: Server, triton: GRPCInferenceServiceStub) -> None:
    request = oip.RepositoryModelLoadRequest(model_name="digit")
    assert refusal(lambda: triton.RepositoryModelLoad(request))[0] is grpc.StatusCode.NOT_FOUND
    request = oip.RepositoryModelLoadRequest(model_name="digits")
    request.parameters["config"].string_param = "{}"
    assert refusal(lambda: triton.RepositoryModelLoad(request))[0] is grpc.StatusCode.INVALID_ARGUMENT


def test_a_look_that_never_ends_does_not_hold_up_the_end(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looking, over = threading.Event(), threading.Event()

    def hang(_: Path) -> dict[int, Stamp]:  # as a mount that is gone
        looking.set()
        over.wait(PATIENCE)
        return {}

    with serving(model=models, model_poll=SOON) as server:
        monkeypatch.setattr(repository, "versions_in", hang)
        assert looking.wait(PATIENCE)
        assert server.repository.index() == {"1": ""}  # nor up who asks what there is
        assert not server.repository.close(timeout=0)
        over.set()


def test_without_admin_nobody_loads_or_unloads(models: Path) -> None:
    with serving(model=models) as server, grpc.insecure_channel(server.address) as channel:
        triton = GRPCInferenceServiceStub(channel)
        for call in (
            lambda: triton.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name="digits")),
            lambda: triton.RepositoryModelUnload(oip.RepositoryModelUnloadRequest(model_name="digits")),
        ):
            assert refusal(call)[0] is grpc.StatusCode.PERMISSION_DENIED
        assert current(DigitsStub(channel)) == "1"


@pytest.mark.parametrize(
    ("policy", "words"), [("latest:1", "digits.int8.onnx has "), ("7", "is one of 7; there are 1")]
)
def test_a_server_with_nothing_to_serve_does_not_start(tmp_path: Path, policy: str, words: str) -> None:
    publish(tmp_path, 1, spoil=truncated)
    assert words in failed_start("--model", str(tmp_path), "--model-versions", policy)


def test_a_server_starts_with_the_versions_that_are_sound(models: Path) -> None:
    publish(models, 2, spoil=truncated)
    with serving(model=models) as server, grpc.insecure_channel(server.address) as channel:
        assert current(DigitsStub(channel)) == "1"
        assert server.statistics.snapshot().reloads == {("model", "refused"): 1}
