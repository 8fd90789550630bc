"""Errors cross from one process to another, as multiprocessing and job queues carry them."""

from __future__ import annotations

import pickle

import pytest

from scanline import errors


@pytest.mark.parametrize(
    "error",
    [
        errors.InputError("no image"),
        errors.UnreachableError("nobody there", "UNAVAILABLE"),
        errors.ServiceError("refused", "INVALID_ARGUMENT"),
        errors.ClosedError("client"),
        errors.MissingExtraError("`scanline train`", "train", "torch"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_can_be_pickled(error: errors.ScanlineError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
