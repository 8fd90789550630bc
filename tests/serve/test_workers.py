"""Several processes on one port: started, counted, kept and stopped as one."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import grpc
import pytest

from scanline.errors import StartError
from scanline.inference import open_inference_pb2 as oip
from scanline.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from scanline.model import find
from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsStub
from serve.settings import ServeSettings
from serve.supervisor import Supervisor, _Worker
from tests.faults.server import until
from tests.serve.conftest import PATIENCE, ServerProcess
from tests.serve.test_credentials import NEW_CONNECTION
from tests.serve.test_digits import refusal
from tests.serve.test_lifecycle import failed_start
from tests.serve.test_metrics import get, samples

StartServer = Callable[..., ServerProcess]
WORKERS = 2


@pytest.fixture(scope="module")
def transport() -> str:
    return "loop"


class Shared:
    """A supervisor with its workers."""

    def __init__(self, process: subprocess.Popen[str], serving: dict[str, Any]) -> None:
        """Take the process and what its log says of it."""
        self.process = process
        assert serving["workers"] == WORKERS
        self.address = str(serving["address"])
        self.metrics_address = str(serving["metrics_address"])

    def workers(self) -> set[int]:
        """Give the processes that the supervisor has now."""
        found: set[int] = set()
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            with suppress(FileNotFoundError):  # a thread that has ended meanwhile
                found.update(map(int, (task / "children").read_text().split()))
        return found

    def counted(self, name: str, label: str = "") -> float:
        return samples(self.metrics_address)[name, label]

    def has(self, name: str, value: float) -> bool:
        return self.counted(name) == value

    def call(self) -> None:
        """Ask for one image on a new connection."""
        with grpc.insecure_channel(self.address, NEW_CONNECTION) as channel:
            DigitsStub(channel).Classify(pb.ClassifyRequest(pixels=bytes(784)), timeout=PATIENCE, wait_for_ready=True)


@pytest.fixture
def shared(start_server: StartServer) -> Shared:
    server = start_server("--workers", str(WORKERS), "--metrics-listen", "127.0.0.1:0")
    return Shared(server.process, server.wait_for("serving"))


@pytest.mark.parametrize("carrier", ["loop", "threads"])
def test_the_workers_share_the_port_and_are_counted_as_one(start_server: StartServer, carrier: str) -> None:
    arguments = ("--workers", str(WORKERS), "--metrics-listen", "127.0.0.1:0", "--transport", carrier)
    server = start_server(*arguments, "--log-level", "debug")
    shared = Shared(server.process, server.wait_for("serving"))
    assert len(shared.workers()) == WORKERS
    for _ in range(40):  # the kernel gives a connection to either of two: to one alone about once in 10^12
        shared.call()
    assert shared.counted("nv_inference_count") == 40
    assert shared.counted("scanline_request_seconds_count") == 40
    assert shared.counted("scanline_workers") == WORKERS
    assert get(shared.metrics_address, "/readyz") == (200, "ready\n")
    server.process.terminate()
    code, log = server.end()
    assert code == 0
    assert all(f'"worker": {number}' in log for number in range(1, WORKERS + 1))
    started = [event for event in server.events if event["event"] == "worker serving"]
    assert len(started) == WORKERS
    assert not any("metrics_address" in event for event in started)  # it is the supervisor's
    assert log.count('"event": "answered"') == 40


def test_a_port_is_had_again_whose_last_server_closed_its_connections(start_server: StartServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as before:
        address = "{}:{}".format(*before.getsockname())
        with socket.create_connection(before.getsockname()) as caller:
            before.accept()[0].close()  # who closes first is the one whose port stays in TIME_WAIT for a minute
            assert caller.recv(1) == b""
    server = start_server("--workers", str(WORKERS), "--metrics-listen", "127.0.0.1:0", "--listen", address)
    Shared(server.process, server.wait_for("serving")).call()


def test_a_killed_worker_is_started_again_and_its_counts_are_kept(shared: Shared) -> None:
    for _ in range(10):
        shared.call()
    assert shared.counted("nv_inference_count") == 10
    before = shared.workers()
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    until(lambda: shared.counted("scanline_worker_restarts_total") == 1, "the worker is started again")
    until(lambda: shared.counted("scanline_workers") == WORKERS, "it serves again")
    assert len(shared.workers() - before) == 1
    assert victim not in shared.workers()
    for _ in range(10):
        shared.call()
    assert shared.counted("nv_inference_count") == 20


def test_a_worker_that_cannot_be_started_again_is_tried_until_it_can(start_server: StartServer, tmp_path: Path) -> None:
    model = tmp_path / "digits.onnx"
    shutil.copy(find(None), model)
    server = start_server("--workers", str(WORKERS), "--metrics-listen", "127.0.0.1:0", "--model", str(model))
    shared = Shared(server.process, server.wait_for("serving"))
    good = model.read_bytes()
    model.write_bytes(good[:1000])
    os.kill(min(shared.workers()), signal.SIGKILL)
    assert server.wait_for("worker ended")["exit_code"] == -signal.SIGKILL
    assert str(model) in server.wait_for("worker ended")["reason"]
    shared.call()  # the other one goes on
    model.write_bytes(good)
    until(lambda: shared.has("scanline_workers", WORKERS), "both serve")


def on_new_connections(shared: Shared, ask: Callable[[GRPCInferenceServiceStub], object]) -> set[object]:
    """Ask on so many connections that both workers are asked; give the distinct answers."""
    answers = set()
    for _ in range(20):
        with grpc.insecure_channel(shared.address, NEW_CONNECTION) as channel:
            answers.add(ask(GRPCInferenceServiceStub(channel)))
    return answers


def test_any_worker_tells_the_statistics_of_all(shared: Shared) -> None:
    for _ in range(20):
        shared.call()

    def count(stub: GRPCInferenceServiceStub) -> int:
        [model] = stub.ModelStatistics(oip.ModelStatisticsRequest(name="digits"), timeout=PATIENCE).model_stats
        return model.inference_count

    assert on_new_connections(shared, count) == {20}


def test_what_one_is_told_to_load_and_unload_all_do(start_server: StartServer) -> None:
    server = start_server("--workers", str(WORKERS), "--metrics-listen", "127.0.0.1:0", "--admin")
    shared = Shared(server.process, server.wait_for("serving"))

    def is_ready(stub: GRPCInferenceServiceStub) -> bool:
        return stub.ModelReady(oip.ModelReadyRequest(name="digits"), timeout=PATIENCE).ready

    assert on_new_connections(shared, is_ready) == {True}
    with grpc.insecure_channel(shared.address, NEW_CONNECTION) as channel:
        stub = GRPCInferenceServiceStub(channel)
        stub.RepositoryModelUnload(oip.RepositoryModelUnloadRequest(model_name="digits"), timeout=PATIENCE)
    assert on_new_connections(shared, is_ready) == {False}
    assert get(shared.metrics_address, "/readyz") == (503, "not serving\n")
    os.kill(min(shared.workers()), signal.SIGKILL)
    until(lambda: shared.has("scanline_worker_restarts_total", 1), "the worker is started again")
    until(lambda: shared.has("scanline_workers", WORKERS), "it serves again")
    until(lambda: on_new_connections(shared, is_ready) == {False}, "it does as the others were told")
    assert get(shared.metrics_address, "/readyz")[0] == 503
    with grpc.insecure_channel(shared.address, NEW_CONNECTION) as channel:
        stub = GRPCInferenceServiceStub(channel)
        stub.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name="digits"), timeout=PATIENCE)
    assert on_new_connections(shared, is_ready) == {True}
    assert get(shared.metrics_address, "/readyz") == (200, "ready\n")


def test_workers_that_can_load_nothing_ask_for_no_traffic(start_server: StartServer, tmp_path: Path) -> None:
    model = tmp_path / "digits.onnx"
    shutil.copy(find(None), model)
    good = model.read_bytes()
    arguments = ("--workers", str(WORKERS), "--metrics-listen", "127.0.0.1:0", "--admin", "--model", str(model))
    server = start_server(*arguments)
    shared = Shared(server.process, server.wait_for("serving"))
    with grpc.insecure_channel(shared.address, NEW_CONNECTION) as channel:
        stub = GRPCInferenceServiceStub(channel)
        load = oip.RepositoryModelLoadRequest(model_name="digits")
        stub.RepositoryModelUnload(oip.RepositoryModelUnloadRequest(model_name="digits"), timeout=PATIENCE)
        model.write_bytes(good[:1000])
        code, _ = refusal(lambda: stub.RepositoryModelLoad(load, timeout=PATIENCE))
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert get(shared.metrics_address, "/readyz")[0] == 503
        model.write_bytes(good)
        stub.RepositoryModelLoad(load, timeout=PATIENCE)
        assert get(shared.metrics_address, "/readyz")[0] == 200


def test_a_halted_worker_costs_a_scrape_nothing_but_what_it_counted_last(shared: Shared) -> None:
    for _ in range(10):
        shared.call()
    assert shared.counted("nv_inference_count") == 10
    victim = min(shared.workers())
    os.kill(victim, signal.SIGSTOP)
    try:
        assert shared.counted("nv_inference_count") == 10
    finally:
        os.kill(victim, signal.SIGCONT)
    until(lambda: shared.counted("scanline_workers") == WORKERS, "it answers again")
    assert shared.counted("nv_inference_count") == 10


def test_a_scrape_does_not_wait_behind_an_order() -> None:
    supervisor = Supervisor(ServeSettings(listen="127.0.0.1:0", workers=WORKERS))
    supervisor.start()
    worker = supervisor._workers[0]
    assert worker._process is not None
    with ThreadPoolExecutor(1) as orders:
        worker._process.send_signal(signal.SIGSTOP)
        try:
            order = orders.submit(supervisor.administer, "unload")
            until(lambda: worker._obeys, "the halted worker is asked")
            assert supervisor.snapshot().workers == WORKERS - 1
            assert not order.done()
            worker._process.send_signal(signal.SIGCONT)
            order.result(PATIENCE)
        finally:
            worker._process.send_signal(signal.SIGCONT)
            supervisor.ask_to_stop()
            supervisor.run_until_stopped()


def test_a_supervisor_that_does_not_answer_is_no_error_of_ours(shared: Shared) -> None:
    with grpc.insecure_channel(shared.address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        stub.ServerLive(oip.ServerLiveRequest(), timeout=PATIENCE)
        shared.process.send_signal(signal.SIGSTOP)
        try:
            code, details = refusal(lambda: stub.ModelStatistics(oip.ModelStatisticsRequest(), timeout=PATIENCE))
        finally:
            shared.process.send_signal(signal.SIGCONT)
    assert (code, details) == (grpc.StatusCode.UNAVAILABLE, "no answer to 'statistics' in 5 s")


def test_workers_end_when_their_supervisor_is_killed(shared: Shared) -> None:
    workers = shared.workers()
    shared.process.kill()
    shared.process.wait(PATIENCE)
    until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in workers), "the workers are gone")


def test_a_second_signal_ends_all_at_once(start_server: StartServer) -> None:
    server = start_server("--workers", str(WORKERS), "--drain-delay", "1000")
    server.wait_for("serving")
    server.process.send_signal(signal.SIGINT)
    for _ in range(WORKERS):
        server.wait_for("not serving")
    server.process.send_signal(signal.SIGINT)
    code, log = server.end()
    assert code == 0
    assert '"all workers stopped"' in log


def test_a_worker_that_starts_does_not_undo_a_load(monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = Supervisor(ServeSettings(listen="127.0.0.1:0", workers=WORKERS, admin=True))
    supervisor.start()
    worker, on_started, answered = supervisor._workers[0], _Worker._on_started, threading.Event()

    def halted(self: _Worker) -> bool:
        """Take the worker's time away before it can act on the answer."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        is_unloaded = on_started(self)
        answered.set()
        return is_unloaded

    with ThreadPoolExecutor(1) as orders:
        try:
            supervisor.administer("unload")
            monkeypatch.setattr(_Worker, "_on_started", halted)
            assert worker._process is not None
            worker._process.kill()
            assert answered.wait(PATIENCE)
            order = orders.submit(supervisor.administer, "load")
            until(lambda: worker._obeys, "the halted worker is asked")
            worker._process.send_signal(signal.SIGCONT)
            order.result(PATIENCE)
            until(worker.is_ready, "it has what it was told to load")
            assert worker._orders.ask("has_model", patience=PATIENCE)
        finally:
            worker._process.send_signal(signal.SIGCONT)  # type: ignore[union-attr] # it has one until it is told to end
            supervisor.ask_to_stop()
            supervisor.run_until_stopped()


