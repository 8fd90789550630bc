"""`scanline health [HOST:PORT]`: for health checks, which run every few seconds, so it loads nothing but grpc.

Asks by the gRPC health checking protocol (https://github.com/grpc/grpc/blob/master/doc/health-checking.md). The two
messages of it that are needed are a few bytes each, so the protobuf classes stay unloaded. A server with TLS, which may
want a certificate of its callers, is asked at /readyz on its metrics port instead.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

import grpc

from scanline.errors import UsageError

DEFAULT: Final = "127.0.0.1:50051"
DEFAULTS: Final = (
    f"Without HOST:PORT it asks this machine's, at SCANLINE_LISTEN's port or {DEFAULT}; "
    "where SCANLINE_TLS_CERTIFICATE is set, at /readyz of SCANLINE_METRICS_LISTEN."
)
TIMEOUT: Final = 3.0
# HealthCheckRequest with no service asks for the whole server; HealthCheckResponse{status: SERVING}.
WHOLE_SERVER: Final = b""
SERVING: Final = b"\x08\x01"
READY: Final = 200


def run(arguments: Sequence[str]) -> int:
    """Print `serving` and give 0, or say what is wrong and give 1.

    Without an address it asks the server of this machine at SCANLINE_LISTEN's port, so that a container's check follows
    its server's setting.
    """
    if arguments and arguments[0] in {"-h", "--help"}:
        sys.stdout.write(f"usage: scanline health [HOST:PORT]\n\nAsk a server whether it is serving. {DEFAULTS}\n")
        return 0
    if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
        raise UsageError(f"usage: scanline health [HOST:PORT]. {DEFAULTS}")
    if not arguments and os.environ.get("SCANLINE_TLS_CERTIFICATE"):
        return _ask_metrics_port(os.environ.get("SCANLINE_METRICS_LISTEN", ""))
    target = arguments[0] if arguments else _own_server()
    with grpc.insecure_channel(target) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check", request_serializer=lambda request: request, response_deserializer=bytes
        )
        try:
            answer = check(WHOLE_SERVER, timeout=TIMEOUT)
        except grpc.RpcError as error:
            sys.stderr.write(f"no answer from {target}: {error.code().name}: {error.details()}\n")
            return 1
    if answer != SERVING:
        sys.stderr.write(f"{target} is up but not serving\n")
        return 1
    sys.stdout.write("serving\n")
    return 0


def _ask_metrics_port(listen: str) -> int:
    from http.client import HTTPConnection, HTTPException

    if not listen:
        raise UsageError("a server with TLS is asked at its metrics port: set SCANLINE_METRICS_LISTEN, or give HOST:PORT")
    target = f"127.0.0.1:{listen.rpartition(':')[2]}"
    try:
        connection = HTTPConnection(target, timeout=TIMEOUT)
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
    except (OSError, HTTPException) as error:
        sys.stderr.write(f"no answer from {target}: {error}\n")
        return 1
    if answer.status != READY:
        sys.stderr.write(f"{target} is up but not serving\n")
        return 1
    sys.stdout.write("serving\n")
    return 0


def _own_server() -> str:
    _, _, port = os.environ.get("SCANLINE_LISTEN", DEFAULT).rpartition(":")
    return f"127.0.0.1:{port}"
