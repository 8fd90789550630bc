"""Ctrl-C, and SIGTERM, with which containers are stopped: who acts on them, and what they end a command with."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
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


def handled_aside_by(act: Callable[[], object]) -> Callable[[], None]:
    """Have each of both signals call a function in a thread of its own; give the function that ends this.

    What takes locks is called like that. A handler interrupts the main thread at any step, as where it holds such a
    lock, and would wait for it in vain.
    """
    came: SimpleQueue[int | None] = SimpleQueue()  # whose `put` may interrupt anything, itself included

    def look_on() -> None:
        while came.get() is not None:
            act()

    restore = handled_by(came.put)
    threading.Thread(target=look_on, name="signals", daemon=True).start()

    def end() -> None:
        restore()
        came.put(None)

    return end


@contextmanager
def deferred() -> Iterator[list[int]]:
    """Give a list to which the first signal adds its number; a second one does what it did before.

    So the piece of work in progress is finished first, and what is saved is whole.
    """
    asked: list[int] = []

    def note(number: int) -> None:
        asked.append(number)
        restore()

    restore = handled_by(note)
    try:
        yield asked
    finally:
        restore()


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
