"""`scanline health [HOST:PORT]`: for health checks, which run every few seconds, so it loads nothing but grpc.

Asks by the gRPC health checking protocol (https://github.com/grpc/grpc/blob/master/doc/health-checking.md). The two
messages of it that are needed are a few bytes each, so the protobuf classes stay unloaded.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

import grpc

from scanline.errors import UsageError

DEFAULT: Final = "127.0.0.1:50051"
DESCRIPTION: Final = f"""
Ask a server whether it is serving: over gRPC, or on its port for operators with http://. Without an address it asks
this machine's, at SCANLINE_LISTEN or {DEFAULT}; one with TLS (SCANLINE_TLS_CERTIFICATE) at SCANLINE_METRICS_LISTEN.
"""
HTTP: Final = "http://"
EVERYWHERE: Final = {"0.0.0.0", "[::]"}  # noqa: S104 - compared with, never bound: a server that listens there is asked on loopback
EXPECTED: Final = f"it is HOST:PORT, such as {DEFAULT}, or {HTTP}HOST:PORT"
TIMEOUT: Final = 3.0
MOST_PORT: Final = 2**16 - 1
# HealthCheckRequest with no service asks for the whole server; HealthCheckResponse{status: SERVING}.
WHOLE_SERVER: Final = b""
SERVING: Final = b"\x08\x01"
# Statuses that no server of ours gives to a check: gRPC's own, and what it makes of a web server's page over HTTP/2.
NOT_OURS: Final = {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNKNOWN}
# What /readyz answers.
READY: Final = (200, b"ready\n")
NOT_READY: Final = (503, b"not serving\n")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; {' '.join(self.format_usage().split())}")


def run(arguments: Sequence[str]) -> int:
    """Print `serving` and give 0, or say what is wrong and give 1.

    Without an address it asks the server that this machine's environment configures, so that a container's check
    follows its server's settings.
    """
    parser = _Parser("scanline health", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("address", nargs="?", metavar="HOST:PORT | http://HOST:PORT", help="where it listens")
    parser.add_argument("--tls", action="store_true", help="encrypt, as the same options of `scanline classify` do")
    for option in ("--tls-roots", "--tls-certificate", "--tls-key"):
        parser.add_argument(option, metavar="PATH", help="PEM file; encrypts as well")
    given = parser.parse_args(arguments)
    encrypt = any((given.tls, given.tls_roots, given.tls_certificate, given.tls_key))
    target = _own_server(encrypt=encrypt) if given.address is None else given.address
    host, _, port = target.removeprefix(HTTP).rpartition(":")
    # gRPC would take a port of more than 16 bits for another one
    if not (host and port.isdecimal() and 1 <= int(port) <= MOST_PORT) or "://" in target.removeprefix(HTTP):
        raise UsageError(f"no address: {target}; {EXPECTED}")
    if target.startswith(HTTP):
        if encrypt:
            raise UsageError(f"the port for operators has no TLS: ask {target} without it, or the gRPC port")
        problem = _ask_operators(target)
    else:
        problem = _ask(target, _credentials(given) if encrypt else None)
    if problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    sys.stdout.write("serving\n")
    return 0


def _credentials(given: argparse.Namespace) -> grpc.ChannelCredentials:
    from scanline.tls import Tls  # Python's own TLS takes time to load

    return Tls(roots=given.tls_roots, certificate=given.tls_certificate, key=given.tls_key).credentials()


def _ask(target: str, credentials: grpc.ChannelCredentials | None) -> str:
    """Ask over gRPC; give what is wrong, nothing if it serves."""
    direct = [("grpc.enable_http_proxy", 0)]  # as over HTTP; a proxy leads neither to this machine nor its neighbours
    channel = (
        grpc.insecure_channel(target, direct)
        if credentials is None
        else grpc.secure_channel(target, credentials, direct)
    )
    with channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check", request_serializer=lambda request: request, response_deserializer=bytes
        )
        try:
            answer = check(WHOLE_SERVER, timeout=TIMEOUT)
        except grpc.RpcError as error:
            from scanline.tls import question

            said = f"{error.code().name}: {error.details()}"
            if error.code() in NOT_OURS:
                return f"{target} is no Scanline server: {said}"
            look = question(said, encrypted=credentials is not None)
            return f"no answer from {target}: {said}; {look}"
    return "" if answer == SERVING else f"{target} is up but not serving"


def _ask_operators(target: str) -> str:
    """Ask the port for operators; give what is wrong, nothing if it serves."""
    import http.client

    connection = http.client.HTTPConnection(target.removeprefix(HTTP), timeout=TIMEOUT)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        answer = response.status, response.read(len(NOT_READY[1]))
    except http.client.HTTPException:
        return f"{target} does not speak HTTP; for a gRPC port leave {HTTP} out, and give --tls-roots where it has TLS"
    except UnicodeError:  # what Python says of a host that can't be a name, as where two dots follow each other
        raise UsageError(f"no address: {target}; {EXPECTED}") from None
    except OSError as error:
        return f"no answer from {target}: {error}"
    finally:
        connection.close()
    if answer == READY:
        return ""
    if answer == NOT_READY:
        return f"{target} is up but not serving"
    return f"{target} is no Scanline server's port for operators: HTTP {answer[0]}"


def _own_server(*, encrypt: bool) -> str:
    if encrypt or not os.environ.get("SCANLINE_TLS_CERTIFICATE"):
        return _from_here(os.environ.get("SCANLINE_LISTEN") or DEFAULT)
    if not os.environ.get("SCANLINE_METRICS_LISTEN"):
        raise UsageError(
            "the server of this environment has TLS, whose names and roots are not known here: set "
            "SCANLINE_METRICS_LISTEN, so that its port for operators can be asked, or give HOST:PORT and --tls-roots"
        )
    return HTTP + _from_here(os.environ["SCANLINE_METRICS_LISTEN"])


def _from_here(listen: str) -> str:
    """Give the address at which a server that listens there is reached from its own machine."""
    host, _, port = listen.rpartition(":")
    return f"127.0.0.1:{port}" if host in EVERYWHERE else listen
