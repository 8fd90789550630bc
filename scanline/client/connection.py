"""The way to the servers: addresses, token, channels with good defaults."""

from __future__ import annotations

import ipaddress
import itertools
import os
import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Final, TypeVar

import grpc

from scanline.client.call import Call
from scanline.contract import MAX_TIMEOUT
from scanline.errors import InputError
from scanline.tls import Tls
from scanline.tokens import is_token
from scanline.v1 import digits_pb2 as pb
from scanline.v1.digits_pb2_grpc import DigitsStub

# Calls on their way at once for each address: enough that the servers never wait for the network.
IN_FLIGHT: Final = 8
TIMEOUT: Final = 30.0
_ADDRESS: Final = re.compile(r"(?:dns://[^/,\s]*/)?(?:\[[0-9a-fA-F:.%]+\]|[^\s,:/\[\]]+):([0-9]{1,5})")
OPTIONS: Final[Mapping[str, Any]] = {
    # every address that a name has takes its turn; one that is down is left out
    "grpc.service_config": '{"loadBalancingConfig": [{"round_robin": {}}]}',
    # a name is looked up again when a connection breaks, at most this often (gRPC: every 30 s)
    "grpc.dns_min_time_between_resolutions_ms": 1_000,
    # a server that starts again is found soon (gRPC: after 1 s, then up to two minutes)
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 2_000,
    # the name misleads: how long an attempt to connect may take (gRPC: 20 s)
    "grpc.min_reconnect_backoff_ms": 5_000,
    # a machine that vanished is noticed while its calls can still be made elsewhere (gRPC: never)
    "grpc.keepalive_time_ms": 15_000,
    "grpc.keepalive_timeout_ms": 5_000,
    # answers are as large as we asked for
    "grpc.max_receive_message_length": -1,
}
# Where gRPC looks for the proxy that calls go through, in this order.
PROXIES: Final = ("grpc_proxy", "https_proxy", "http_proxy")
NO_PROXY: Final[Mapping[str, Any]] = {"grpc.enable_http_proxy": 0}

Request = TypeVar("Request")
Response = TypeVar("Response")


def addresses_of(target: str) -> tuple[str, ...]:
    """Check addresses, ``HOST:PORT[,HOST:PORT...]``, and give each. A host may be a name that stands for several.

    Raises:
        InputError: naming what is no address.
    """
    if not isinstance(target, str):
        raise InputError(f"the address is text, such as '127.0.0.1:50051', not {target!r}")
    addresses = tuple(address.strip() for address in target.split(","))
    for address in addresses:
        match = _ADDRESS.fullmatch(address)
        if match is None or not 0 < int(match[1]) < 65536:
            raise InputError(
                f"{address!r} is no address: expected HOST:PORT, such as 127.0.0.1:50051, or several between commas"
            )
    return addresses


class Connection:
    """Channels to all addresses, which take turns; safe under threads.

    Attributes:
        target: the addresses, as they were given.
        addresses: each of them.
        encrypted: whether TLS is used.
        proxy: the environment variable that names the proxy for all hosts but this one, if there is any.
        timeout: the seconds that a call may take with all its attempts.
        reached: whether a server has ever answered.
        closed: set when the connection is closed.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout: float,
        tls: Tls | None,
        token: str | None,
        options: Mapping[str, Any] | None,
    ) -> None:
        """Prepare the channels; connections are made with the first call.

        Raises:
            InputError: an address, the timeout, a file or the token can't be used.
        """
        if not _is_timeout(timeout):
            raise InputError(f"the timeout is a number of seconds above 0, at most {MAX_TIMEOUT}, not {timeout!r}")
        if token is not None and not is_token(token):
            raise InputError("the token is no text of printable ASCII characters without spaces")
        if not isinstance(tls, Tls | None):
            raise InputError(f"tls is a scanline.Tls, such as Tls(roots='ca.pem'), or None, not {tls!r}")
        self.target = target
        self.addresses = addresses_of(target)
        self.encrypted = tls is not None
        remote = not all(map(_is_here, self.addresses))
        self.proxy = next((name for name in PROXIES if remote and os.environ.get(name)), None)
        self.timeout = timeout
        self.reached = False
        self.closed = threading.Event()
        self._metadata = None if token is None else (("authorization", f"Bearer {token}"),)
        credentials = None if tls is None else tls.credentials()
        self._channels = [_channel(address, credentials, options or {}) for address in self.addresses]
        self._stubs = [DigitsStub(channel) for channel in self._channels]
        self._turns = itertools.count()

    @property
    def window(self) -> int:
        """How many calls of one caller should be on their way at once."""
        return IN_FLIGHT * len(self.addresses)

    def classify(self, request: pb.ClassifyRequest) -> Future[pb.ClassifyResponse]:
        """Call Classify; the future ends with a ServiceError or a ClosedError where there is no answer."""
        return self._call(lambda stub: stub.Classify, request)

    def describe(self) -> Future[pb.GetModelResponse]:
        """Call GetModel, likewise."""
        return self._call(lambda stub: stub.GetModel, pb.GetModelRequest())

    def _call(
        self, method: Callable[[DigitsStub], grpc.UnaryUnaryMultiCallable[Request, Response]], request: Request
    ) -> Future[Response]:
        turn = next(self._turns)  # each further attempt goes to the address after, whatever other calls do

        def send(attempt: int, seconds: float) -> grpc.Future[Response]:
            stub = self._stubs[(turn + attempt) % len(self._stubs)]
            return method(stub).future(request, seconds, self._metadata)

        return Call(self, send).answer

    def close(self) -> None:
        """Close the channels; calls under way end with ClosedError."""
        self.closed.set()
        for channel in self._channels:
            channel.close()


def _channel(address: str, credentials: grpc.ChannelCredentials | None, options: Mapping[str, Any]) -> grpc.Channel:
    direct = NO_PROXY if _is_here(address) else {}  # no proxy leads back to this machine
    arguments = list({**OPTIONS, **direct, **options}.items())
    if credentials is None:
        return grpc.insecure_channel(address, arguments)
    return grpc.secure_channel(address, credentials, arguments)


def _is_here(address: str) -> bool:
    """Tell whether an address is this machine's own, by loopback."""
    host = address.rpartition("/")[2].rpartition(":")[0]
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:  # a name
        return False


def _is_timeout(value: float) -> bool:
    try:
        return bool(0 < value <= MAX_TIMEOUT)
    except TypeError:  # no number
        return False
