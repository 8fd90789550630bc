"""Where a command's answers come from: a model in this process, or running servers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from pydantic import Field, field_validator, model_validator

from scanline import tokens
from scanline.contract import MAX_TIMEOUT
from scanline.errors import InputError, UsageError
from scanline.settings import Settings, given

if TYPE_CHECKING:
    from scanline.client import Client
    from scanline.reader import Reader

# The options that say how to call a server.
CALL_OPTIONS: Final = ("timeout", "tls", "tls_roots", "tls_certificate", "tls_key", "token_file")


class EngineSettings(Settings):
    """The options of the commands that read images."""

    model: str | Path | None = Field(  # text from outside: a Path would make the name accurate of ./accurate
        None, description="model file, folder of exported files, or edge or accurate, which ship; by default edge"
    )
    server: str | None = Field(
        None, description="HOST:PORT[,HOST:PORT...] of running servers that read them instead, in turn"
    )
    min_confidence: float | None = Field(
        None, ge=0, le=1, description="answers of less confidence are rejected; by default the model's card says"
    )
    timeout: float = Field(
        30.0, gt=0, le=MAX_TIMEOUT, description="seconds that a call to a server may take, retries included"
    )
    tls: bool = Field(False, description="encrypt, and trust the certificates that public authorities vouch for")
    tls_roots: Path | None = Field(None, description="encrypt, and trust the certificates that those in a PEM file do")
    tls_certificate: Path | None = Field(None, description="PEM file of this client's own certificate, for mutual TLS")
    tls_key: Path | None = Field(None, description="PEM file of its private key")
    token_file: Path | None = Field(None, description="file that holds the bearer token which the servers want")

    @field_validator("server")
    @classmethod
    def _is_target(cls, value: str | None) -> str | None:
        from scanline.client.connection import addresses_of

        if value is not None:
            try:
                addresses_of(value)
            except InputError:
                raise ValueError("should be HOST:PORT[,HOST:PORT...], such as 127.0.0.1:50051") from None
        return value

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.server is not None and self.model is not None:
            both = given(self, ("model", "server"))
            raise ValueError(f"{both} exclude each other: a server answers with its own model")
        calling = [name for name in CALL_OPTIONS if name in self.model_fields_set and getattr(self, name)]
        if self.server is None and calling:
            raise ValueError(f"{given(self, calling)} without --server: no server is named to be called that way")
        return self


def engine(settings: EngineSettings) -> Reader | Client:
    """Give a client of the servers where some are named, else a reader of the model; only that one's packages load.

    Raises:
        UsageError: the token can't be used.
        InputError: a certificate can't be used.
        ModelError: the model can't be used.
    """
    if settings.server is None:
        from scanline.reader import Reader

        return Reader(settings.model, min_confidence=settings.min_confidence)

    from scanline.client import Client, Tls

    encrypt = settings.tls or any((settings.tls_roots, settings.tls_certificate, settings.tls_key))
    return Client(
        settings.server,
        timeout=settings.timeout,
        tls=Tls(roots=settings.tls_roots, certificate=settings.tls_certificate, key=settings.tls_key)
        if encrypt
        else None,
        token=None if settings.token_file is None else _token(settings.token_file),
        min_confidence=settings.min_confidence,
    )


def _token(file: Path) -> str:
    try:
        token, *others = tokens.read(file)
    except InputError as error:
        raise UsageError(f"--token-file: {error}") from None
    if others:
        raise UsageError(
            f"--token-file {file} holds {1 + len(others)} tokens; a client sends one, so it should hold that one"
        )
    return token
