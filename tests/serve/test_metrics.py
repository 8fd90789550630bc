"""The port for operators, read by hand and by a real Prometheus."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import structlog
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from scanline.inference import open_inference_pb2 as oip
from scanline.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsStub
from serve.lifecycle import Server
from serve.metrics import MetricsServer
from serve.statistics import Snapshot
from tests.faults.server import until
from tests.serve.conftest import PATIENCE, ServerProcess, serving
from tests.serve.test_credentials import Files
from tests.serve.test_lifecycle import failed_start

ANYWHERE = {"metrics_listen": "127.0.0.1:0"}


@pytest.fixture
def server(transport: str) -> Iterator[Server]:
    with serving(transport=transport, instances=1, **ANYWHERE) as running:
        yield running


def get(address: str | None, path: str) -> tuple[int, str]:
    """Ask a port for operators; give the HTTP status and the body."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def samples(address: str | None) -> dict[tuple[str, str], float]:
    """Scrape; give each sample of the model `digits`, and those of no model, by name and last label."""
    code, text = get(address, "/metrics")
    assert code == 200
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = dict(sample.labels)
            labels.pop("version", None)
            if labels.pop("model", "digits") == "digits":
                found[sample.name, ",".join(labels.values())] = sample.value
    return found


def test_the_names_that_dashboards_know(server: Server, stub: DigitsStub, images: NDArray[np.uint8]) -> None:
    for count in (1, 3):
        stub.Classify(pb.ClassifyRequest(pixels=images[:count].tobytes()), timeout=PATIENCE)
    with pytest.raises(grpc.RpcError):
        stub.Classify(pb.ClassifyRequest(pixels=bytes(784 * 1025)), timeout=PATIENCE)
    with pytest.raises(grpc.RpcError):
        stub.GetModel(pb.GetModelRequest(model_version="none"), timeout=PATIENCE)
    found = samples(server.metrics_address)
    assert found["scanline_calls_failed_total", "INVALID_ARGUMENT"] == 1
    assert found["scanline_calls_failed_total", "NOT_FOUND"] == 1
    assert found["nv_inference_request_success", ""] == 2
    assert found["nv_inference_request_failure", "OTHER"] == 1
    assert found["nv_inference_request_failure", "REJECTED"] == 0
    assert found["nv_inference_count", ""] == 4
    assert found["nv_inference_exec_count", ""] == 2
    assert found["nv_inference_pending_request_count", ""] == 0
    parts = ("queue", "compute_input", "compute_infer", "compute_output")
    durations = [found[f"nv_inference_{part}_duration_us", ""] for part in parts]
    assert min(durations) > 0
    assert found["nv_inference_request_duration_us", ""] == pytest.approx(sum(durations))


def test_histograms_reach_down_to_fifty_microseconds(
    server: Server, stub: DigitsStub, images: NDArray[np.uint8]
) -> None:
    for count in (1, 1, 3, 30):
        stub.Classify(pb.ClassifyRequest(pixels=images[:count].tobytes()), timeout=PATIENCE)
    found = samples(server.metrics_address)
    for name in ("scanline_request_seconds", "scanline_queue_seconds", "scanline_inference_seconds"):
        assert found[f"{name}_count", ""] == found[f"{name}_bucket", "+Inf"] == 4
        assert 0 <= found[f"{name}_bucket", "5e-05"] <= found[f"{name}_bucket", "0.0001"] <= 4
        assert found[f"{name}_sum", ""] > 0
    sizes = {le: found["scanline_batch_size_bucket", le] for le in ("1", "2", "4", "16", "32", "+Inf")}
    assert sizes == {"1": 2, "2": 2, "4": 3, "16": 3, "32": 4, "+Inf": 4}
    assert found["scanline_batch_size_sum", ""] == 35
    assert ("scanline_calls_in_flight", "") in found
    assert found["scanline_reloads_total", "refused,model"] == 0
    assert found["process_resident_memory_bytes", ""] > 0


def test_it_is_alive_at_once_and_ready_while_it_serves(start_server: Callable[..., ServerProcess]) -> None:
    server = start_server("--metrics-listen", "127.0.0.1:0", "--drain-delay", "60")
    address = server.wait_for("serving")["metrics_address"]
    assert get(address, "/healthz") == (200, "alive\n")
    assert get(address, "/readyz") == (200, "ready\n")
    assert get(address, "/elsewhere") == (404, "there are /metrics, /healthz, /readyz\n")
    with grpc.insecure_channel(server.events[-1]["address"]) as channel:
        inference = GRPCInferenceServiceStub(channel)
        assert inference.ServerReady(oip.ServerReadyRequest(), timeout=PATIENCE).ready
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("not serving")
        assert get(address, "/healthz") == (200, "alive\n")
        assert get(address, "/readyz") == (503, "not serving\n")
        assert not inference.ServerReady(oip.ServerReadyRequest(), timeout=PATIENCE).ready


