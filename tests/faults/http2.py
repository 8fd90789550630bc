"""HTTP/2 by hand, for what no client library would send (RFC 9113; header fields as literals, RFC 7541)."""

from __future__ import annotations

import struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, CONTINUATION = 0x0, 0x1, 0x3, 0x4, 0x6, 0x9
END_STREAM, END_HEADERS = 0x1, 0x4
INITIAL_WINDOW_SIZE: Final = 0x4


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    """Give a frame as it goes over the wire."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def opening(settings: bytes = b"") -> bytes:
    """Give what a client sends first."""
    return PREFACE + frame(SETTINGS, settings)


def fields(**more: str) -> bytes:
    """Give the header fields of a gRPC call of Classify, and some more."""
    head = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/scanline.v1.Digits/Classify",
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    } | {name.replace("_", "-"): value for name, value in more.items()}
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in head.items())


def call(stream: int, **more: str) -> bytes:
    """Give the frame that begins a call; its message is still to come."""
    return frame(HEADERS, fields(**more), flags=END_HEADERS, stream=stream)


def message(content: bytes) -> bytes:
    """Give a gRPC message: not compressed, length, content."""
    return struct.pack(">BI", 0, len(content)) + content


def _text(text: str) -> bytes:
    octets = text.encode()
    if len(octets) < 127:
        return bytes([len(octets)]) + octets
    rest, length = len(octets) - 127, b"\x7f"  # RFC 7541 section 5.1
    while rest > 127:
        length += bytes([rest % 128 + 128])
        rest //= 128
    return length + bytes([rest]) + octets
