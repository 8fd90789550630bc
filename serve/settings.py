"""Every option of `scanline serve`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from scanline.settings import Settings
from serve import sizing
from serve.folder import Policy

MOST_INT32: Final = 2**31 - 1  # what gRPC and the messages of both protocols have room for
MOST_CALLS: Final = 1_000_000  # gRPC is told twice as many
DAY: Final = 86_400.0  # seconds
_ADDRESS: Final = re.compile(r"(\[[0-9a-fA-F:]+\]|[^:\s]+):(\d{1,5})")


def _each(default: Callable[[int], int]) -> Callable[[dict[str, Any]], int]:
    """Make a default of what each of so many workers may have."""
    return lambda given: default(given.get("workers", 1))


class ServeSettings(Settings):
    """Answer calls over gRPC with a model.

    SIGTERM or Ctrl-C stops the server once the running calls are answered; a second one stops it at once.
    """

    model: str | Path | None = Field(
        None,
        description="model file, exported folder, folder of versions 1, 2, ..., or edge or accurate, which ship; "
        "without it, edge",
    )
    model_versions: str = Field(
        "latest:1", description="which versions of a folder are served: latest:N, all, or numbers such as 3,5"
    )
    model_poll: float = Field(
        1.0, gt=0, le=3600, description="seconds between looks at a folder of versions for what is new in it"
    )
    listen: str = Field("127.0.0.1:50051", description="address to listen on, HOST:PORT; port 0 takes a free one")
    workers: int = Field(1, ge=1, le=256, description="processes that share the port")
    tls_certificate: Path | None = Field(None, description="PEM file of the certificate to serve with TLS")
    tls_key: Path | None = Field(None, description="PEM file of its private key")
    tls_client_roots: Path | None = Field(
        None, description="PEM file of the roots of callers' certificates; without it, no caller needs one"
    )
    token_file: Path | None = Field(
        None, description="file with a token on each line; calls must bring one of them, health and reflection need not"
    )
    admin: bool = Field(False, description="let callers load and unload models")
    metrics_listen: str | None = Field(
        None, description="address for /metrics, /healthz and /readyz, HOST:PORT; without it, there are none"
    )

    trace_endpoint: str | None = Field(
        None, description="OpenTelemetry collector's gRPC port, http://HOST:PORT, that is sent traces; without it, none"
    )
    trace_share: float = Field(1.0, ge=0, le=1, description="share of requests traced where the caller does not say")

    # With more, the shipped model's work no longer fits a core's cache: docs/serving.md.
    max_batch_size: int = Field(32, ge=1, le=4096, description="most images in one run of the model")
    max_queue_delay: float = Field(
        0.0, ge=0, le=10, description="seconds that a batch which is not full waits for company"
    )
    max_queue_images: int = Field(
        4096, ge=1, le=MOST_INT32, description="most images that wait; beyond it callers are told to come back"
    )
    max_images: int = Field(1024, ge=1, le=MOST_INT32, description="most images in one call")
    max_pixels: int = Field(
        default_factory=_each(sizing.max_pixels), ge=784, le=MOST_INT32, description="most pixels of an image file"
    )
    max_message_bytes: int = Field(
        default_factory=_each(sizing.max_message_bytes), ge=4096, le=MOST_INT32, description="most bytes in one message"
    )
    max_calls: int = Field(
        default_factory=_each(sizing.max_calls),
        ge=1,
        le=MOST_CALLS,
        description="most calls that are under way or wait for a thread",
    )
    threads: int = Field(64, ge=2, le=1024, description="threads for streams and for reading image files")
    max_streams: int = Field(
        default_factory=lambda given: min(sizing.max_streams(given.get("workers", 1)), given.get("threads", 64) - 1),
        ge=1,
        description="most streams that are open at once",
    )

    transport: Literal["auto", "loop", "threads"] = Field(
        "auto", description="loop: fast; threads: on gRPC's public API alone; auto: loop where this gRPC has it"
    )
    instances: int = Field(
        default_factory=_each(sizing.instances),
        ge=1,
        le=256,
        description="runs of the model at once in each process; all together one a core, if there is memory",
    )
    model_threads: int = Field(1, ge=1, le=256, description="onnxruntime's threads in one run")

    keepalive: float = Field(
        60.0, ge=1, le=DAY, description="seconds without traffic after which a connection is probed"
    )
    drain_delay: float = Field(
        0.0, ge=0, le=DAY, description="seconds between turning NOT_SERVING and refusing new calls"
    )
    grace: float = Field(
        30.0, ge=0, le=DAY, description="seconds that running calls have to finish once new ones are refused"
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")
    log_format: Literal["auto", "console", "json"] = Field("auto", description="auto: console on a terminal, else JSON")
    print_settings: bool = Field(False, description="print every setting as it stands, and end")

    @field_validator("listen", "metrics_listen")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        match = _ADDRESS.fullmatch(value or "")
        if value is not None and (match is None or int(match[2]) > 65535):
            raise ValueError("should be HOST:PORT with a port from 0 to 65535, such as 127.0.0.1:50051 or [::1]:50051")
        return value

    @field_validator("model_versions")
    @classmethod
    def _is_policy(cls, value: str) -> str:
        Policy.parse(value)
        return value

    @field_validator("trace_endpoint")
    @classmethod
    def _is_endpoint(cls, value: str | None) -> str | None:
        scheme, _, address = (value or "").partition("://")
        if value is not None and (scheme not in {"http", "https"} or _ADDRESS.fullmatch(address) is None):
            raise ValueError("should be http://HOST:PORT, or https:// with TLS, such as http://127.0.0.1:4317")
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("--tls-certificate and --tls-key go together: one is missing")
        if self.tls_client_roots is not None and self.tls_certificate is None:
            raise ValueError("--tls-client-roots needs --tls-certificate and --tls-key: without TLS nobody is asked")
        if self.listen == self.metrics_listen and not self.listen.endswith(":0"):
            raise ValueError(f"--listen and --metrics-listen are both {self.listen}: each needs a port of its own")
        if self.max_images > self.max_queue_images:
            raise ValueError(
                f"--max-images {self.max_images} is more than --max-queue-images {self.max_queue_images}: "
                f"such a call could never be queued"
            )
        if self.max_streams >= self.threads:
            raise ValueError(
                f"--max-streams {self.max_streams} leaves none of the --threads {self.threads} for reading image "
                f"files: set it lower, or --threads higher"
            )
        return self
