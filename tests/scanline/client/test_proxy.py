"""A proxy for HTTP in the environment, as companies set it: gRPC would send all calls through it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from scanline import Client, UnreachableError, samples
from tests.serve.conftest import serving

NO_PROXY = "http://127.0.0.1:1"  # where nothing listens


@pytest.mark.parametrize(
    "words",
    ["health {address}", "classify --server {address} {file}", "classify --server localhost:{port} {file}", "demo"],
)
def test_calls_to_this_machine_take_no_proxy(words: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SCANLINE_")}
    environment |= {"http_proxy": NO_PROXY, "https_proxy": NO_PROXY, "no_proxy": "", "no_grpc_proxy": ""}
    with serving() as server:
        port = server.address.rpartition(":")[2]
        line = words.format(address=server.address, port=port, file=samples.files()[0]).split()
        result = subprocess.run(
            [sys.executable, "-m", "scanline", *line], capture_output=True, text=True, env=environment, check=False
        )
    assert result.returncode == 0, result.stderr


def test_a_proxy_is_named_where_there_is_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("grpc_proxy", "https_proxy", "no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", NO_PROXY)
    told = []
    for address in ("digits.example:50051", "127.0.0.1:1", "[::1]:1"):
        with Client(address) as client, pytest.raises(UnreachableError) as error:
            client.model()
        told.append("through the proxy in http_proxy, unless no_proxy names the server" in str(error.value))
    assert told == [True, False, False]
