"""Ctrl-C, and SIGTERM, with which containers are stopped: who acts on them, and what they end a command with."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def handled_by(act: Callable[[int], None]) -> Callable[[], None]:
    """Let both signals call a function with their number; give the function that puts the former handlers back."""

    def handle(number: int, _: FrameType | None) -> None:
        act(number)

    former = {number: signal.signal(number, handle) for number in SIGNALS}

    def restore() -> None:
        for number, handler in former.items():
            signal.signal(number, handler)

    return restore


def end_in_good_order() -> None:
    """Let the process's first signal raise `ending`, and its second end the process as if nobody had asked."""
    handled_by(_end)


def ending(number: int) -> BaseException:
    """Give what a signal raises: KeyboardInterrupt, or SystemExit with a shell's code for a process that it ended."""
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)


def _end(number: int) -> None:
    for ours in SIGNALS:
        signal.signal(ours, signal.SIG_DFL)
    raise ending(number)