def test_a_worker_whose_supervisor_goes_as_it_starts_ends_in_good_order() -> None:
    (orders, obeyed), (asked, questions) = Pipe(), Pipe()
    descriptors = obeyed.fileno(), questions.fileno()
    command = [sys.executable, "-m", "serve.worker", *map(str, descriptors)]
    with subprocess.Popen(command, pass_fds=descriptors, stderr=subprocess.PIPE, text=True) as worker:
        obeyed.close()
        questions.close()
        orders.send((1, ServeSettings(log_format="json", listen="127.0.0.1:0")))
        assert worker.stderr is not None
        assert any('"worker serving"' in line for line in worker.stderr)
        for pipe in (asked, orders):
            pipe.close()
        assert "Traceback" not in worker.stderr.read()
    assert worker.returncode == 0


def test_a_port_whose_workers_do_not_listen_yet_is_taken() -> None:
    first = Supervisor(ServeSettings(listen="127.0.0.1:0", workers=WORKERS))
    with pytest.raises(StartError, match="the port is taken"):
        Supervisor(ServeSettings(listen=first.address, workers=WORKERS))
    first._reserved.close()


def test_a_taken_port_is_one_clear_line(shared: Shared) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for address in (f"127.0.0.1:{taken.getsockname()[1]}", shared.address):
            assert failed_start("--workers", "2", "--listen", address) == (
                f"error: can't listen on {address}: the port is taken"
            )


def test_a_missing_model_is_one_clear_line(tmp_path: Path) -> None:
    line = failed_start("--workers", "2", "--model", str(tmp_path / "none.onnx"))
    assert line.startswith("error: no such model: ")


def test_a_file_in_the_working_folder_is_not_taken_for_a_module_of_ours(tmp_path: Path) -> None:
    for module in ("serve", "queue"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit('this is not the server')")
    command = [str(Path(sys.executable).with_name("scanline")), "serve", "--listen", "127.0.0.1:0", "--workers", "2"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any('"event": "serving"' in line for line in process.stderr)
        process.terminate()
