"""Making confidence mean what it says (Guo et al. 2017, "On calibration of modern neural networks"), and its limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

BINS: Final = 15  # as in the paper
TEMPERATURES: Final = 401  # tried between 0.1 and 10, each 1.2 % above the one before
# The shares of digits that the reject option may cost: the sum stays under the half per cent that users were promised.
NOT_A_DIGIT: Final = 0.004
LOW_CONFIDENCE: Final = 0.0002
ROUNDING: Final = 1e-5  # by which a score may differ where another library computes it in float32


@dataclass(frozen=True)
class Bin:
    """The answers whose confidence lies in one interval.

    Attributes:
        count: how many there are.
        confidence: their mean confidence, 0 to 1.
        accuracy: the share of them that is right, 0 to 1.
    """

    count: int
    confidence: float
    accuracy: float


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Find the temperature that makes the labels likeliest.

    Args:
        logits: float32 [n, 10], of images that the network was not trained on; some answers are wrong, or the
            likeliest temperature would be 0.
        labels: int64 [n].

    Returns:
        A number from 0.1 to 10, by which logits are divided.
    """
    candidates = torch.logspace(-1, 1, TEMPERATURES, dtype=torch.float64, device=logits.device)
    losses = [functional.cross_entropy(logits.double() / candidate, labels) for candidate in candidates]
    return candidates[torch.stack(losses).argmin()].item()


def reject_thresholds(logits: Tensor, temperature: float) -> dict[str, float]:
    """Find the thresholds below which answers are rejected, from digits alone.

    Args:
        logits: float32 [n, 10], of digits that the network was not trained on.
        temperature: what the logits are divided by for a confidence.

    Returns:
        ``energy``, a bound on the logarithm of the sum of the logits' exponentials, and ``confidence``, one on the
        largest probability, 0 to 1: each is passed by all but a small share of the digits, and by all where that share
        is less than one of them.
    """
    energy = logits.double().logsumexp(dim=1)
    confidence = (logits.double() / temperature).softmax(dim=1).amax(dim=1)
    return {
        "energy": _passed_by_all_but(NOT_A_DIGIT, energy),
        "confidence": _passed_by_all_but(LOW_CONFIDENCE, confidence),
    }


def _passed_by_all_but(share: float, scores: Tensor) -> float:
    """Give the score, for those of float64 [n], below which whole images lie: as many as the share allows."""
    # no quantile between two scores: of few images the lowest would always be under it
    return scores.kthvalue(int(share * len(scores)) + 1).values.item() - ROUNDING


def reliability(logits: Tensor, labels: Tensor, temperature: float) -> list[Bin]:
    """Sort answers into 15 equal intervals of confidence; empty ones are left out.

    Args:
        logits: float32 [n, 10].
        labels: int64 [n].
        temperature: what the logits are divided by.
    """
    confidence, answers = (logits.double() / temperature).softmax(dim=1).max(dim=1)
    right = (answers == labels).double()
    interval = (confidence * BINS).long().clamp(max=BINS - 1)
    chosen = [interval == number for number in range(BINS)]
    return [
        Bin(int(members.sum()), confidence[members].mean().item(), right[members].mean().item())
        for members in chosen
        if members.any()
    ]


def expected_error(bins: list[Bin]) -> float:
    """Give the mean distance of confidence from accuracy, 0 to 1, weighted by the bins' counts."""
    return sum(bin_.count * abs(bin_.confidence - bin_.accuracy) for bin_ in bins) / sum(bin_.count for bin_ in bins)
