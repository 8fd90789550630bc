"""The server to compare with: grpc.server with 8 threads, a session.run in each handler, no logs, no metrics.

    python -m benchmarks.serving.plain

It decodes the same messages, of either protocol, and gives the same answers as Scanline's, only that it checks nothing
and rejects nothing. It prints its address when it serves.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np

from scanline.contract import COLUMNS, ROWS, to_network
from scanline.inference import open_inference_pb2 as oip
from scanline.inference.open_inference_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)
from scanline.model import Model
from scanline.prediction import softmax
from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsServicer, add_DigitsServicer_to_server

THREADS = 8


class Plain(DigitsServicer):
    """Answers each call with a run of its own."""

    def __init__(self) -> None:
        """Open the shipped int8 model with one thread, as Scanline does."""
        self._model = Model()

    def Classify(self, request: pb.ClassifyRequest, context: grpc.ServicerContext) -> pb.ClassifyResponse:  # noqa: ARG002, N802 - gRPC looks the method up by this name and calls it with both
        """Run the model on the call's images."""
        pixels = np.frombuffer(request.pixels, np.uint8).reshape(-1, ROWS, COLUMNS)
        logits = self._model.run(to_network(pixels))
        response = pb.ClassifyResponse()
        for row in softmax(logits, self._model.card.temperature).tolist():
            confidence = max(row)
            response.predictions.add(digit=row.index(confidence), confidence=confidence)
        return response


class PlainInference(GRPCInferenceServiceServicer):
    """Does the same over the Open Inference Protocol."""

    def __init__(self) -> None:
        """Open the shipped int8 model with one thread, as Scanline does."""
        self._model = Model()

    def ModelInfer(self, request: oip.ModelInferRequest, context: grpc.ServicerContext) -> oip.ModelInferResponse:  # noqa: ARG002, N802 - gRPC looks the method up by this name and calls it with both
        """Run the model on the request's tensor."""
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


def main() -> None:
    """Serve until killed."""
    server = grpc.server(ThreadPoolExecutor(THREADS))
    # of their methods the benchmark calls one each
    add_DigitsServicer_to_server(Plain(), server)  # type: ignore[abstract] # only the stub's types are: what is not there answers UNIMPLEMENTED
    add_GRPCInferenceServiceServicer_to_server(PlainInference(), server)  # type: ignore[abstract] # only the stub has them: what is not there answers UNIMPLEMENTED
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sys.stdout.write(f"127.0.0.1:{port}\n")
    sys.stdout.flush()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
