"""How the processes of one server ask each other: a name and arguments one way, a result or an error the other."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

import structlog

from serve.errors import CallError, ModelRunError, NoAnswerError

# typing.Any both ways: pickled, which is safe between a process and what it has started itself
Pipe: TypeAlias = "Connection[Any, Any]"

log = structlog.get_logger("scanline.server")


class Asker:
    """Asks at one end of a pipe what `answer` answers at the other. Any thread may ask."""

    def __init__(self, pipe: Pipe) -> None:
        """Take our end."""
        self._pipe = pipe
        self._lock = threading.Lock()
        self._number = 0

    def ask(self, name: str, *arguments: Any, patience: float) -> Any:
        """Have a function called in the other process, and give its result.

        Args:
            name: the function's.
            arguments: what it takes.
            patience: how long to wait, in seconds.

        Raises:
            CallError: what the function raised.
            NoAnswerError: the other process is gone, or the time is over.
        """
        with self._lock:
            end = time.monotonic() + patience  # from here: what another asks has a time of its own
            self._number += 1
            try:
                # full where the other process does not read: to send would wait without an end
                room = select.poll()
                room.register(self._pipe, select.POLLOUT)
                if not room.poll(patience * 1000):
                    raise NoAnswerError(f"no room to ask {name!r} in {patience:g} s")
                self._pipe.send((self._number, name, arguments))
                while self._pipe.poll(max(end - time.monotonic(), 0)):
                    number, result = self._pipe.recv()
                    if number == self._number:  # or else it is what came too late for the one before
                        break
                else:
                    raise NoAnswerError(f"no answer to {name!r} in {patience:g} s")
            except (OSError, EOFError):
                raise NoAnswerError(f"no answer to {name!r}: the process is gone") from None
        if isinstance(result, CallError):
            raise result
        return result


def answer(pipe: Pipe, functions: Mapping[str, Callable[..., Any]]) -> None:
    """Call what the other process asks for, until it is gone."""
    while True:
        try:
            number, name, arguments = pipe.recv()
        except (OSError, EOFError):
            return
        try:
            result = functions[name](*arguments)
        except CallError as error:
            result = error
        except Exception as error:  # the asking process must not wait in vain
            log.exception("another process's request failed", request=name)
            result = ModelRunError(str(error))
        try:
            pipe.send((number, result))
        except OSError:
            return