def test_head_gets_no_body(server: Server) -> None:
    assert server.metrics_address is not None
    host, _, port = server.metrics_address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=PATIENCE) as connection,
        connection.makefile("rb") as answer,
    ):
        connection.sendall(b"HEAD /healthz HTTP/1.0\r\n\r\n")
        head = answer.read()
    assert head.startswith(b"HTTP/1.0 200 ")
    assert b"Content-Length: 6\r\n" in head
    assert head.endswith(b"\r\n\r\n")


def test_a_connection_that_says_nothing_holds_up_no_scrape(server: Server) -> None:
    assert server.metrics_address is not None
    host, _, port = server.metrics_address.rpartition(":")
    with socket.create_connection((host, int(port))):
        assert get(server.metrics_address, "/healthz")[0] == 200


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_all_of_ipv6_is_all_of_ipv4_too_as_for_grpc() -> None:
    with serving(metrics_listen="[::]:0") as server:
        address = str(server.metrics_address)
        for host in ("127.0.0.1", "[::1]"):
            assert get(f"{host}:{address.rpartition(':')[2]}", "/readyz") == (200, "ready\n")
        own = {"SCANLINE_TLS_CERTIFICATE": "server.crt", "SCANLINE_METRICS_LISTEN": address}
        assert health(**own) == (0, "serving\n")


def answering() -> int:
    """Count the threads that answer a connection."""
    return sum("process_request_thread" in thread.name for thread in threading.enumerate())


def test_a_connection_that_is_reset_is_no_event(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    assert server.metrics_address is not None
    host, _, port = server.metrics_address.rpartition(":")
    with socket.create_connection((host, int(port))) as connection:
        until(lambda: answering() == 1, "the connection was taken")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() resets it
    until(lambda: answering() == 0, "it is done with")
    assert get(server.metrics_address, "/healthz")[0] == 200
    assert capfd.readouterr().err == ""


def test_an_answer_that_fails_is_a_line_of_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> Snapshot:
        raise ValueError("no such count")

    with structlog.testing.capture_logs() as lines:
        port = MetricsServer("127.0.0.1:0", fail, lambda: True)
        port.start()
        with pytest.raises(http.client.RemoteDisconnected):
            get(port.address, "/metrics")
        until(lambda: answering() == 0, "it is done with")
        port.close()
    assert [(line["event"], line["log_level"]) for line in lines] == [("no answer to an operator", "error")]
    assert capfd.readouterr().err == ""


def test_a_taken_port_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert failed_start("--metrics-listen", address) == (
            f"error: can't listen on {address} for metrics: the port is taken"
        )


@contextmanager
def prometheus(folder: Path, target: str | None) -> Iterator[Callable[[str], list[Any]]]:
    """Run a Prometheus that scrapes a target; give the function that asks it."""
    if shutil.which("prometheus") is None:
        pytest.skip("no Prometheus: Debian's package prometheus has it")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    scrape = {"job_name": "scanline", "scrape_interval": "1s", "static_configs": [{"targets": [target]}]}
    (folder / "prometheus.yml").write_text(json.dumps({"scrape_configs": [scrape]}))  # JSON is YAML, too
    command = ["prometheus", "--config.file=prometheus.yml", f"--web.listen-address={address}", "--storage.tsdb.path=."]

    def ask(query: str) -> list[Any]:
        try:
            code, text = get(address, f"/api/v1/query?query={urllib.parse.quote(query)}")
        except urllib.error.URLError:  # it does not listen yet
            return []
        return list(json.loads(text)["data"]["result"]) if code == 200 else []

    with subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL) as process:
        try:
            yield ask
        finally:
            process.terminate()


def test_a_real_prometheus_reads_them(
    server: Server, stub: DigitsStub, images: NDArray[np.uint8], tmp_path: Path
) -> None:
    stub.Classify(pb.ClassifyRequest(pixels=images[:3].tobytes()), timeout=PATIENCE)
    with prometheus(tmp_path, server.metrics_address) as ask:
        until(lambda: ask("up == 1") != [], "Prometheus has scraped")
        [count] = ask('nv_inference_count{model="digits"}')
        assert count["value"][1] == "3"
        [median] = ask('histogram_quantile(0.5, scanline_request_seconds_bucket{model="digits"})')
        assert 0 < float(median["value"][1]) < PATIENCE


