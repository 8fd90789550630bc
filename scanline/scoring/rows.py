"""The rows of a table: what is said of each file, and in which columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from scanline.contract import CLASSES
from scanline.prediction import Prediction, printable
from scanline.scoring.entry import Entry

# A spreadsheet takes a cell that begins with one of these for a formula.
FORMULA_STARTS: Final = ("=", "+", "-", "@")
SHARES: Final = [f"p{digit}" for digit in range(CLASSES)]
# Shares are given to this many places, which are all that float32 has.
PLACES: Final = 6

Row = tuple[str | int | float | None, ...]


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a table, which depend on what was asked for.

    Attributes:
        labels: whether there is a column with the digits that a manifest gives.
        probabilities: whether there are columns ``p0`` to ``p9``, the probabilities of the digits.
    """

    labels: bool = False
    probabilities: bool = False

    def names(self) -> list[str]:
        """Name the columns, in order."""
        label = ["label"] if self.labels else []
        shares = SHARES if self.probabilities else []
        return ["path", *label, "digit", "confidence", "status", "reason", "error", "model", *shares]

    def row(self, entry: Entry, prediction: Prediction, model: str) -> Row:
        """Give the values of a row.

        A path that a spreadsheet would take for a formula begins with ``./``. ``reason`` says why an answer is
        rejected. The model is named where it gave an answer. Shares are 0 to 1, rounded to 6 places.
        """
        name = printable(entry.name)
        label = (entry.label,) if self.labels else ()
        shares = prediction.probabilities or (None,) * CLASSES if self.probabilities else ()
        return (
            f"./{name}" if name.startswith(FORMULA_STARTS) else name,
            *label,
            prediction.digit,
            _rounded(prediction.confidence),
            prediction.status,
            prediction.reason,
            None if prediction.error is None else printable(prediction.error),
            model if prediction.error is None else None,
            *map(_rounded, shares),
        )


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, PLACES)
