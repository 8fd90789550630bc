"""A server process under attack: what it says, what it holds, and whether it still answers rightly."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
from numpy.typing import NDArray

from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsStub
from tests.serve.conftest import PATIENCE, ServerProcess

# What a server at rest may hold more after a fault than before: gRPC's and onnxruntime's own buffers, which level off
# however often a fault is repeated. What the C library keeps of freed memory, 100 MiB and more, is given back by then.
ROOM_MIB = 96


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition, at most PATIENCE seconds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain: {what}"
        threading.Event().wait(0.01)  # give way to the server: it may share this core


class BesetServer(ServerProcess):
    """A server process whose log is read all the time, so that a full pipe never holds it up."""

    def __init__(self, *arguments: str, **variables: str) -> None:
        super().__init__("--grace", "5", *arguments, **variables)
        self.address = str(self.wait_for("serving")["address"])
        host, _, port = self.address.rpartition(":")
        self.place = (host, int(port))
        self.pid = self.process.pid
        self._drain = threading.Thread(target=self._read_log, daemon=True)
        self._drain.start()

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                self.events.append(json.loads(line))
            except ValueError:  # a traceback or a word of the C core's: no line of ours
                self.events.append({"event": line, "level": "error"})

    def memory(self) -> float:
        """Give the resident memory in MiB."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * 4096 / 2**20

    def peak(self) -> float:
        """Give the most memory that was ever resident, in MiB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 2**10

    def files(self) -> int:
        """Count the open file descriptors."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def connect(self) -> socket.socket:
        """Open a plain connection."""
        return socket.create_connection(self.place, PATIENCE)

    def stop(self) -> None:
        """End the server in good order, and hold it to having reported nothing as its own failure."""
        self.process.terminate()
        assert self.process.wait(PATIENCE) == 0
        self._drain.join(PATIENCE)
        assert self.events[-1]["event"] == "stopped"
        assert self.events[-1]["finished"], "a call that is over still counts as running"
        errors = [event for event in self.events if event["level"] == "error"]
        assert errors == [], errors

    def kill(self) -> None:
        """End the server, whatever became of it."""
        self.process.kill()
        self.process.wait()
        self._drain.join(PATIENCE)
        assert self.process.stderr is not None
        self.process.stderr.close()


@contextmanager
def running(*arguments: str, **variables: str) -> Iterator[BesetServer]:
    """Start a server that must end in good order after whatever happens to it."""
    server = BesetServer(*arguments, **variables)
    try:
        yield server
        server.stop()
    finally:
        server.kill()


class Answers:
    """Images, and the answers that a server gave to each alone, before anything happened to it."""

    def __init__(self, address: str, images: NDArray[np.uint8]) -> None:
        self.images = images
        with grpc.insecure_channel(address) as channel:
            self.alone = [answer for image in images for answer in ask(channel, image[np.newaxis])]

    def check(self, address: str) -> None:
        """Ask again on a new connection, all in one call: the answers must be the same, bit for bit."""
        # a pool of its own: a connection that another test's channel lost may not make this one wait for its backoff
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(address, options) as channel:
            assert ask(channel, self.images) == self.alone


def ask(channel: grpc.Channel, images: NDArray[np.uint8]) -> list[pb.Prediction]:
    """Classify images, uint8 [n, 28, 28], in one call."""
    request = pb.ClassifyRequest(pixels=images.tobytes(), probabilities=True)
    return list(DigitsStub(channel).Classify(request, timeout=PATIENCE, wait_for_ready=True).predictions)
