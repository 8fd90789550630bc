"""`scanline health [HOST:PORT]`: for health checks, which run every few seconds, so it loads nothing but grpc.

Asks by the gRPC health checking protocol (https://github.com/grpc/grpc/blob/master/doc/health-checking.md). The two
messages of it that are needed are a few bytes each, so the protobuf classes stay unloaded.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

import grpc

from scanline.errors import UsageError

DEFAULT: Final = "127.0.0.1:50051"
USAGE: Final = "usage: scanline health [HOST:PORT | http://HOST:PORT]"
HELP: Final = f"""{USAGE}

Ask a server whether it is serving: over gRPC, or on its port for operators with http://. Without an address it asks
this machine's, at SCANLINE_LISTEN or {DEFAULT}; one with TLS (SCANLINE_TLS_CERTIFICATE) at SCANLINE_METRICS_LISTEN.
"""
HTTP: Final = "http://"
EVERYWHERE: Final = {"0.0.0.0", "[::]"}  # noqa: S104 - nothing is bound: a server there is asked on loopback
TIMEOUT: Final = 3.0
# HealthCheckRequest with no service asks for the whole server; HealthCheckResponse{status: SERVING}.
WHOLE_SERVER: Final = b""
SERVING: Final = b"\x08\x01"


def run(arguments: Sequence[str]) -> int:
    """Print `serving` and give 0, or say what is wrong and give 1.

    Without an address it asks the server that this machine's environment configures, so that a container's check
    follows its server's settings.
    """
    if arguments and arguments[0] in {"-h", "--help"}:
        sys.stdout.write(HELP)
        return 0
    if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
        raise UsageError(USAGE)
    if arguments and not arguments[0].removeprefix(HTTP).rpartition(":")[2].isdigit():
        raise UsageError(f"no address: {arguments[0]}; it is HOST:PORT, such as {DEFAULT}, or http://HOST:PORT")
    target = arguments[0] if arguments else _own_server()
    problem = _ask_operators(target) if target.startswith(HTTP) else _ask(target)
    if problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    sys.stdout.write("serving\n")
    return 0


def _ask(target: str) -> str:
    """Ask over gRPC; give what is wrong, nothing if it serves."""
    with grpc.insecure_channel(target) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check", request_serializer=lambda request: request, response_deserializer=bytes
        )
        try:
            answer = check(WHOLE_SERVER, timeout=TIMEOUT)
        except grpc.RpcError as error:
            return f"no answer from {target}: {error.code().name}: {error.details()}"
    return "" if answer == SERVING else f"{target} is up but not serving"


def _ask_operators(target: str) -> str:
    """Ask the port for operators; give what is wrong, nothing if it serves."""
    import http.client

    connection = http.client.HTTPConnection(target.removeprefix(HTTP), timeout=TIMEOUT)
    try:
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
    except http.client.HTTPException:
        return f"{target} does not speak HTTP; for a gRPC port leave {HTTP} out"
    except OSError as error:
        return f"no answer from {target}: {error}"
    finally:
        connection.close()
    return "" if status == http.client.OK else f"{target} is up but not serving"


def _own_server() -> str:
    if not os.environ.get("SCANLINE_TLS_CERTIFICATE"):
        return _from_here(os.environ.get("SCANLINE_LISTEN") or DEFAULT)
    if not os.environ.get("SCANLINE_METRICS_LISTEN"):
        raise UsageError(
            "the server of this environment has TLS, whose names and roots are not known here: set "
            "SCANLINE_METRICS_LISTEN, so that its port for operators can be asked, or name an address"
        )
    return HTTP + _from_here(os.environ["SCANLINE_METRICS_LISTEN"])


def _from_here(listen: str) -> str:
    """Give the address at which a server that listens there is reached from its own machine."""
    host, _, port = listen.rpartition(":")
    return f"127.0.0.1:{port}" if host in EVERYWHERE else listen
