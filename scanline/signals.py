"""Ctrl-C, and SIGTERM, with which containers are stopped: both end a command in good order, a second one at once."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def end_in_good_order() -> None:
    """Let the process's first signal raise `ending`, and its second end the process as if nobody had asked."""
    for number in SIGNALS:
        signal.signal(number, _end)


def ending(number: int) -> BaseException:
    """Give what a signal raises: KeyboardInterrupt, or SystemExit with a shell's code for a process that it ended."""
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)


def _end(number: int, _: FrameType | None) -> None:
    for ours in SIGNALS:
        signal.signal(ours, signal.SIG_DFL)
    raise ending(number)
