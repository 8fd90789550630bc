"""TLS, certificates of callers and tokens: what lets a client in, and what it says where it is not let in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import trustme

from scanline import AccessError, Client, InputError, Tls, UnreachableError, samples
from scanline.cli import main
from serve.lifecycle import Server
from tests.serve.conftest import serving
from tests.serve.test_credentials import Files

BLANK = np.zeros((28, 28), np.uint8)
TOKEN = "correct-horse"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("tls")
    files = Files(folder)
    caller = files.authority.issue_cert("caller")
    caller.cert_chain_pems[0].write_to_path(folder / "caller.crt")
    caller.private_key_pem.write_to_path(folder / "caller.key")
    (folder / "token").write_text(f"{TOKEN}\n")
    (folder / "tokens").write_text(f"{TOKEN}\nanother\n")  # a server's, with one for each caller
    (folder / "words").write_text("two words\n")
    (folder / "escape").write_text("\x1b[0m\n")
    return files


@pytest.fixture(scope="module")
def folder(files: Files) -> Path:
    return files.roots.parent


@pytest.fixture(scope="module")
def server(files: Files, folder: Path) -> Iterator[Server]:
    with serving(tls_client_roots=files.roots, token_file=folder / "token", **files.settings()) as running:
        yield running


@pytest.fixture
def tls(files: Files, folder: Path) -> Tls:
    return Tls(roots=files.roots, certificate=folder / "caller.crt", key=folder / "caller.key")


def test_with_certificate_and_token_it_is_let_in(server: Server, tls: Tls) -> None:
    with Client(server.address, tls=tls, token=TOKEN) as client:
        assert client.classify(BLANK)[0].error is None


@pytest.mark.parametrize(("token", "says"), [(None, "brings no token"), ("battery-staple", "is not known")])
def test_a_missing_or_wrong_token_is_said(server: Server, tls: Tls, token: str | None, says: str) -> None:
    with Client(server.address, tls=tls, token=token) as client, pytest.raises(AccessError, match=says) as error:
        client.classify(BLANK)
    assert error.value.code == "UNAUTHENTICATED"


def test_a_server_that_is_not_trusted_is_told_from_one_that_is_not_there(server: Server, tmp_path: Path) -> None:
    other = tmp_path / "other.crt"
    trustme.CA().cert_pem.write_to_path(other)
    for tls in (Tls(roots=other), Tls()):
        with Client(server.address, tls=tls) as client, pytest.raises(UnreachableError, match="is not trusted here"):
            client.classify(BLANK)


def test_no_tls_where_the_server_wants_it(server: Server) -> None:
    with Client(server.address) as client, pytest.raises(UnreachableError, match="there, without TLS"):
        client.classify(BLANK)


def test_no_certificate_where_the_server_wants_one(server: Server, files: Files) -> None:
    with (
        Client(server.address, tls=Tls(roots=files.roots)) as client,
        pytest.raises(UnreachableError, match="may want a certificate of its callers"),
    ):
        client.classify(BLANK)


def test_a_certificate_for_another_name_is_said(server: Server, tls: Tls) -> None:
    options = {"grpc.ssl_target_name_override": "digits.example"}
    with (
        Client(server.address, tls=tls, options=options) as client,
        pytest.raises(UnreachableError, match="its certificate is for other names than the one that it was called by"),
    ):
        client.classify(BLANK)


def test_tls_where_the_server_has_none(tls: Tls) -> None:
    with (
        serving() as plain,
        Client(plain.address, tls=tls) as client,
        pytest.raises(UnreachableError, match="it answers without TLS: leave --tls-roots and the like"),
    ):
        client.classify(BLANK)


def test_the_command_line_takes_all_of_it(
    server: Server, files: Files, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCANLINE_CLASSIFY_TOKEN_FILE", str(folder / "token"))
    options = ["--server", server.address, "--tls-roots", str(files.roots), "--json"]
    own = ["--tls-certificate", str(folder / "caller.crt"), "--tls-key", str(folder / "caller.key")]
    sample = samples.files()[0]
    assert main(["classify", str(sample), *options, *own]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["digit"] == samples.label(sample)


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--server", "nowhere"], 2, "--server should be HOST:PORT[,HOST:PORT...], such as 127.0.0.1:50051"),
        (["--server", "a:1", "--token-file", "{}/none"], 2, "--token-file: no tokens from {}/none: No such file"),
        (["--server", "a:1", "--token-file", "{}/tokens"], 2, "/tokens holds 2 tokens; a client sends one"),
        (["--server", "a:1", "--token-file", "{}/words"], 2, "{}/words: line 1 has other than printable ASCII without"),
        (["--server", "a:1", "--token-file", "{}/escape"], 2, "{}/escape: line 1 has other than printable ASCII"),
        (["--server", "a:1", "--tls-certificate", "{}/caller.crt"], 1, "a certificate needs its key"),
        (["--server", "a:1", "--tls-roots", "{}/token"], 1, "token for TLS: "),
    ],
)
def test_what_can_t_be_used_is_said_before_any_call(
    folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, says: str
) -> None:
    assert main(["classify", "x.png", *(option.format(folder) for option in options)]) == code
    assert says.format(folder) in capsys.readouterr().err


def test_files_that_are_no_credentials_are_named(files: Files, folder: Path) -> None:
    mixed = Tls(certificate=folder / "caller.crt", key=files.key)
    for tls in (Tls(roots=folder / "none.crt"), Tls(roots=files.key), mixed):
        with pytest.raises(InputError, match=r"can't use /.*/.* for TLS: "):
            Client("127.0.0.1:1", tls=tls)


@pytest.mark.parametrize("token", ["", "two words", "grün", "line\n", b"bytes"])
def test_what_is_no_token_is_refused(token: Any) -> None:
    with pytest.raises(InputError, match="token"):
        Client("127.0.0.1:1", token=token)


def test_what_is_no_tls_is_said() -> None:
    with pytest.raises(InputError, match=r"tls is a scanline\.Tls, such as Tls\(roots='ca\.pem'\), or None, not True"):
        Client("a:1", tls=cast("Tls", True))  # what a caller without mypy may write
