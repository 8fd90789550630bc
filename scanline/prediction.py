"""The one form in which an answer is given: by Reader, by Client, in a score file, and from the server's core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scanline.errors import InputError


class RejectReason(StrEnum):
    """Why an answer should not be trusted."""

    BLANK = "blank"
    NOT_A_DIGIT = "not_a_digit"
    SEVERAL = "several"
    LOW_CONFIDENCE = "low_confidence"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The answer for one image.

    Attributes:
        digit: 0 to 9, or None where there is an error.
        confidence: the probability of that digit after temperature scaling, 0 to 1, or None where there is an error.
        probabilities: those of the digits 0 to 9, or None where they were not asked for.
        rejected: whether the answer should not be trusted; the digit is the best guess all the same.
        reason: why it is rejected, or None.
        error: what is wrong with the image, or None.
    """

    digit: int | None = None
    confidence: float | None = None
    probabilities: tuple[float, ...] | None = None
    rejected: bool = False
    reason: RejectReason | None = None
    error: str | None = None

    @property
    def status(self) -> str:
        """``ok``, ``rejected`` or ``error``."""
        if self.error is not None:
            return "error"
        return "rejected" if self.rejected else "ok"

    def held_to(self, min_confidence: float | None) -> Prediction:
        """Give the same answer, rejected for its confidence below this bound instead of the model's own; None keeps."""
        if min_confidence is None or self.confidence is None:
            return self
        if self.rejected and self.reason is not RejectReason.LOW_CONFIDENCE:  # which may be none that is known here
            return self
        low = self.confidence < min_confidence
        return replace(self, rejected=low, reason=RejectReason.LOW_CONFIDENCE if low else None)

    def to_dict(self) -> dict[str, Any]:
        """Give the fields and the status as JSON types."""
        return {**asdict(self), "status": self.status}


def bound(min_confidence: float | None) -> float | None:
    """Give a bound for confidences back if it is one.

    Raises:
        InputError: it is not from 0 to 1.
    """
    try:
        valid = min_confidence is None or 0 <= min_confidence <= 1
    except TypeError:  # no number
        valid = False
    if not valid:
        raise InputError(f"min_confidence is from 0 to 1, or None for the model's own bound, not {min_confidence!r}")
    return min_confidence


def printable(text: str | Path) -> str:
    """Give text that UTF-8 can hold: bytes of a file's name that it can't are written out as Python does."""
    return str(text).encode("utf-8", "backslashreplace").decode("utf-8")


def softmax(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Turn logits, float32 [n, 10], into probabilities of the same shape, after division by the temperature."""
    scaled = logits / np.float32(temperature)
    exponents = np.exp(scaled - np.maximum.reduce(scaled, axis=1, keepdims=True))
    result: NDArray[np.float32] = exponents / np.add.reduce(exponents, axis=1, keepdims=True)
    return result


def predictions(
    shares: NDArray[np.float32], reasons: Sequence[RejectReason | None], *, probabilities: bool
) -> list[Prediction]:
    """Give a prediction for each row of probabilities, float32 [n, 10], and the reason to reject it, or None."""
    rows = shares.tolist()
    confidences = [max(row) for row in rows]
    return [
        Prediction(
            digit=row.index(confidence),
            confidence=confidence,
            probabilities=tuple(row) if probabilities else None,
            rejected=reason is not None,
            reason=reason,
        )
        for row, confidence, reason in zip(rows, confidences, reasons, strict=True)
    ]
