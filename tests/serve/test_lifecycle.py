"""The server as a process: how it starts, what it logs, how it ends."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray
from PIL import Image

from scanline.contract import METADATA_PREFIX
from scanline.inference import open_inference_pb2 as oip
from scanline.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from scanline.model import SHIPPED, find
from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsStub
from serve.command import LEAVES_SOCKETS
from tests.serve.conftest import PATIENCE, ServerProcess

StartServer = Callable[..., ServerProcess]
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVING = health_pb2.HealthCheckResponse.SERVING


def failed_start(*arguments: str) -> str:
    """Start a server that can't start; check the exit code and give its only line."""
    command = [sys.executable, "-m", "scanline", "serve", "--listen", "127.0.0.1:0", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert result.returncode == 3, result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    return lines[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_good_order(
    start_server: StartServer, images: NDArray[np.uint8], number: signal.Signals
) -> None:
    server = start_server()
    address = server.wait_for("serving")["address"]
    half_sent = threading.Event()
    send_rest = threading.Event()

    def rows() -> Iterator[pb.ClassifyRowsRequest]:
        yield pb.ClassifyRowsRequest(rows=images[0][:14].tobytes())
        half_sent.set()
        assert send_rest.wait(PATIENCE)
        yield pb.ClassifyRowsRequest(rows=images[0][14:].tobytes())

    with grpc.insecure_channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(health).status == SERVING
        answers = DigitsStub(channel).ClassifyRows(rows(), timeout=PATIENCE)
        assert next(answers).rows_seen == 1
        assert half_sent.wait(PATIENCE)
        server.process.send_signal(number)
        assert next(health).status == NOT_SERVING
        # a stopping server takes no new call, on this connection or another
        server.wait_for("draining")
        with grpc.insecure_channel(address) as late, pytest.raises(grpc.RpcError) as refusal:
            DigitsStub(late).GetModel(pb.GetModelRequest(), timeout=PATIENCE)
        assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
        assert refusal.value.details() == "the server is stopping; try another"
        send_rest.set()
        assert [answer.rows_seen for answer in answers] == list(range(2, 29))  # the running call is finished
    code, _ = server.end()
    assert code == 0


def test_a_second_signal_ends_it_at_once(start_server: StartServer) -> None:
    server = start_server("--grace", "1000")
    address = server.wait_for("serving")["address"]
    never = threading.Event()

    def rows() -> Iterator[pb.ClassifyRowsRequest]:
        yield pb.ClassifyRowsRequest(rows=bytes(28))
        never.wait(PATIENCE)

    with grpc.insecure_channel(address) as channel:
        answers = DigitsStub(channel).ClassifyRows(rows())
        next(answers)
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("draining")
        server.process.send_signal(signal.SIGTERM)
        assert server.wait_for("stopped")["finished"] is False
        assert server.end()[0] == 0
        never.set()


# A signal's handler may run at any step of the main thread: here where it holds the lock of what it waits for.
SIGNALLED = """
import signal, sys, threading
from scanline.cli import main

wait, signals = threading.Condition.wait, [signal.SIGTERM]

def interrupted(condition, timeout=None):
    if signals and timeout == 1.0 and threading.current_thread() is threading.main_thread():
        signal.raise_signal(signals.pop())
    return wait(condition, timeout)

threading.Condition.wait = interrupted
sys.exit(main(["serve", "--listen", "127.0.0.1:0", *sys.argv[1:]]))
"""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_signal_may_come_at_any_step(workers: str) -> None:
    command = [sys.executable, "-c", SIGNALLED, "--workers", workers, "--log-format", "json"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            _, said = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert process.returncode == 0, said
    assert "stopped" in said.splitlines()[-1]


def test_a_log_that_nobody_takes_holds_nothing_up(start_server: StartServer, images: NDArray[np.uint8]) -> None:
    server = start_server("--instances", "1")
    address = server.wait_for("serving")["address"]
    assert server.process.stderr is not None
    server.process.stderr.close()  # as when `tee` has ended, or the disk is full
    server.process.stderr = None
    with grpc.insecure_channel(address) as channel:
        stub = DigitsStub(channel)
        for _ in range(8):  # more than there are threads
            with pytest.raises(grpc.RpcError) as refusal:
                stub.GetModel(pb.GetModelRequest(model_version="9"), timeout=PATIENCE)
            assert refusal.value.code() is grpc.StatusCode.NOT_FOUND
        request = pb.ClassifyRequest(pixels=images.tobytes())
        assert len(stub.Classify(request, timeout=PATIENCE).predictions) == len(images)
    server.process.terminate()
    assert server.process.wait(PATIENCE) == 0


def test_a_call_past_the_grace_period_is_cut_off(start_server: StartServer) -> None:
    server = start_server("--grace", "0.1")
    address = server.wait_for("serving")["address"]
    never = threading.Event()

    def rows() -> Iterator[pb.ClassifyRowsRequest]:
        yield pb.ClassifyRowsRequest(rows=bytes(28))
        never.wait(PATIENCE)

    with grpc.insecure_channel(address) as channel:
        answers = DigitsStub(channel).ClassifyRows(rows())
        next(answers)
        server.process.send_signal(signal.SIGTERM)
        assert server.end()[0] == 0
        with pytest.raises(grpc.RpcError):
            next(answers)
        never.set()


def test_a_taken_port_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert failed_start("--listen", address) == (f"error: can't listen on {address}: the port is taken")


def test_a_name_is_taken_where_one_of_its_addresses_is() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"localhost:{taken.getsockname()[1]}"
        assert failed_start("--listen", address) == f"error: can't listen on {address}: the port is taken"


FREE_FOR_ALL = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
UNHAD = {
    "192.0.2.1:50051": "the address is not this machine's",  # RFC 5737: nobody's
    "none.invalid:50051": "there is no such host",  # RFC 2606: never
    "two..dots:50051": "there is no such host",
    "127.0.0.1:1": "this user has no right to the port; one from 1024 on needs none",
}


@pytest.mark.parametrize("address", UNHAD)
def test_an_address_that_cannot_be_had_says_why(address: str) -> None:
    if address.endswith(":1") and int(FREE_FOR_ALL.read_text()) <= 1:
        pytest.skip("the kernel gives any port to anybody, as in Docker's containers")
    # root may have any port, unless it is started without that right
    unprivileged = ["setpriv", "--bounding-set", "-net_bind_service"] if os.geteuid() == 0 else []
    if unprivileged and not shutil.which("setpriv"):
        pytest.skip("there is no setpriv to take root's right to any port away")
    for what, arguments in {
        "": ["--listen", address],
        " for metrics": ["--listen", "127.0.0.1:0", "--metrics-listen", address],
    }.items():
        for workers in ("1", "2"):
            command = [*unprivileged, sys.executable, "-m", "scanline", "serve", "--workers", workers, *arguments]
            result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
            assert (result.returncode, result.stderr) == (
                3,
                f"error: can't listen on {address}{what}: {UNHAD[address]}\n",
            )


def test_a_missing_model_is_one_clear_line(tmp_path: Path) -> None:
    assert failed_start("--model", str(tmp_path / "none.onnx")).startswith("error: no such model: ")
    assert failed_start("--model", "./accurate").startswith("error: no such model: ")  # a path, not the one that ships
    assert failed_start("--model", str(tmp_path)).startswith("error: no model in the folder ")


def test_a_damaged_model_is_one_clear_line(tmp_path: Path) -> None:
    content = find(None).read_bytes()
    for name, damaged in {"cut": content[: len(content) // 2], "empty": b"", "text": b"hello"}.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(damaged)
        assert str(path) in failed_start("--model", str(path))


def test_a_model_without_a_card_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "digits.onnx"
    # the key is stored as it is written, so another of the same length makes the card incomplete
    key = f"{METADATA_PREFIX}labels".encode()
    path.write_bytes((SHIPPED / "digits.onnx").read_bytes().replace(key, key[:-1] + b"z"))
    assert "scanline.labels is missing from its metadata" in failed_start("--model", str(path))


def test_a_model_whose_card_disagrees_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "digits.onnx"
    path.write_bytes((SHIPPED / "digits.onnx").read_bytes().replace(b"0123456789", b"1234567890"))
    assert "labels is '1234567890', expected '0123456789'" in failed_start("--model", str(path))


@pytest.mark.skipif(not grpc.__version__.startswith(LEAVES_SOCKETS), reason="this grpcio keeps its sockets to itself")
def test_calls_do_not_pass_through_the_threads_of_grpcs_core(
    start_server: StartServer, images: NDArray[np.uint8]
) -> None:
    request = pb.ClassifyRequest(pixels=images[:1].tobytes())

    def switches_in_calls(server: ServerProcess) -> int:
        with grpc.insecure_channel(server.wait_for("serving")["address"]) as channel:
            stub = DigitsStub(channel)
            stub.Classify(request, timeout=PATIENCE)
            before = switches(server.process.pid, "event_engine")
            for _ in range(200):
                stub.Classify(request, timeout=PATIENCE)
            return switches(server.process.pid, "event_engine") - before

    as_it_comes = switches_in_calls(start_server(GRPC_EXPERIMENTS="event_engine_listener"))
    assert switches_in_calls(start_server()) < as_it_comes / 2  # now and then they wake for themselves


def switches(pid: int, name: str) -> int:
    """Count how often a process's threads of a name have begun to wait (proc(5))."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        status = (thread / "status").read_text()
        if status.startswith(f"Name:\t{name}"):
            total += int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return total


def test_settings_can_be_printed_as_variables(start_server: StartServer) -> None:
    command = [
        sys.executable,
        "-m",
        "scanline",
        "serve",
        "--print-settings",
        "--max-images",
        "7",
        "--max-queue-images",
        "9",
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "SCANLINE_MAX_IMAGES=7\n" in result.stdout
    assert "SCANLINE_LISTEN=127.0.0.1:50051\n" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--listen", "50051"], "--listen should be HOST:PORT"),
        (["--listen", "localhost:70000"], "--listen should be HOST:PORT with a port from 0 to 65535"),
        (["--max-images", "5000"], "--max-images 5000 is more than --max-queue-images 4096"),
        (["--metrics-listen", "8002"], "--metrics-listen should be HOST:PORT"),
        (
            ["--metrics-listen", "127.0.0.1:50051"],
            "--listen and --metrics-listen are both 127.0.0.1:50051: each needs a port of its own\n",
        ),
        (["--tls-key", "tls.key"], "--tls-certificate and --tls-key go together"),
        (["--tls-client-roots", "roots.crt"], "--tls-client-roots needs --tls-certificate and --tls-key"),
        (["--max-streams", "64"], "--max-streams 64 leaves none of the --threads 64 for reading image files"),
        (["--workers", "0"], "--workers should be greater than or equal to 1, not '0'\n"),
        (["--keepalive", "3000000"], "--keepalive should be less than or equal to 86400, not '3000000'\n"),
        (["--keepalive", "inf"], "--keepalive should be less than or equal to 86400, not 'inf'\n"),
        (["--drain-delay", "inf"], "--drain-delay should be less than or equal to 86400, not 'inf'\n"),
        (["--grace", "1e300"], "--grace should be less than or equal to 86400, not '1e300'\n"),
        (["--max-calls", "1100000000"], "--max-calls should be less than or equal to 1000000, not '1100000000'\n"),
        (
            ["--max-images", f"{2**33}", "--max-queue-images", f"{2**31 - 1}"],
            "--max-images should be less than or equal to 2147483647, not '8589934592'\n",
        ),
        (["--max-queue-images", f"{2**31}"], "--max-queue-images should be less than or equal to 2147483647, not "),
        (["--max-pixels", f"1{309 * '0'}"], "--max-pixels should be less than or equal to 2147483647, not '1000"),
    ],
)
def test_settings_that_cannot_work_are_wrong_use(arguments: list[str], words: str) -> None:
    command = [sys.executable, "-m", "scanline", "serve", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {words}")


def test_the_most_that_settings_take_can_be_served(start_server: StartServer) -> None:
    most = {
        "--max-batch-size": 4096,
        "--max-queue-delay": 10,
        "--max-queue-images": 2**31 - 1,
        "--max-images": 2**31 - 1,
        "--max-pixels": 2**31 - 1,
        "--max-message-bytes": 2**31 - 1,
        "--max-calls": 1_000_000,
        "--threads": 1024,
        "--max-streams": 1023,
        "--keepalive": 86_400,
        "--drain-delay": 86_400,
        "--grace": 86_400,
    }
    server = start_server(*(str(word) for option in most.items() for word in option))
    with grpc.insecure_channel(server.wait_for("serving")["address"]) as channel:
        assert DigitsStub(channel).GetModel(pb.GetModelRequest()).limits.max_images == 2**31 - 1
        config = GRPCInferenceServiceStub(channel).ModelConfig(oip.ModelConfigRequest(name="digits")).config
        assert config.max_batch_size == 2**31 - 1
        picture = BytesIO()
        Image.new("L", (40, 60), 255).save(picture, "WEBP")
        request = pb.ClassifyRequest(files=pb.EncodedImages(files=[picture.getvalue()]))
        assert DigitsStub(channel).Classify(request).predictions[0].reason == pb.REJECT_REASON_BLANK
    for event in ("not serving", "stopped"):
        server.process.send_signal(signal.SIGTERM)
        server.wait_for(event)
    assert server.end()[0] == 0


def test_the_health_command_tells_serving_from_silence(start_server: StartServer) -> None:
    def health(address: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "scanline", "health", address]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)

    server = start_server()
    address = server.wait_for("serving")["address"]
    assert (health(address).returncode, health(address).stdout) == (0, "serving\n")
    server.process.terminate()
    server.end()
    gone = health(address)
    assert gone.returncode == 1
    assert gone.stderr.startswith(f"no answer from {address}: UNAVAILABLE")
