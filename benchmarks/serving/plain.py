"""The server to compare with: grpc.server with 8 threads, a session.run in each handler, no logs, no metrics.

    python -m benchmarks.serving.plain

It decodes the same messages, of either protocol, and gives the same answers as Scanline's, only that it checks nothing
and rejects nothing. It prints its address when it serves.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np

from scanline.contract import COLUMNS, ROWS, to_network
from scanline.inference import open_inference_pb2 as oip
from scanline.model import Model
from scanline.prediction import softmax
from scanline.v1 import digits_pb2 as pb

THREADS = 8


class Plain:
    """Answers each call with a run of its own."""

    def __init__(self) -> None:
        """Open the shipped int8 model with one thread, as Scanline does."""
        self._model = Model()

    def classify(self, request: pb.ClassifyRequest, _: grpc.ServicerContext) -> pb.ClassifyResponse:
        """Run the model on the call's images."""
        pixels = np.frombuffer(request.pixels, np.uint8).reshape(-1, ROWS, COLUMNS)
        logits = self._model.run(to_network(pixels))
        response = pb.ClassifyResponse()
        for row in softmax(logits, self._model.card.temperature).tolist():
            confidence = max(row)
            response.predictions.add(digit=row.index(confidence), confidence=confidence)
        return response

    def infer(self, request: oip.ModelInferRequest, _: grpc.ServicerContext) -> oip.ModelInferResponse:
        """Do the same over the Open Inference Protocol, on the request's tensor."""
        rows = np.frombuffer(request.raw_input_contents[0], "<f4").reshape(request.inputs[0].shape)
        logits = self._model.run(rows)
        probabilities = softmax(logits, self._model.card.temperature)
        response = oip.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
        for name, datatype, values in (
            ("logits", "FP32", logits),
            ("probabilities", "FP32", probabilities),
            ("digit", "INT64", probabilities.argmax(axis=1)),
            ("rejected", "BOOL", np.zeros(len(rows), np.bool_)),
        ):
            response.outputs.add(name=name, datatype=datatype, shape=values.shape)
            response.raw_output_contents.append(values.tobytes())
        return response


def add_method(server: grpc.Server, service: str, method: str, handler: grpc.RpcMethodHandler[Any, Any]) -> None:
    """Add a method as gRPC's generated code adds those of a service: in both ways."""
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    server.add_registered_method_handlers(service, {method: handler})


def main() -> None:
    """Serve until killed."""
    server, plain = grpc.server(ThreadPoolExecutor(THREADS)), Plain()
    classify = grpc.unary_unary_rpc_method_handler(
        plain.classify, pb.ClassifyRequest.FromString, pb.ClassifyResponse.SerializeToString
    )
    infer = grpc.unary_unary_rpc_method_handler(
        plain.infer, oip.ModelInferRequest.FromString, oip.ModelInferResponse.SerializeToString
    )
    add_method(server, "scanline.v1.Digits", "Classify", classify)
    add_method(server, "inference.GRPCInferenceService", "ModelInfer", infer)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sys.stdout.write(f"127.0.0.1:{port}\n")
    sys.stdout.flush()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
