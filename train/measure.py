"""How good a network is: every figure that the report shows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from scanline.contract import CLASSES
from train import augment, calibration, distortions, evaluate, negatives
from train.calibration import Bin
from train.model import DigitLSTM

SHOWN_MISTAKES: Final = 25
NEGATIVES: Final = 4000
NEGATIVES_SEED: Final = 2**32  # no run's seed gives its training these images
NORMAL_95: Final = 1.959964  # the standard normal distribution's 97.5 % point


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A wrong answer.

    Attributes:
        index: the image's number among those measured on.
        label: what it is.
        answer: what the network takes it for.
        confidence: the answer's probability after temperature scaling, 0 to 1.
    """

    index: int
    label: int
    answer: int
    confidence: float


@dataclass(frozen=True, kw_only=True)
class Distorted:
    """The accuracy on distorted images.

    Attributes:
        distortion: its name, such as ``rotate``.
        strength: how strong it is.
        unit: the strength's unit, such as ``degrees``.
        accuracy: the share of right answers, 0 to 1.
    """

    distortion: str
    strength: float
    unit: str
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """What was found on one set of images.

    Attributes:
        images: their number.
        accuracy: the share of right answers, 0 to 1.
        interval: the accuracy's 95 % interval (Wilson 1927).
        confusion: counts by label and answer, [10][10].
        mistakes: the wrong answers of the highest confidence, at most 25, the most confident first.
        rows: the accuracy after each of the 28 rows, or None where the network answers only at the end.
        calibration_error: the expected calibration error as trained, 0 to 1.
        calibration_error_scaled: the same after temperature scaling.
        reliability: the bins of confidence after temperature scaling.
        distorted: the accuracy under distortions.
        rejected: the share that the energy's threshold rejects, 0 to 1, of the images measured on (``digits``) and of
            each kind of made-up negatives; None where there is no threshold.
    """

    images: int
    accuracy: float
    interval: tuple[float, float]
    confusion: list[list[int]]
    mistakes: list[Mistake]
    rows: list[float] | None
    calibration_error: float
    calibration_error_scaled: float
    reliability: list[Bin]
    distorted: list[Distorted]
    rejected: dict[str, float] | None


@evaluate.exactly
def measure(
    network: DigitLSTM, images: Tensor, labels: Tensor, temperature: float, thresholds: Mapping[str, float]
) -> Measurements:
    """Measure a network.

    Args:
        network: it is left in evaluation mode.
        images: uint8 [n, 28, 28], on its device; not trained on.
        labels: int64 [n].
        temperature: what its logits are divided by.
        thresholds: those of the reject option (calibration.reject_thresholds), or none.
    """
    logits = evaluate.logits(network, images)
    accuracy = evaluate.accuracy(logits, labels)
    reliability = calibration.reliability(logits, labels, temperature)
    pairs = torch.bincount(labels * CLASSES + logits.argmax(dim=1), minlength=CLASSES**2)
    return Measurements(
        images=len(labels),
        accuracy=accuracy,
        interval=_wilson(accuracy, len(labels)),
        confusion=pairs.reshape(CLASSES, CLASSES).tolist(),
        mistakes=_mistakes(logits, labels, temperature),
        rows=_after_rows(network, images, labels),
        calibration_error=calibration.expected_error(calibration.reliability(logits, labels, 1.0)),
        calibration_error_scaled=calibration.expected_error(reliability),
        reliability=reliability,
        distorted=_distorted(network, images, labels),
        rejected=_rejected(network, images, logits, thresholds["energy"]) if thresholds else None,
    )


def _wilson(share: float, count: int) -> tuple[float, float]:
    middle = share + NORMAL_95**2 / (2 * count)
    half = NORMAL_95 * math.sqrt(share * (1 - share) / count + (NORMAL_95 / (2 * count)) ** 2)
    scale = 1 + NORMAL_95**2 / count
    return max((middle - half) / scale, 0.0), min((middle + half) / scale, 1.0)  # but for rounding within 0 and 1


def _mistakes(logits: Tensor, labels: Tensor, temperature: float) -> list[Mistake]:
    confidence, answers = (logits.double() / temperature).softmax(dim=1).max(dim=1)
    wrong = torch.nonzero(answers != labels).flatten()
    worst = wrong[confidence[wrong].argsort(descending=True)][:SHOWN_MISTAKES].tolist()
    return [
        Mistake(
            index=index,
            label=int(labels[index]),
            answer=int(answers[index]),
            confidence=confidence[index].item(),
        )
        for index in worst
    ]


def _after_rows(network: DigitLSTM, images: Tensor, labels: Tensor) -> list[float] | None:
    if not network.architecture.answers_every_row:
        return None
    return [evaluate.accuracy(answers, labels) for answers in evaluate.every_row(network, images).unbind(dim=1)]


def _distorted(network: DigitLSTM, images: Tensor, labels: Tensor) -> list[Distorted]:
    rows = augment.to_rows(images)
    return [
        Distorted(
            distortion=distort.__name__,
            strength=strength,
            unit=unit,
            accuracy=evaluate.accuracy(evaluate.logits(network, distort(rows, strength)), labels),
        )
        for distort, unit, strengths in distortions.GRID
        for strength in strengths
    ]


def _rejected(network: DigitLSTM, images: Tensor, logits: Tensor, threshold: float) -> dict[str, float]:
    drawn = torch.from_numpy(negatives.draw(NEGATIVES, images.cpu().numpy(), NEGATIVES_SEED)).to(images.device)
    below = evaluate.logits(network, drawn).double().logsumexp(dim=1) < threshold  # as precise as the threshold
    kinds = np.array([negatives.kind_of(index) for index in range(NEGATIVES)])
    shares = {kind: below[torch.from_numpy(kinds == kind)].double().mean().item() for kind in np.unique(kinds).tolist()}
    return {"digits": (logits.double().logsumexp(dim=1) < threshold).double().mean().item()} | shares
