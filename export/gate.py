"""The gate: runs a candidate's checks, and puts the figures that they found into its card."""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from export.candidates import Candidate
from export.checks import CheckFunction, Subject, of_file, of_graph
from export.evidence import Evidence
from scanline import __version__, verify
from scanline.contract import ModelCard
from scanline.errors import ModelError
from scanline.verify import INT8, Check, Difference
from train.checkpoint import Checkpoint


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a candidate.

    Attributes:
        candidate: the file.
        checks: the outcome of each check, failed ones included.
        content: the file's bytes, with the figures in its card; None where a check failed.
        card: the card with the figures.
        logits: what it gives for the test images, float32 [n, 10]; None where it can't be run.
    """

    candidate: Candidate
    checks: tuple[Check, ...]
    content: bytes | None
    card: ModelCard
    logits: NDArray[np.float32] | None

    @property
    def passed(self) -> bool:
        """Whether the file may be written."""
        return self.content is not None


def blank_card(checkpoint: Checkpoint) -> ModelCard:
    """Fill in what a run says of itself; the gate adds each file's own."""
    config, figures = checkpoint.config, checkpoint.figures
    return ModelCard(
        name=config.preset,
        architecture=config.architecture.name,
        parameters=config.parameters,
        dataset=config.dataset,
        dataset_sha256=config.dataset_sha256,
        seed=config.seed,
        source_revision=config.source_revision,
        accuracy=figures.accuracy,
        accuracy_method=figures.accuracy_method,
        temperature=figures.temperature,
        reject=figures.reject,
        verification={},
        producer={
            "scanline": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
    )


def examine(candidate: Candidate, run_card: ModelCard, evidence: Evidence) -> Outcome:
    """Run every check of a candidate.

    Args:
        candidate: the file.
        run_card: what its run says of itself.
        evidence: the run's test data and what PyTorch computes for them.
    """
    card = replace(run_card, precision=candidate.precision, instruction_sets=candidate.instruction_sets)
    try:
        content = candidate.content(card)
        logits = verify.in_batches(verify.open_run(content, Path(candidate.name)), evidence.rows, 1)
    except ModelError as error:
        failure = Check("loads", False, str(error))
        return Outcome(candidate=candidate, checks=(failure,), content=None, card=card, logits=None)
    checks = _run(of_graph(candidate), Subject(candidate, card, content, logits), evidence)
    card = _with_figures(card, checks, logits, evidence)
    written = Subject(candidate, card, candidate.content(card), logits)
    checks += _run(of_file(candidate), written, evidence)
    passed = all(check.passed for check in checks)
    return Outcome(
        candidate=candidate, checks=checks, content=written.content if passed else None, card=card, logits=logits
    )


def _run(checks: dict[str, CheckFunction], subject: Subject, evidence: Evidence) -> tuple[Check, ...]:
    return tuple(Check.of(name, partial(check, subject, evidence)) for name, check in checks.items())


def _with_figures(
    card: ModelCard, checks: tuple[Check, ...], logits: NDArray[np.float32], evidence: Evidence
) -> ModelCard:
    difference = Difference.between(evidence.expected, logits)
    accuracy = float(np.mean(logits.argmax(axis=1) == evidence.labels))
    card = replace(
        card,
        verification={
            "checks": [check.name for check in checks],
            "images": len(evidence.rows),
            "largest_difference": float(f"{difference.largest:.3g}"),
            "changed_digits": difference.changed,
            "accuracy": round(accuracy, 6),
            "accuracy_in_pytorch": round(evidence.accuracy, 6),
        },
    )
    if card.precision != INT8:
        return card  # it gives PyTorch's digits, so the run's own figure holds
    return replace(
        card, accuracy=accuracy, accuracy_method=f"{len(logits)} test images of {card.dataset}, by the export"
    )
