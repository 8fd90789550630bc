"""TLS, certificates of callers, and tokens, with real connections and real files."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from scanline.inference import open_inference_pb2 as oip
from scanline.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsStub
from serve.digits import SERVICE
from serve.lifecycle import Server
from tests.faults.server import until
from tests.serve.conftest import PATIENCE, ServerProcess, serving
from tests.serve.test_lifecycle import failed_start

HOST = "127.0.0.1"
# A pool of its own, so that a new channel is a new connection: what was agreed on the last one is not seen.
NEW_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


class Files:
    """The files of a server's TLS, signed by an authority that can sign again."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.certificate = folder / "tls.crt"
        self.key = folder / "tls.key"
        self.roots = folder / "roots.crt"
        self.roots.write_bytes(self.authority.cert_pem.bytes())
        self.issue(self.authority)

    def issue(self, authority: trustme.CA) -> None:
        issued = authority.issue_cert(HOST)
        self.certificate.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
        self.key.write_bytes(issued.private_key_pem.bytes())

    def settings(self) -> dict[str, Path]:
        return {"tls_certificate": self.certificate, "tls_key": self.key}

    def flags(self) -> list[str]:
        return ["--tls-certificate", str(self.certificate), "--tls-key", str(self.key)]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def ask(address: str, authority: trustme.CA, identity: trustme.LeafCert | None = None, token: str = "") -> str:
    """Ask for the model on a new connection; give its version."""
    credentials = grpc.ssl_channel_credentials(
        authority.cert_pem.bytes(),
        identity.private_key_pem.bytes() if identity else None,
        identity.cert_chain_pems[0].bytes() if identity else None,
    )
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    with grpc.secure_channel(address, credentials, NEW_CONNECTION) as channel:
        answer = DigitsStub(channel).GetModel(pb.GetModelRequest(), timeout=PATIENCE, metadata=metadata)
    return answer.model_version


def is_trusted(address: str, authority: trustme.CA) -> bool:
    """Say whether a new connection finds a certificate that an authority has signed."""
    try:
        return ask(address, authority) != ""
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017 - another status is a failure
        return False


def test_with_tls_it_answers_those_who_trust_its_root(files: Files, transport: str) -> None:
    with serving(transport=transport, **files.settings()) as server:
        assert ask(server.address, files.authority)
        assert not is_trusted(server.address, trustme.CA())
        with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as plain:
            DigitsStub(channel).GetModel(pb.GetModelRequest(), timeout=PATIENCE)
        assert plain.value.code() is grpc.StatusCode.UNAVAILABLE


def test_with_client_roots_a_caller_needs_a_certificate(files: Files, transport: str) -> None:
    with serving(transport=transport, tls_client_roots=files.roots, **files.settings()) as server:
        assert ask(server.address, files.authority, files.authority.issue_cert("caller"))
        for identity in (None, trustme.CA().issue_cert("caller")):
            with pytest.raises(grpc.RpcError) as refusal:
                ask(server.address, files.authority, identity)
            assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_renewed_certificate_is_taken_and_a_broken_one_is_not(
    files: Files, start_server: Callable[..., ServerProcess]
) -> None:
    server = start_server(*files.flags())
    address = server.wait_for("serving")["address"]
    another = trustme.CA()
    files.issue(another)
    assert server.wait_for("reloaded")["what"] == "certificate"
    assert is_trusted(address, another)
    assert not is_trusted(address, files.authority)
    files.certificate.write_bytes(b"no certificate")
    assert str(files.certificate) in server.wait_for("reload refused")["reason"]
    assert is_trusted(address, another)
    files.certificate.unlink()
    server.wait_for("reload refused")
    assert is_trusted(address, another)
    files.issue(files.authority)
    server.wait_for("reloaded")
    assert is_trusted(address, files.authority)


def test_reloads_are_counted(files: Files, transport: str) -> None:
    def reloads(server: Server) -> dict[tuple[str, str], int]:
        return {(what, outcome): count for (what, outcome), count in server.statistics.snapshot().reloads.items()}

    with serving(transport=transport, **files.settings()) as server:
        assert reloads(server) == {}
        files.key.write_bytes(trustme.CA().issue_cert(HOST).private_key_pem.bytes())
        until(lambda: reloads(server) == {("certificate", "refused"): 1}, "the key that does not fit is refused")


