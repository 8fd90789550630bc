"""A model that is a file or one exported folder, and is loaded again by its name."""

from __future__ import annotations

import shutil
from pathlib import Path

import grpc
import pytest

from scanline.inference import open_inference_pb2 as oip
from scanline.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from scanline.model import SHIPPED, STEP_FILE
from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsStub
from tests.serve.conftest import serving
from tests.serve.published import FLOAT32, publish
from tests.serve.test_digits import refusal
from tests.serve.test_repository import current


def test_a_model_file_that_has_gone_is_served_on_and_its_load_refused(tmp_path: Path) -> None:
    file = tmp_path / "digits.onnx"
    shutil.copy(SHIPPED / file.name, file)
    with serving(model=file, admin=True) as server, grpc.insecure_channel(server.address) as channel:
        file.unlink()
        load = GRPCInferenceServiceStub(channel).RepositoryModelLoad
        code, details = refusal(lambda: load(oip.RepositoryModelLoadRequest(model_name="digits")))
        assert (code, details) == (grpc.StatusCode.FAILED_PRECONDITION, "there is no model where --model says")
        assert current(DigitsStub(channel)) == "1"


def test_callers_are_not_told_where_a_model_file_lies(tmp_path: Path) -> None:
    file = tmp_path / "digits.onnx"
    shutil.copy(SHIPPED / file.name, file)
    with serving(model=file, admin=True) as server, grpc.insecure_channel(server.address) as channel:
        file.write_bytes(file.read_bytes()[:1000])
        load = GRPCInferenceServiceStub(channel).RepositoryModelLoad
        code, details = refusal(lambda: load(oip.RepositoryModelLoadRequest(model_name="digits")))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "digits.onnx" in details
    assert str(tmp_path) not in details


def test_a_load_sees_a_step_file_that_has_come(tmp_path: Path) -> None:
    shutil.copy(SHIPPED / "digits.onnx", tmp_path)
    with serving(model=tmp_path, admin=True) as server, grpc.insecure_channel(server.address) as channel:
        stub, row = DigitsStub(channel), pb.ClassifyRowsRequest(rows=bytes(28))
        assert refusal(lambda: next(stub.ClassifyRows(iter([row]))))[0] is grpc.StatusCode.FAILED_PRECONDITION
        shutil.copy(SHIPPED / STEP_FILE, tmp_path)
        load = oip.RepositoryModelLoadRequest(model_name="digits")
        GRPCInferenceServiceStub(channel).RepositoryModelLoad(load)
        assert next(stub.ClassifyRows(iter([row]))).rows_seen == 1


def test_a_name_means_the_same_model_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    load = oip.RepositoryModelLoadRequest(model_name="digits")
    with serving(model=Path("accurate"), admin=True) as server, grpc.insecure_channel(server.address) as channel:
        publish(tmp_path, 1, FLOAT32).rename("accurate")  # a folder of that name, after the start
        GRPCInferenceServiceStub(channel).RepositoryModelLoad(load)
        assert DigitsStub(channel).GetModel(pb.GetModelRequest()).card["name"] == "accurate"
    with serving(model=Path("accurate"), admin=True) as server, grpc.insecure_channel(server.address) as channel:
        shutil.rmtree("accurate")
        code, details = refusal(lambda: GRPCInferenceServiceStub(channel).RepositoryModelLoad(load))
        assert (code, details) == (grpc.StatusCode.FAILED_PRECONDITION, "there is no model where --model says")
        assert DigitsStub(channel).GetModel(pb.GetModelRequest()).card["name"] == "edge"
