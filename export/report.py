"""`validation.html`: what the gate found, in one file with its pictures inside."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.figure import Figure

from export.evidence import Evidence
from export.gate import Outcome

CHANGED_SHOWN: Final = 20  # digits of each file
SMALLEST_DIFFERENCE: Final = 1e-9  # where the histograms begin: 0 has no place on their axis
STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 } td, th { border: 1px solid #ccc; padding: .2rem .6rem }
th { text-align: left } img { max-width: 100% }
"""

Times = Mapping[str, Mapping[int, float]]


def write(path: Path, outcomes: Sequence[Outcome], times: Times, evidence: Evidence) -> None:
    """Write the report.

    Args:
        path: the file.
        outcomes: of every candidate, failed ones included.
        times: seconds a batch, by file name and batch size (export.latency).
        evidence: what they were measured against.
    """
    card = outcomes[0].card
    origin = f"{card.architecture}, trained on {card.dataset}"
    of_onnx = [outcome for outcome in outcomes if outcome.logits is not None and outcome.candidate.is_onnx]
    parts = [
        f"<h1>Validation of {escape(card.name)}</h1>",
        f"<p>{escape(origin)}. PyTorch reads {evidence.accuracy:.2%} of {len(evidence.rows):,} test images right.</p>",
        "<h2>Files</h2>",
        _files(outcomes, times),
        "<h2>How far the logits are from PyTorch's</h2>",
        _picture(_differences(of_onnx, evidence), "histograms of the differences"),
        "<h2>Digits that changed</h2>",
        *(_changed(outcome, evidence) for outcome in of_onnx),
        "<h2>Speed</h2>",
        _picture(_speed(times), "time an image, by batch size"),
        "<h2>Checks</h2>",
        *(_checks(outcome) for outcome in outcomes),
    ]
    head = f"<!doctype html><meta charset=utf-8><title>Validation of {escape(card.name)}</title><style>{STYLE}</style>"
    path.write_text("\n".join([head, *parts]), encoding="utf-8")


def _files(outcomes: Sequence[Outcome], times: Times) -> str:
    rows = []
    for outcome in outcomes:
        name, figures = outcome.candidate.name, outcome.card.verification
        if outcome.content is None:
            rows.append([name, "left out"])
            continue
        rows.append(
            [
                name,
                f"{len(outcome.content):,}",
                f"{figures['accuracy']:.2%}",
                f"{figures['largest_difference']:.2g}",
                f"{figures['changed_digits']}",
                f"{times[name][1] * 1e6:.0f} µs",
                outcome.card.instruction_sets,
            ]
        )
    header = ["file", "bytes", "accuracy", "largest difference", "changed digits", "one image", "CPUs"]
    return _table(header, rows)


def _checks(outcome: Outcome) -> str:
    rows = [[check.name, "passed" if check.passed else "failed", check.detail] for check in outcome.checks]
    return f"<h3>{escape(outcome.candidate.name)}</h3>" + _table(["check", "", "what was found"], rows)


def _differences(outcomes: Sequence[Outcome], evidence: Evidence) -> Figure:
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    axes = figure.subplots()
    bins = np.geomspace(SMALLEST_DIFFERENCE, 10, 80)
    for outcome in outcomes:
        assert outcome.logits is not None
        off = np.nan_to_num(np.abs(outcome.logits - evidence.expected), nan=np.inf).clip(bins[0], bins[-1])
        axes.hist(off.ravel(), bins.tolist(), histtype="step", label=outcome.candidate.name)
    axes.set(xscale="log", yscale="log", xlabel="difference of a logit", ylabel="logits")
    figure.legend(loc="outside right upper")
    return figure


def _changed(outcome: Outcome, evidence: Evidence) -> str:
    assert outcome.logits is not None
    found, right = outcome.logits.argmax(axis=1), evidence.expected.argmax(axis=1)
    changed = np.flatnonzero(found != right)
    title = f"<h3>{escape(outcome.candidate.name)}: {len(changed)} of {len(found):,}</h3>"
    if not len(changed):
        return title
    shown = changed[:CHANGED_SHOWN]
    figure = Figure(figsize=(9, 1.3 * -(-len(shown) // 10) + 0.2), layout="constrained")
    grid = figure.subplots(-(-len(shown) // 10), 10, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, index in zip(grid, shown, strict=False):
        axes.imshow(evidence.images[index], cmap="gray_r")
        axes.set_title(f"{right[index]} → {found[index]} ({evidence.labels[index]})", fontsize=8)
    note = "<p>PyTorch's digit → this file's digit (the label).</p>"
    return title + note + _picture(figure, "the digits that changed")


def _speed(times: Times) -> Figure:
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    axes = figure.subplots()
    for name, by_size in times.items():
        sizes = list(by_size)
        axes.plot(sizes, [by_size[size] / size * 1e6 for size in sizes], marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="images in a batch", ylabel="µs an image, one thread")
    figure.legend(loc="outside right upper")
    return figure


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(value)}</td>" for value in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def _picture(figure: Figure, alternative: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img alt="{escape(alternative)}" src="data:image/png;base64,{data}">'
