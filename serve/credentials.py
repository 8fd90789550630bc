"""TLS and tokens, from files that are read again when they change: a rotation needs no restart.

What can't be read or doesn't fit together leaves what there was in its place, and is said in the log and the metrics.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Generic, TypeVar

import grpc
import structlog

from scanline import tokens
from scanline.errors import InputError, StartError
from serve.core import Metadata
from serve.errors import UnauthenticatedError
from serve.folder import Stamp, stamp_of
from serve.statistics import Statistics, What

AUTHORIZATION: Final = "authorization"
SCHEME: Final = "Bearer "

log = structlog.get_logger("scanline.server")

T = TypeVar("T")


class _FromFiles(Generic[T]):
    """Something read from files."""

    def __init__(
        self, what: What, paths: Sequence[Path], read: Callable[[Sequence[Path]], T], statistics: Statistics
    ) -> None:
        """Read it by a function that raises StartError where it can't be used."""
        self._what: What = what
        self._paths = paths
        self._read = read
        self._statistics = statistics
        self._seen = self._stamps()
        self._value = read(paths)

    def refresh(self) -> None:
        """Read it again if the files have changed."""
        stamps = self._stamps()
        if stamps == self._seen:
            return
        try:
            value = self._read(self._paths)
        except StartError as error:  # while it serves, no reason to end
            log.error("reload refused", what=self._what, reason=str(error))
            self._statistics.reloaded(self._what, "refused")
        else:
            if self._stamps() != stamps:  # they changed in between: what was checked may not be what was read
                return
            self._value = value
            log.info("reloaded", what=self._what)
            self._statistics.reloaded(self._what, "done")
        self._seen = stamps

    def _stamps(self) -> list[Stamp]:
        """Give what changes when a file is written or another takes its name; nothing of one that is not there."""
        stamps = []
        for path in self._paths:
            with suppress(OSError):
                stamps.append(stamp_of(path))
        return stamps


class Certificates(_FromFiles[grpc.ServerCertificateConfiguration]):
    """What a server shows its callers, and by whom theirs must be signed; new connections see what has changed.

    Attributes:
        credentials: for the port, whichever transport binds it.
    """

    def __init__(self, certificate: Path, key: Path, client_roots: Path | None, statistics: Statistics) -> None:
        """Read PEM files: a certificate with those between it and a root, and its key, which may not be encrypted.

        With roots of callers' certificates, callers must have one that is signed by one of these.

        Raises:
            StartError: they can't be used.
        """
        paths = [certificate, key, *([client_roots] if client_roots else [])]
        super().__init__("certificate", paths, _read_certificates, statistics)
        self._in_use = self._value
        self.credentials = grpc.dynamic_ssl_server_credentials(
            self._in_use,
            self._newer,  # type: ignore[arg-type] # it may give None for no change, as grpc documents; the stubs don't know
            require_client_authentication=client_roots is not None,
        )

    def _newer(self) -> grpc.ServerCertificateConfiguration | None:
        """Give what the next connections are to see if it is not in use yet; the core asks before each of them."""
        if self._value is self._in_use:
            return None
        self._in_use = self._value
        return self._in_use


def _read_certificates(paths: Sequence[Path]) -> grpc.ServerCertificateConfiguration:
    import ssl  # takes 30 ms, which only those who use it need wait for

    certificate, key, *client_roots = paths
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # the core itself would only fail the handshakes
    try:
        context.load_cert_chain(certificate, key, password="")  # or it would ask for one
        for roots in client_roots:
            context.load_verify_locations(roots)
        pair = key.read_bytes(), certificate.read_bytes()
        return grpc.ssl_server_certificate_configuration([pair], b"".join(map(Path.read_bytes, client_roots)) or None)
    except FileNotFoundError:
        missing = ", ".join(str(path) for path in paths if not path.exists())
        raise StartError(f"no TLS: there is no file {missing}") from None
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        expected = "expected a certificate and its own key, without a password, as PEM"
        raise StartError(f"no TLS with {', '.join(map(str, paths))}: {error}; {expected}") from None


class Tokens(_FromFiles[list[bytes]]):
    """The tokens with which callers are let in."""

    def __init__(self, path: Path, statistics: Statistics) -> None:
        """Read a file with a token on each line.

        Raises:
            StartError: it can't be read, there is none in it, or a line is none.
        """
        super().__init__("token", [path], _read_tokens, statistics)

    def check(self, metadata: Metadata) -> None:
        """Let a call in by its metadata.

        Raises:
            UnauthenticatedError: it brings no token, or one that we don't know.
        """
        for key, value in metadata:
            if key == AUTHORIZATION and isinstance(value, str) and value.startswith(SCHEME):
                token = value.removeprefix(SCHEME).encode()
                if any(hmac.compare_digest(token, known) for known in self._value):
                    return
                raise UnauthenticatedError("the token in the call's `authorization` is not known here")
        raise UnauthenticatedError("the call brings no token: expected the metadata `authorization: Bearer TOKEN`")


def _read_tokens(paths: Sequence[Path]) -> list[bytes]:
    [path] = paths
    try:
        return [token.encode() for token in tokens.read(path)]
    except InputError as error:
        raise StartError(str(error)) from None
