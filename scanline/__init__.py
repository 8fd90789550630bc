"""Reads handwritten digits: in this process with `Reader`, from servers with `Client` or `AsyncClient`.

Importing the package loads nothing but the standard library; numpy, onnxruntime, grpc and Pillow come with the first
name that needs them.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from scanline.errors import (
    AccessError,
    BusyError,
    ClosedError,
    InputError,
    ModelError,
    ScanlineError,
    ServiceError,
    SlowError,
    UnreachableError,
)

if TYPE_CHECKING:
    from scanline.client import AsyncClient, Client, Tls
    from scanline.contract import ModelCard, ServedModel
    from scanline.prediction import Prediction, RejectReason
    from scanline.reader import Reader

# onnxruntime's packages for Linux (from 1.29) report to their maker unless told not to before they are loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"

__all__ = [
    "AccessError",
    "AsyncClient",
    "BusyError",
    "Client",
    "ClosedError",
    "InputError",
    "ModelCard",
    "ModelError",
    "Prediction",
    "Reader",
    "RejectReason",
    "ScanlineError",
    "ServedModel",
    "ServiceError",
    "SlowError",
    "Tls",
    "UnreachableError",
    "__version__",
]

_LATE = {
    "AsyncClient": "scanline.client",
    "Client": "scanline.client",
    "ModelCard": "scanline.contract",
    "Prediction": "scanline.prediction",
    "Reader": "scanline.reader",
    "RejectReason": "scanline.prediction",
    "ServedModel": "scanline.contract",
    "Tls": "scanline.client",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATE})


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATE[name]), name)
