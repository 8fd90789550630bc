"""Traces, as a collector of our own receives them over OTLP."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as collector_pb
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from scanline import samples
from scanline.inference import open_inference_pb2 as oip
from scanline.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsStub
from serve.lifecycle import Server
from serve.statistics import Times
from serve.tracing import Tracer
from tests.faults.server import until
from tests.serve.conftest import PATIENCE, serving

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
SAMPLED = (("traceparent", f"00-{TRACE}-{PARENT}-01"),)
UNSAMPLED = (("traceparent", f"00-{TRACE}-{PARENT}-00"),)


class Collector:
    """Keeps the spans that come in."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.service = ""

    def export(self, request: collector_pb.ExportTraceServiceRequest, _: grpc.ServicerContext) -> object:
        for resource in request.resource_spans:
            names = {attribute.key: attribute.value.string_value for attribute in resource.resource.attributes}
            self.service = names["service.name"]
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        return collector_pb.ExportTraceServiceResponse()

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]


@contextmanager
def collecting(transport: str, **settings: object) -> Iterator[tuple[Server, Collector]]:
    """Run a collector, and a server that sends to it; what the server holds back is sent when it stops."""
    collector = Collector()
    export = grpc.unary_unary_rpc_method_handler(
        collector.export,
        collector_pb.ExportTraceServiceRequest.FromString,
        collector_pb.ExportTraceServiceResponse.SerializeToString,
    )
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    receiver = grpc.server(ThreadPoolExecutor(1))
    receiver.add_registered_method_handlers(service, {"Export": export})
    port = receiver.add_insecure_port("127.0.0.1:0")
    receiver.start()
    try:
        with serving(transport=transport, trace_endpoint=f"http://127.0.0.1:{port}", **settings) as server:
            yield server, collector
    finally:
        receiver.stop(0).wait(PATIENCE)


def test_a_request_is_a_span_with_its_parts_below_the_caller_s(transport: str, images: NDArray[np.uint8]) -> None:
    files = [path.read_bytes() for path in samples.files()[:3]]
    with collecting(transport) as (server, collector), grpc.insecure_channel(server.address) as channel:
        stub = DigitsStub(channel)
        stub.Classify(pb.ClassifyRequest(files=pb.EncodedImages(files=files)), timeout=PATIENCE, metadata=SAMPLED)
        list(stub.ClassifyStream(iter([pb.ClassifyRequest(pixels=images[:2].tobytes())] * 2), timeout=PATIENCE))
    assert collector.service == "scanline"
    [request] = collector.named("digits-image")
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, PARENT)
    assert request.kind == Span.SPAN_KIND_SERVER
    assert {attribute.key: attribute.value.int_value for attribute in request.attributes}["scanline.images"] == 3
    below = [span for span in collector.spans if span.parent_span_id == request.span_id]
    assert [span.name for span in below] == ["decode", "queue", "inference"]
    borders = [request.start_time_unix_nano, *(span.end_time_unix_nano for span in below), request.end_time_unix_nano]
    assert borders == sorted(borders)
    of_stream = collector.named("digits")
    assert len(of_stream) == 2
    assert all(not span.parent_span_id for span in of_stream)  # nobody has named one


def test_a_request_of_the_open_inference_protocol_is_traced_too(transport: str, images: NDArray[np.uint8]) -> None:
    tensor = oip.ModelInferRequest.InferInputTensor(name="rows", datatype="UINT8", shape=[1, 28, 28])
    request = oip.ModelInferRequest(model_name="digits", inputs=[tensor], raw_input_contents=[images[0].tobytes()])
    with collecting(transport) as (server, collector), grpc.insecure_channel(server.address) as channel:
        GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=PATIENCE, metadata=SAMPLED)
    [span] = collector.named("digits")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)


def test_a_request_that_fails_says_so(transport: str) -> None:
    too_many = pb.ClassifyRequest(pixels=bytes(784 * 1025))
    with (
        collecting(transport) as (server, collector),
        grpc.insecure_channel(server.address) as channel,
        pytest.raises(grpc.RpcError),
    ):
        DigitsStub(channel).Classify(too_many, timeout=PATIENCE, metadata=SAMPLED)
    [request] = collector.spans
    assert (request.name, request.trace_id.hex()) == ("digits", TRACE)
    assert (request.status.code, request.status.message) == (Status.STATUS_CODE_ERROR, "BadRequestError")


def test_the_caller_decides_and_the_share_where_it_does_not(transport: str) -> None:
    one = pb.ClassifyRequest(pixels=bytes(784))
    with (
        collecting(transport, trace_share=0.0) as (server, collector),
        grpc.insecure_channel(server.address) as channel,
    ):
        for metadata in (SAMPLED, UNSAMPLED, (), (("traceparent", "nonsense"),)):
            DigitsStub(channel).Classify(one, timeout=PATIENCE, metadata=metadata)
    assert [span.trace_id.hex() for span in collector.named("digits")] == [TRACE]


def test_spans_are_sent_while_it_serves(transport: str) -> None:
    with collecting(transport) as (server, collector), grpc.insecure_channel(server.address) as channel:
        DigitsStub(channel).Classify(pb.ClassifyRequest(pixels=bytes(784)), timeout=PATIENCE)
        until(lambda: len(collector.spans) == 4, "the spans have come")


def test_a_collector_that_does_not_answer_does_not_hold_up_the_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        tracer = Tracer(f"http://127.0.0.1:{silent.getsockname()[1]}", share=1.0)
        now = time.monotonic()
        tracer.begin(()).answered(("digits", "1"), 1, Times(now, now, now, now, now))
        assert not tracer.close(timeout=0.1)


def test_without_the_extra_it_is_one_clear_line() -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None; from scanline.cli import main; "
        "sys.exit(main(['serve', '--listen', '127.0.0.1:0', '--trace-endpoint', 'http://127.0.0.1:4317']))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        (
            "error: --trace-endpoint needs opentelemetry, which is not installed: "
            "in a checkout of Scanline, pip install '.[traces]'"
        )
    ]
