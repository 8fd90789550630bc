"""How a caller encrypts. Apart from the client, so that `scanline health` loads nothing of the messages."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from scanline.errors import InputError

# How gRPC's TLS library says that it does not trust a server's certificate.
DISTRUST: Final = "CERTIFICATE_VERIFY_FAILED"
# That the certificate is another server's, and that no TLS came back at all.
OTHER_NAME: Final = "Hostname Verification Check failed"
NO_TLS: Final = "WRONG_VERSION_NUMBER"
# That what came back is no gRPC: without TLS, and with it.
NO_GRPC: Final = ("Failed parsing HTTP/2", "missing selected ALPN property")


@dataclass(frozen=True, kw_only=True)
class Tls:
    """How to encrypt, and how to know each other. All files are PEM.

    Attributes:
        roots: the certificates that vouch for the server's; None for the public ones that come with gRPC.
        certificate: this client's own certificate with its chain, where the server asks for one (mutual TLS).
        key: the private key of that certificate.
    """

    roots: str | Path | None = None
    certificate: str | Path | None = None
    key: str | Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files.

        Raises:
            InputError: a file can't be read or holds something else, or of certificate and key only one is given.
        """
        if (self.certificate is None) != (self.key is None):
            raise InputError("a certificate needs its key and a key its certificate: give both or neither")
        # gRPC takes any file and fails at the first call; Python's own TLS says at once what is wrong
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            if self.roots is not None:
                context.load_verify_locations(self.roots)
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key, password=_refuse_password)
            files = [
                None if file is None else Path(file).read_bytes() for file in (self.roots, self.key, self.certificate)
            ]
        except OSError as error:  # ssl.SSLError is one
            names = ", ".join(str(file) for file in (self.roots, self.certificate, self.key) if file is not None)
            raise InputError(f"can't use {names} for TLS: {error.strerror or error}") from None
        return grpc.ssl_channel_credentials(*files)


def _refuse_password() -> str:
    raise InputError("the key is locked with a password: give it without one")


def question(details: str, *, encrypted: bool, proxy: str | None = None) -> str:
    """Give what to look at where there is no connection.

    Args:
        details: what gRPC says of it.
        encrypted: whether TLS was tried.
        proxy: the environment variable that names a proxy which calls may have gone through.
    """
    if DISTRUST in details:
        return "its certificate is not trusted here: give its authority's, a PEM file, as --tls-roots or Tls(roots=...)"
    if OTHER_NAME in details:
        return "its certificate is for other names than the one that it was called by"
    if NO_TLS in details:
        return "it answers without TLS: leave --tls-roots and the like, or tls=, out"
    asks = "(--tls-roots CA.PEM or Tls(roots=...) asks with it)"
    if any(words in details for words in NO_GRPC):
        return "what answers there does not speak gRPC" + ("" if encrypted else f", or only with TLS {asks}")
    through = f"; calls go through the proxy in {proxy}, unless no_proxy names the server" if proxy else ""
    if encrypted:
        wanted = "a certificate of its callers (--tls-certificate and --tls-key, or Tls(certificate=..., key=...))"
        return f"is `scanline serve` running there, with TLS? It may want {wanted}{through}"
    return f"is `scanline serve` running there, without TLS? {asks}{through}"
