"""A stub of the Open Inference Protocol for the server under test."""

from __future__ import annotations

import grpc
import pytest

from scanline.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub


@pytest.fixture
def oip(channel: grpc.Channel) -> GRPCInferenceServiceStub:
    return GRPCInferenceServiceStub(channel)
