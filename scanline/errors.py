"""Every error that Scanline raises on purpose.

    ScanlineError                 the work could not be done                        exit 1
    ├── InputError                an image, a list of images or a file of data is unusable
    ├── ModelError                a model file is missing, damaged, or its card disagrees
    ├── GateError                 a check refused to let a result out
    ├── DivergenceError           a training run's loss is no longer a finite number
    ├── ServiceError              a server refused a call or could not be reached
    │   ├── UnreachableError      no server answers there
    │   ├── SlowError             the deadline passed
    │   ├── BusyError             the server was full until the deadline
    │   └── AccessError           the token is missing or wrong
    ├── ClosedError               a client or a reader was used after it was closed
    ├── UsageError                wrong use or configuration                        exit 2
    │   └── MissingExtraError     a command needs an extra that is not installed
    └── StartError                the server could not start                        exit 3

A message is one sentence or two that name what is wrong and what would be right; it is shown to people as it is, on
a terminal, in a log line and in a gRPC status.
"""

from __future__ import annotations

from typing import Any


class ScanlineError(Exception):
    """The base of all of them; catching it catches every error that Scanline raises on purpose."""

    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        """Be the same error in another process, whatever `__init__` takes."""
        return type(self).__new__, (type(self), *self.args), self.__dict__


class InputError(ScanlineError):
    """An image, a list of images or a file of data can't be used."""


class ModelError(ScanlineError):
    """A model file is missing, damaged, or says of itself something that this release can't serve."""


class GateError(ScanlineError):
    """A check failed, so the file that it guards was not written."""


class DivergenceError(ScanlineError):
    """A training run's loss is no longer a finite number."""


class ServiceError(ScanlineError):
    """A server refused a call or could not be reached.

    Attributes:
        code: the name of the gRPC status, such as ``"INVALID_ARGUMENT"``.
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class UnreachableError(ServiceError):
    """No server answers at the address, or the connection broke and did not come back before the deadline."""


class SlowError(ServiceError):
    """The deadline passed before the answer was there."""


class BusyError(ServiceError):
    """The server was full until the deadline; the same call will do later."""


class AccessError(ServiceError):
    """The server wants a token, or another one than was given."""


class ClosedError(ScanlineError):
    """A client or a reader was used after it was closed."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the {what} is closed; make another one, or close it later")


class UsageError(ScanlineError):
    """A command was given options that it can't follow."""

    exit_code = 2


class MissingExtraError(UsageError):
    """A command needs packages that the base install leaves out."""

    def __init__(self, what: str, extra: str, module: str) -> None:
        super().__init__(
            f"{what} needs {module}, which is not installed: in a checkout of Scanline, pip install '.[{extra}]'"
        )


class StartError(ScanlineError):
    """The server could not start."""

    exit_code = 3
