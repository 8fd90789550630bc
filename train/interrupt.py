"""Ctrl-C or SIGTERM while training: the step in progress is finished first, so that what is saved is whole."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from scanline.signals import SIGNALS


@contextmanager
def deferred() -> Iterator[list[int]]:
    """Give a list to which the first signal adds its number; a second one does what it did before."""
    asked: list[int] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _: FrameType | None) -> None:
        asked.append(number)
        restore()

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield asked
    finally:
        restore()
