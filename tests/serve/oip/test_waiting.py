"""ModelInfer and ModelStreamInfer where answers are waited for: the protocol's timeout, and streams."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import numpy as np
from numpy.typing import NDArray

from scanline.inference import open_inference_pb2 as pb
from scanline.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from serve.batcher import EXPIRED
from serve.lifecycle import Server
from tests.serve.conftest import PATIENCE, HeldModel, serving
from tests.serve.oip.test_infer import asking
from tests.serve.test_digits import refusal


def test_a_timeout_that_has_passed_is_a_deadline(oip: GRPCInferenceServiceStub, images: NDArray[np.uint8]) -> None:
    request = asking(np.tile(images[:32], (32, 1, 1)))  # longer than the timeout, even on the fastest machine
    request.parameters["timeout"].int64_param = 1
    assert refusal(lambda: oip.ModelInfer(request))[0] is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_timeout_passes_behind_a_stalled_model(
    held: HeldModel, held_server: Server, images: NDArray[np.uint8]
) -> None:
    with grpc.insecure_channel(held_server.address) as channel:
        oip = GRPCInferenceServiceStub(channel)
        running = oip.ModelInfer.future(asking(images[:1]))
        assert held.started.acquire(timeout=PATIENCE)
        request = asking(images[:1])
        request.parameters["timeout"].int64_param = 50_000
        assert refusal(lambda: oip.ModelInfer(request, timeout=PATIENCE / 2)) == (
            grpc.StatusCode.DEADLINE_EXCEEDED,
            EXPIRED,
        )
        assert not running.done()


def test_a_stream_is_answered_in_order_and_goes_on_after_a_bad_request(
    oip: GRPCInferenceServiceStub, images: NDArray[np.uint8]
) -> None:
    requests = [asking(images[start : start + 3], id=str(start)) for start in range(10)]
    requests[3].inputs[0].datatype = "FP16"
    requests[5].model_name = "nothing"
    responses = list(oip.ModelStreamInfer(iter(requests), timeout=PATIENCE))
    assert [response.infer_response.id for response in responses] == [request.id for request in requests]
    assert [bool(response.error_message) for response in responses] == [number in {3, 5} for number in range(10)]
    assert responses[3].error_message == "the input 'rows' has datatype 'FP16', expected FP32 or UINT8"
    for number in {*range(10)} - {3, 5}:
        response = responses[number].infer_response
        assert response.parameters["triton_final_response"].bool_param
        response.ClearField("parameters")
        assert response == oip.ModelInfer(requests[number])


def test_a_full_server_slows_a_stream_down(transport: str) -> None:
    big = asking(np.zeros((64, 28, 28), np.uint8))
    with (
        serving(transport=transport, max_queue_images=64, max_images=64) as small,
        grpc.insecure_channel(small.address) as channel,
    ):
        responses: Iterator[pb.ModelStreamInferResponse] = GRPCInferenceServiceStub(channel).ModelStreamInfer(
            iter([big] * 20), timeout=PATIENCE
        )
        assert [response.error_message for response in responses] == [""] * 20
