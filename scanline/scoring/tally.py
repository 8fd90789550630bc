"""What a run amounts to: how many files of each status, the first errors, and how often the digits were the labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from scanline.contract import CLASSES
from scanline.prediction import Prediction, printable
from scanline.scoring.entry import Entry

# What is wrong is often wrong with many files, and their rows say it of each.
FIRST_ERRORS: Final = 3

Confusion = list[list[int]]


def _empty() -> Confusion:
    return [[0] * CLASSES for _ in range(CLASSES)]


@dataclass(slots=True)
class Tally:
    """Counts of a run so far; all of them go into JSON and back.

    Attributes:
        statuses: how many files are ``ok``, ``rejected``, ``error``.
        errors: the first files that could not be read, with the reason, a line each.
        confusion: of the labelled files that were read, how many show digit r and were read as digit c, at [r][c].
        accepted: the same without those that are ``rejected``.
        unread: how many labelled files could not be read.
    """

    statuses: dict[str, int] = field(default_factory=lambda: {"ok": 0, "rejected": 0, "error": 0})
    errors: list[str] = field(default_factory=list)
    confusion: Confusion = field(default_factory=_empty)
    accepted: Confusion = field(default_factory=_empty)
    unread: int = 0

    def add(self, entries: Iterable[Entry], predictions: Iterable[Prediction]) -> None:
        """Count answers."""
        for entry, prediction in zip(entries, predictions, strict=True):
            self.statuses[prediction.status] += 1
            if prediction.error is not None and len(self.errors) < FIRST_ERRORS:
                self.errors.append(printable(f"{entry.name}: {prediction.error}"))
            if entry.label is None:
                continue
            if prediction.digit is None:
                self.unread += 1
            else:
                self.confusion[entry.label][prediction.digit] += 1
                self.accepted[entry.label][prediction.digit] += not prediction.rejected


def accuracy(confusion: Confusion) -> str:
    """Say how many of the answers are right, in words."""
    right, number = sum(confusion[digit][digit] for digit in range(CLASSES)), sum(map(sum, confusion))
    return f"{right:,} of {number:,} right" + (f", {right / number:.2%}" if number else "")
