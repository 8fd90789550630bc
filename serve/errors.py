"""What the service core refuses, with no word of gRPC; serve/calls.py gives each its status code.

Each carries a message for the caller, but for ModelRunError, whose message is for the log alone.
"""

from __future__ import annotations

from scanline.errors import ScanlineError


class CallError(ScanlineError):
    """A call can't be answered."""


class BadRequestError(CallError):
    """A call asks for something that makes no sense."""


class UnauthenticatedError(CallError):
    """A call brings no token that is known here."""


class DisallowedError(CallError):
    """A call asks for something that is switched off."""


class NotFoundError(CallError):
    """A call asks for a model, or a version of it, that does not exist."""


class NotReadyError(CallError):
    """A call asks for a model, or a version of it, that exists and is not served."""


class NotAvailableError(CallError):
    """The model that is loaded, or the server as it is set, can't do what a call asks for."""


class NoAnswerError(CallError):
    """Another process of the server is gone, or does not answer in time."""


class FullError(CallError):
    """The server holds as much work as it may.

    Attributes:
        retry_after: when to try again, in seconds.
    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ExpiredError(CallError):
    """A call's deadline has passed."""


class CancelledError(CallError):
    """A call's caller has gone."""


class StoppingError(CallError):
    """The server is stopping."""


class ModelRunError(CallError):
    """The model failed on a call's images."""