@pytest.mark.parametrize("damaged", ["certificate", "key"])
@pytest.mark.parametrize("content", [b"", b"no PEM"])
def test_files_that_cannot_be_used_are_one_clear_line(files: Files, damaged: str, content: bytes) -> None:
    getattr(files, damaged).write_bytes(content)
    line = failed_start(*files.flags())
    assert line.startswith(f"error: no TLS with {files.certificate}, {files.key}: ")
    assert line.endswith("; expected a certificate and its own key, without a password, as PEM")


@pytest.mark.parametrize("missing", ["certificate", "key"])
def test_a_file_that_is_not_there_is_named(files: Files, missing: str) -> None:
    path: Path = getattr(files, missing)
    path.unlink()
    assert failed_start(*files.flags()) == f"error: no TLS: there is no file {path}"


def test_a_call_needs_a_token_and_health_does_not(tmp_path: Path, transport: str) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("one\r\n\n  two \n")
    with serving(transport=transport, token_file=tokens) as server, grpc.insecure_channel(server.address) as channel:
        stub = DigitsStub(channel)
        request = pb.ClassifyRequest(pixels=bytes(784))
        for token in ("one", "two"):
            stub.Classify(request, timeout=PATIENCE, metadata=(("authorization", f"Bearer {token}"),))
        for given, words in {
            (): "expected the metadata `authorization: Bearer TOKEN`",
            (("authorization", "one"),): "expected the metadata `authorization: Bearer TOKEN`",
            (("authorization", "Bearer on"),): "is not known here",
            (("authorization", "Bearer one two"),): "is not known here",
        }.items():
            with pytest.raises(grpc.RpcError) as refusal:
                stub.Classify(request, timeout=PATIENCE, metadata=given)
            assert refusal.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert words in str(refusal.value.details())
            with pytest.raises(grpc.RpcError) as refusal:
                list(stub.ClassifyStream(iter([request]), timeout=PATIENCE, metadata=given))
            assert refusal.value.code() is grpc.StatusCode.UNAUTHENTICATED
            with pytest.raises(grpc.RpcError) as refusal:
                GRPCInferenceServiceStub(channel).ServerLive(oip.ServerLiveRequest(), timeout=PATIENCE, metadata=given)
            assert refusal.value.code() is grpc.StatusCode.UNAUTHENTICATED
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        listing = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        assert list(reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(listing, timeout=PATIENCE))


def test_no_stranger_s_message_is_waited_for(tmp_path: Path, transport: str) -> None:
    (tmp_path / "tokens").write_text("one\n")
    over = threading.Event()

    def nothing() -> Iterator[bytes]:
        over.wait(PATIENCE)
        yield from ()

    settings = {"token_file": tmp_path / "tokens", "transport": transport}
    with serving(**settings) as server, grpc.insecure_channel(server.address) as channel:
        silent: Callable[..., Any] = channel.stream_unary(f"/{SERVICE}/Classify").future
        try:
            error = silent(nothing(), timeout=PATIENCE / 3).exception()
            assert isinstance(error, grpc.RpcError)
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        finally:
            over.set()


def test_a_renewed_token_is_taken_and_an_empty_file_is_not(
    tmp_path: Path, start_server: Callable[..., ServerProcess]
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("first")
    server = start_server("--token-file", str(tokens))
    with grpc.insecure_channel(server.wait_for("serving")["address"]) as channel:

        def lets_in(token: str) -> bool:
            try:
                DigitsStub(channel).GetModel(
                    pb.GetModelRequest(), timeout=PATIENCE, metadata=(("authorization", f"Bearer {token}"),)
                )
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.UNAUTHENTICATED  # noqa: PT017 - another status is a failure
                return False
            return True

        assert lets_in("first")
        tokens.write_text("second")
        assert server.wait_for("reloaded")["what"] == "token"
        assert (lets_in("first"), lets_in("second")) == (False, True)
        tokens.write_text("\n")
        assert "it is empty" in server.wait_for("reload refused")["reason"]
        assert lets_in("second")
    server.process.terminate()
    _, rest = server.end()
    assert "second" not in rest + str(server.events)


def test_a_token_file_without_tokens_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    assert failed_start("--token-file", str(path)) == f"error: no tokens from {path}: No such file or directory"
    path.write_text(" \n")
    assert failed_start("--token-file", str(path)) == (
        f"error: no tokens from {path}: it is empty; expected one on each line"
    )
    path.write_text("one\n\n# staging\n")
    assert failed_start("--token-file", str(path)) == (
        f"error: no tokens from {path}: line 3 has other than printable ASCII without spaces"
    )
