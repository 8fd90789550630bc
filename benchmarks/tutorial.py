"""The network without what makes it faster, for the benchmarks to hold ours against."""

from __future__ import annotations

from train.model import Architecture, DigitLSTM


class TutorialNetwork(DigitLSTM):
    """The same network, computed as it is written down."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        self._computed = []