def health(*arguments: str, **variables: str) -> tuple[int, str]:
    """Run `scanline health`; give its exit code and what it says."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SCANLINE_")}
    command = [sys.executable, "-m", "scanline", "health", *arguments]
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE, check=False, env=clean | variables
    )
    return result.returncode, result.stdout + result.stderr


def test_the_health_command_asks_with_tls(tmp_path: Path) -> None:
    files = Files(tmp_path)
    roots = ("--tls-roots", str(files.roots))
    identity = files.flags()  # the server's own will do as a caller's
    with serving(**files.settings(), tls_client_roots=files.roots) as server:
        assert health(server.address, *roots, *identity) == (0, "serving\n")
        assert health(*roots, *identity, SCANLINE_LISTEN=server.address) == (0, "serving\n")
        for arguments, words in {
            (): "running there, without TLS? (--tls-roots CA.PEM or Tls(roots=...) asks with it)\n",
            ("--tls",): "is not trusted here: give its authority's, a PEM file, as --tls-roots or Tls(roots=...)\n",
            roots: "a certificate of its callers (--tls-certificate and --tls-key, or Tls(certificate=..., key=...))\n",
        }.items():
            code, said = health(server.address, *arguments)
            assert (code, said.count("\n")) == (1, 1)
            assert said.startswith(f"no answer from {server.address}: ")
            assert said.endswith(words)
        code, said = health(f"http://{server.address}")
        assert code == 1
        assert "for a gRPC port leave http:// out, and give --tls-roots where it has TLS" in said
    for arguments, words in {
        (server.address, "--tls-roots", str(tmp_path / "none")): "No such file",
        (server.address, *identity[:2]): "a certificate needs its key",
    }.items():
        code, said = health(*arguments)
        assert (code, said.count("\n")) == (1, 1)
        assert words in said


def test_the_port_for_operators_has_no_tls() -> None:
    for arguments in (("http://127.0.0.1:1", "--tls"), ("https://127.0.0.1:1",)):
        code, said = health(*arguments)
        assert code == 2
        assert "http://" in said


@contextmanager
def web_server(status: int, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Run a web server that gives every page with a status; give its address."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"<html></html>")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as web:
        if tls is not None:
            web.socket = tls.wrap_socket(web.socket, server_side=True)
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{web.server_port}"
        finally:
            web.shutdown()
            thread.join(PATIENCE)


@pytest.mark.parametrize("status", [200, 404, 503])
def test_the_health_command_tells_a_web_server_from_one_of_ours(status: int) -> None:
    with web_server(status) as address:
        code, said = health(f"http://{address}")
        assert (code, said) == (1, f"http://{address} is no Scanline server's port for operators: HTTP {status}\n")
        code, said = health(address)
    assert (code, said.count("\n")) == (1, 1)
    assert said.startswith(f"no answer from {address}: UNAVAILABLE")
    assert said.endswith(
        "; what answers there does not speak gRPC, or only with TLS (--tls-roots CA.PEM or "
        "Tls(roots=...) asks with it)\n"
    )


def test_the_health_command_tells_a_web_server_with_tls_from_one_of_ours(tmp_path: Path) -> None:
    files = Files(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(files.certificate, files.key)
    with web_server(200, tls) as address:
        code, said = health(address, "--tls-roots", str(files.roots))
    assert code == 1
    assert said.endswith("; what answers there does not speak gRPC\n")


@pytest.mark.parametrize("code", [grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNKNOWN])
def test_the_health_command_tells_another_grpc_server_from_one_of_ours(code: grpc.StatusCode) -> None:
    def refuse(_: bytes, context: grpc.ServicerContext) -> None:
        context.abort(code, "no such thing")

    other = grpc.server(ThreadPoolExecutor(1))
    check: dict[str, grpc.RpcMethodHandler[Any, Any]] = {"Check": grpc.unary_unary_rpc_method_handler(refuse)}
    other.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", check),))
    address = f"127.0.0.1:{other.add_insecure_port('127.0.0.1:0')}"
    other.start()
    assert health(address) == (1, f"{address} is no Scanline server: {code.name}: no such thing\n")
    other.stop(None).wait(PATIENCE)


def test_the_health_command_asks_a_server_with_tls_at_the_port_for_operators(
    start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    files = Files(tmp_path)
    server = start_server("--metrics-listen", "127.0.0.1:0", "--drain-delay", "60", *files.flags())
    address = str(server.wait_for("serving")["metrics_address"])
    own = {"SCANLINE_TLS_CERTIFICATE": str(files.certificate)}
    assert health(f"http://{address}") == (0, "serving\n")
    assert health(**own, SCANLINE_METRICS_LISTEN=f"0.0.0.0:{address.rpartition(':')[2]}") == (0, "serving\n")
    code, words = health(**own)
    assert code == 2
    assert "set SCANLINE_METRICS_LISTEN" in words
    server.process.terminate()
    server.wait_for("not serving")
    assert health(f"http://{address}") == (1, f"http://{address} is up but not serving\n")
    server.process.kill()
    server.process.wait(PATIENCE)
    code, words = health(f"http://{address}")
    assert code == 1
    assert words.startswith(f"no answer from http://{address}: ")
