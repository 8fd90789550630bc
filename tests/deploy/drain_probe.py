"""Run on the server's machine: stops the service with calls under way, and prints what came of each."""

import queue
import subprocess
import sys

import grpc

from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsStub

STREAMS = 2
ROWS = 28
ROW = pb.ClassifyRowsRequest(rows=bytes(28))


def is_refused(stub: DigitsStub) -> bool:
    try:
        stub.Classify(pb.ClassifyRequest(pixels=bytes(784)), timeout=10)
    except grpc.RpcError as error:
        return error.code() is grpc.StatusCode.UNAVAILABLE
    return False


with grpc.insecure_channel("127.0.0.1:50051") as channel:
    stub = DigitsStub(channel)
    sources: list[queue.SimpleQueue[pb.ClassifyRowsRequest | None]] = [queue.SimpleQueue() for _ in range(STREAMS)]
    streams = [stub.ClassifyRows(iter(source.get, None), timeout=120) for source in sources]
    for source, stream in zip(sources, streams, strict=True):
        source.put(ROW)
        next(stream)
    with subprocess.Popen(["systemctl", "stop", "scanline"]) as stopping:
        while not is_refused(stub):
            pass  # each turn is a whole call
        for source in sources:
            for _ in range(ROWS - 1):
                source.put(ROW)
            source.put(None)
        answers = [[answer.rows_seen for answer in stream] for stream in streams]
assert answers == [list(range(2, ROWS + 1))] * STREAMS, answers
sys.exit(stopping.returncode)
