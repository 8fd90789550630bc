"""A wall clock that jumps, as when a board without a battery finds its time server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import grpc
import numpy as np
import pytest

from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsStub
from tests.faults.server import Answers, running
from tests.serve.conftest import PATIENCE

# Debian's package libfaketime
LIBRARY = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
HOUR = 3600

pytestmark = pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed")


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forward", "back"])
def test_deadlines_do_not_follow_the_wall_clock(transport: str, tmp_path: Path, jump: int) -> None:
    offset = tmp_path / "offset"
    offset.write_text("+0")
    preload = {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    image = np.arange(784, dtype=np.uint8).reshape(1, 28, 28)
    request = pb.ClassifyRequest(pixels=image.tobytes(), probabilities=True)

    answered = threading.Event()

    def jump_in_mid_stream() -> Iterator[pb.ClassifyRequest]:
        yield request
        assert answered.wait(PATIENCE)
        offset.write_text(f"{jump:+}")
        yield request

    with running("--transport", transport, **preload) as server:
        answers = Answers(server.address, image)
        with grpc.insecure_channel(server.address) as channel:
            stub = DigitsStub(channel)
            # the deadline is far off for any clock that does not jump
            responses = stub.ClassifyStream(jump_in_mid_stream(), timeout=HOUR / 2)
            assert list(next(responses).predictions) == answers.alone
            answered.set()
            assert [list(response.predictions) for response in responses] == [answers.alone]
            assert list(stub.Classify(request, timeout=HOUR / 2).predictions) == answers.alone
        answers.check(server.address)
    last = datetime.fromisoformat(server.events[-1]["timestamp"])
    assert abs(last.timestamp() - time.time() - jump) < HOUR / 2  # the server did see its clock jump
