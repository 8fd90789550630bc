"""SIGTERM and Ctrl-C: the first asks for a stop in good order, a second for one at once."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType


def stop_on_signals(ask_to_stop: Callable[[], None]) -> Callable[[], None]:
    """Make SIGTERM and SIGINT ask to stop; give the function that puts the former handlers back."""

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signal module's signature
        ask_to_stop()

    former = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}

    def restore() -> None:
        for number, handler in former.items():
            signal.signal(number, handler)

    return restore
