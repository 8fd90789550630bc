"""A version of the model, open, and what it makes of a batch."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scanline import reject
from scanline.contract import CLASSES, ModelCard
from scanline.model import Model, StepModel
from scanline.prediction import softmax
from serve.folder import Stamp
from serve.statistics import ModelCounter

# The columns of what `run` gives: all that the network and the card say of an image is found once a batch, not once a
# call.
LOGITS: Final = slice(0, CLASSES)
PROBABILITIES: Final = slice(CLASSES, 2 * CLASSES)
REASON: Final = 2 * CLASSES  # an index into reject.REASONS
WIDTH: Final = 2 * CLASSES + 1


@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """A version of the model.

    Attributes:
        name: its number, as requests give it.
        model: the whole network.
        steps: the same network one row at a time, or None where there is no such file.
        stamp: what its files looked like.
        counters: what counts its requests, by the model's name in the Open Inference Protocol.
        runs: what counts its runs.
    """

    name: str
    model: Model
    steps: StepModel | None
    stamp: Stamp
    counters: dict[str, ModelCounter]
    runs: ModelCounter

    @property
    def card(self) -> ModelCard:
        """What the model says of itself."""
        return self.model.card

    def run(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Give what there is to say of each image, float32 [n, WIDTH], of rows, float32 [n, 28, 28], 0 to 1."""
        started = time.monotonic()
        logits = self.model.run(rows)
        self.runs.ran(len(rows), time.monotonic() - started)
        probabilities = softmax(logits, self.card.temperature)
        answers = np.empty((len(rows), WIDTH), np.float32)
        answers[:, LOGITS] = logits
        answers[:, PROBABILITIES] = probabilities
        answers[:, REASON] = reject.codes(rows, logits, probabilities, self.card)
        return answers
