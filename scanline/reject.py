"""When an answer should not be trusted: what 28x28 pixels and the network's logits show.

A picture file shows more, and `scanline.preprocess` looks at it before it is brought to 28x28; a reason found there
comes first. The thresholds of what is measured on logits depend on the model and live in its card, under the names
below; one that the card lacks rejects nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scanline.contract import ModelCard
from scanline.prediction import RejectReason

# Keys of the card's `reject`. An image whose measure is below its threshold is rejected.
ENERGY: Final = "energy"
CONFIDENCE: Final = "confidence"
# Without a pixel this dark there is no ink: 64 of 255.
FAINTEST: Final = 64 / 255
# What `codes` gives are indices into these.
REASONS: Final[tuple[RejectReason | None, ...]] = (None, *RejectReason)


def reasons(
    rows: NDArray[np.float32],
    logits: NDArray[np.float32],
    probabilities: NDArray[np.float32],
    card: ModelCard,
    own: Sequence[RejectReason | None] = (),
) -> list[RejectReason | None]:
    """Say of each image why its answer should not be trusted, or None.

    Args:
        rows: float32 [n, 28, 28], 0 background to 1 ink, what the network saw.
        logits: float32 [n, 10], what it made of them.
        probabilities: float32 [n, 10], those of the logits after temperature scaling.
        card: the model's.
        own: what `preprocess.steps` found in the picture of each image, if they were files; this comes first.
    """
    found = [REASONS[code] for code in codes(rows, logits, probabilities, card).tolist()]
    return [first or other for first, other in zip(own, found, strict=True)] if own else found


def codes(
    rows: NDArray[np.float32], logits: NDArray[np.float32], probabilities: NDArray[np.float32], card: ModelCard
) -> NDArray[np.uint8]:
    """Say the same of images that were no files, as indices into REASONS, uint8 [n]. The arguments are as above."""
    result = np.zeros(len(rows), np.uint8)  # where several reasons hold, the last of these stands
    if CONFIDENCE in card.reject:
        confidences = np.maximum.reduce(probabilities, axis=1).astype(np.float64)  # as exact as a Prediction's
        result[confidences < card.reject[CONFIDENCE]] = REASONS.index(RejectReason.LOW_CONFIDENCE)
    if ENERGY in card.reject:
        result[energy(logits) < card.reject[ENERGY]] = REASONS.index(RejectReason.NOT_A_DIGIT)
    result[np.maximum.reduce(rows, axis=(1, 2)) < FAINTEST] = REASONS.index(RejectReason.BLANK)
    return result


def energy(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give the logarithm of the sum of the exponentials of logits, float32 [n, 10]: large for what is like a digit.

    It is the negative free energy at temperature 1 (Liu et al. 2020, Energy-based out-of-distribution detection).
    """
    largest = np.maximum.reduce(logits, axis=1, keepdims=True)
    sums = np.add.reduce(np.exp(logits - largest), axis=1)
    result: NDArray[np.float32] = largest[:, 0] + np.log(sums)
    return result
