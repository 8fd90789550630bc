"""The one place where what the core refuses becomes a gRPC status.

The codes are those of gRPC's own guide (https://grpc.io/docs/guides/status-codes/): a full queue is RESOURCE_EXHAUSTED
with the pushback that gRPC's retry policy honours (gRFC A6), a stopping server UNAVAILABLE.
"""

from __future__ import annotations

from typing import Final

import grpc

from serve import errors

CODES: Final[dict[type[errors.CallError], grpc.StatusCode]] = {
    errors.BadRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    errors.DisallowedError: grpc.StatusCode.PERMISSION_DENIED,
    errors.NotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.NotReadyError: grpc.StatusCode.UNAVAILABLE,
    errors.NotAvailableError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NoAnswerError: grpc.StatusCode.UNAVAILABLE,
    errors.FullError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.ExpiredError: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.CancelledError: grpc.StatusCode.CANCELLED,
    errors.StoppingError: grpc.StatusCode.UNAVAILABLE,
}

Metadata = tuple[tuple[str, str | bytes], ...]


def of(error: Exception, request_id: str) -> tuple[grpc.StatusCode, str, Metadata]:
    """Give the status code, the message and the trailing metadata with which a call that failed is answered.

    Args:
        error: what the call's handler raised.
        request_id: named where the message may say nothing else, so that the log line can be found.
    """
    code = CODES.get(type(error)) if isinstance(error, errors.CallError) else None
    if code is None:
        return grpc.StatusCode.INTERNAL, f"internal error; the server's log has it under request id {request_id}", ()
    if isinstance(error, errors.FullError):
        return code, str(error), (("grpc-retry-pushback-ms", str(round(error.retry_after * 1000))),)
    return code, str(error), ()
