"""HTTP/2 as it is used against servers: each case is named for the advisory that describes it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.faults import http2
from tests.faults.server import Answers, BesetServer

CALLS = range(1, 10_000, 2)  # the stream numbers of a client


def rapid_reset() -> bytes:
    """Begin calls and take each back at once (CVE-2023-44487)."""
    cancel = struct.pack(">I", 0x8)
    return b"".join(http2.call(n) + http2.frame(http2.RST_STREAM, cancel, stream=n) for n in CALLS)


def continuation_flood() -> bytes:
    """Give headers that never end (CVE-2024-27316 and its kin)."""
    more = http2.frame(http2.CONTINUATION, http2.fields(x="y" * 10_000), stream=1)
    return http2.frame(http2.HEADERS, http2.fields(), stream=1) + more * 1000


def ping_flood() -> bytes:
    """Ask for an echo again and again (CVE-2019-9512)."""
    return http2.frame(http2.PING, bytes(8)) * 50_000


def settings_flood() -> bytes:
    """Change the settings again and again, each change to be acknowledged (CVE-2019-9515)."""
    return http2.frame(http2.SETTINGS) * 50_000


def empty_frames_flood() -> bytes:
    """Send a message that is all frames and no bytes (CVE-2019-9518)."""
    return http2.call(1) + http2.frame(http2.DATA, stream=1) * 50_000


def window_of_nothing() -> bytes:
    """Call, and leave no room for the answers (CVE-2019-9517)."""
    narrow = http2.frame(http2.SETTINGS, struct.pack(">HI", http2.INITIAL_WINDOW_SIZE, 0))
    message = http2.message(b"\x0a\x90\x06" + bytes(784))
    whole = [
        http2.call(n) + http2.frame(http2.DATA, message, flags=http2.END_STREAM, stream=n) for n in range(1, 400, 2)
    ]
    return narrow + b"".join(whole)


def long_header() -> bytes:
    """Send one header of a megabyte, in frames of the usual size."""
    content = http2.fields(x_long="y" * 2**20)
    parts = [content[start : start + 16_384] for start in range(0, len(content), 16_384)]
    frames = [
        http2.frame(
            http2.CONTINUATION if number else http2.HEADERS,
            part,
            flags=http2.END_HEADERS if part is parts[-1] else 0,
            stream=1,
        )
        for number, part in enumerate(parts)
    ]
    return b"".join(frames)


FLOODS: list[Callable[[], bytes]] = [
    rapid_reset,
    continuation_flood,
    ping_flood,
    settings_flood,
    empty_frames_flood,
    window_of_nothing,
    long_header,
]


@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.__name__)
def test_a_flood_is_weathered(server: BesetServer, answers: Answers, flood: Callable[[], bytes]) -> None:
    with server.connect() as connection:
        try:
            connection.sendall(http2.opening() + flood())
        except (ConnectionResetError, BrokenPipeError):
            pass  # hung up on, which is as well
        except TimeoutError:
            pass  # no longer read, which is as well
        answers.check(server.address)  # others are served while it lasts


def test_calls_taken_back_by_the_thousand_cancel_nobody_elses(server: BesetServer, answers: Answers) -> None:
    flood = http2.opening() + rapid_reset()
    for _ in range(30):  # gRPC's lot fell on another's call in one of five
        with server.connect() as connection:
            with suppress(ConnectionResetError, BrokenPipeError, TimeoutError):
                connection.sendall(flood)
            answers.check(server.address)
        answers.check(server.address)
