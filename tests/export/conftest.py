"""What the gate holds against the files of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from export.evidence import Evidence, gather
from export.gate import blank_card
from scanline.contract import ModelCard
from train import checkpoint

SAMPLE = 40  # images: enough to see a fault, in a fraction of the time


@pytest.fixture(scope="session")
def evidence(trained: Path) -> Evidence:
    """The run's test data, cut to a sample."""
    full = gather(checkpoint.load(trained), None)
    assert full.every_row is not None
    return replace(
        full,
        images=full.images[:SAMPLE],
        rows=full.rows[:SAMPLE],
        labels=full.labels[:SAMPLE],
        expected=full.expected[:SAMPLE],
        every_row=full.every_row[:SAMPLE],
    )


@pytest.fixture(scope="session")
def card(trained: Path) -> ModelCard:
    """What the run says of itself."""
    return blank_card(checkpoint.load(trained))
