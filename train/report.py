"""The report of a run: report.json for programs, report.html for people, one file with its pictures inside."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from scanline.contract import CLASSES, ROWS
from scanline.writing import replacing
from train.checkpoint import Config, Figures
from train.measure import Distorted, Measurements, Mistake

HTML: Final = "report.html"
JSON: Final = "report.json"
MISTAKES_PER_LINE: Final = 5
IN_SAMPLE: Final = "found on the very images that temperature and thresholds were chosen by"  # in a trial
STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "img{max-width:100%}table{border-collapse:collapse}td,th{padding:.15rem .8rem;text-align:left;"
    "border-bottom:1px solid #ddd;vertical-align:top}"
)


def write(
    run: Path,
    *,
    config: Config,
    figures: Figures,
    measurements: Measurements,
    history: Sequence[Mapping[str, float]],
    images: NDArray[np.uint8],
) -> None:
    """Write both files.

    Args:
        run: the folder they go to.
        config: how the run was made.
        figures: its figures of record.
        measurements: what was measured.
        history: the lines of metrics.jsonl.
        images: uint8 [n, 28, 28], those that were measured on.
    """
    values = {
        "config": asdict(config),
        "figures": asdict(figures),
        "measurements": asdict(measurements),
        "history": list(history),
    }
    with replacing(run / JSON) as path:
        path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    with replacing(run / HTML) as path:
        path.write_text(_page(config, figures, measurements, history, images), encoding="utf-8")


def _page(
    config: Config,
    figures: Figures,
    measured: Measurements,
    history: Sequence[Mapping[str, float]],
    images: NDArray[np.uint8],
) -> str:
    low, high = measured.interval
    wrong = measured.images - sum(measured.confusion[digit][digit] for digit in range(CLASSES))
    summary = (
        f"{wrong:,} of {measured.images:,} images are misread; the 95&nbsp;% interval of the accuracy is {low:.2%} to "
        f"{high:.2%}. It was {html.escape(figures.accuracy_method)}."
    )
    in_sample = f"In this trial, what is said of digits here was {IN_SAMPLE}." if config.trial else ""
    calibration = (
        f"Expected calibration error {measured.calibration_error:.2%}, and {measured.calibration_error_scaled:.2%} at "
        f"temperature {figures.temperature:.3f}, {figures.temperature_method}. The dots are after scaling. {in_sample}"
    )
    sections = [
        f"<h1>{html.escape(config.preset)}: {measured.accuracy:.2%}</h1>",
        f"<p>{summary}</p>",
        _section("Training", _curves(history)),
        _section("What is taken for what", _confusion(measured.confusion)),
        _section("The most confident mistakes", _mistakes(measured.mistakes, images)) if measured.mistakes else "",
        _section("Accuracy after each row", _rows(measured.rows)) if measured.rows else "",
        _section("Calibration", _reliability(measured), calibration),
        _section("Under distortions", _distorted(measured.distorted, measured.accuracy)),
        _section("Rejected as no digit", _rejected(measured.rejected), in_sample) if measured.rejected else "",
        f"<h2>The run</h2>{_table(_flat(asdict(config)) | {'seconds': f'{figures.seconds:.1f}'})}",
    ]
    title = html.escape(f"Scanline: {config.preset} on {config.dataset}")
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    return head + "\n".join(sections) + "</html>\n"


def _section(title: str, figure: Figure, words: str = "") -> str:
    file = io.BytesIO()
    figure.savefig(file, format="svg", bbox_inches="tight")
    picture = base64.b64encode(file.getvalue()).decode()
    note = f"<p>{html.escape(words)}</p>" if words else ""
    return f'<h2>{title}</h2>{note}<img alt="{title}" src="data:image/svg+xml;base64,{picture}">'


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": _words(value)}
    return flat


def _words(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


def _table(values: Mapping[str, str]) -> str:
    rows = (f"<tr><th>{html.escape(name)}<td>{html.escape(value)}" for name, value in values.items())
    return f"<table>{''.join(rows)}</table>"


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _curves(history: Sequence[Mapping[str, float]]) -> Figure:
    figure = Figure(figsize=(9, 3.2))
    loss, accuracy = figure.subplots(1, 2)
    dots = {"marker": "o", "markersize": 3}  # a run of one epoch has one of them and no line
    loss.plot([line["step"] for line in history], [line["loss"] for line in history], **dots)
    loss.set(xlabel="step", ylabel="loss", yscale="log")
    for name, label in (("batch_accuracy", "on the step's batch"), ("validation_accuracy", "on held-out images")):
        lines = [line for line in history if name in line]
        if lines:
            accuracy.plot([line["step"] for line in lines], [100 * line[name] for line in lines], label=label, **dots)
            accuracy.legend(frameon=False)
    accuracy.set(xlabel="step", ylabel="accuracy, %")
    figure.tight_layout()
    return figure


def _confusion(counts: list[list[int]]) -> Figure:
    figure, axes = _axes(5, 5)
    table = np.array(counts)
    wrong = table * (1 - np.eye(CLASSES, dtype=int))
    axes.imshow(wrong, cmap="Reds", vmin=0, vmax=max(1, wrong.max()))
    for (label, answer), count in np.ndenumerate(table):
        if count:
            colour = "white" if wrong[label, answer] > wrong.max() / 2 else "black"
            axes.text(answer, label, str(count), ha="center", va="center", fontsize=8, color=colour)
    axes.set(xticks=range(CLASSES), yticks=range(CLASSES), xlabel="answer", ylabel="label")
    return figure


def _mistakes(mistakes: list[Mistake], images: NDArray[np.uint8]) -> Figure:
    lines = -(-len(mistakes) // MISTAKES_PER_LINE)
    figure = Figure(figsize=(8, 1.9 * lines))
    grid = figure.subplots(lines, MISTAKES_PER_LINE, squeeze=False).flatten()
    for axes in grid:
        axes.axis("off")
    for axes, mistake in zip(grid, mistakes, strict=False):  # the last line may not be full
        axes.imshow(images[mistake.index], cmap="gray_r", vmin=0, vmax=255)
        axes.set_title(f"{mistake.label} read as {mistake.answer} ({mistake.confidence:.0%})", fontsize=8)
    return figure


def _rows(accuracies: list[float]) -> Figure:
    figure, axes = _axes(7, 3.2)
    axes.plot(range(1, ROWS + 1), [100 * accuracy for accuracy in accuracies], marker="o", markersize=3)
    axes.set(xlabel="rows read", ylabel="accuracy, %")
    return figure


def _reliability(measured: Measurements) -> Figure:
    figure, axes = _axes(4.5, 4.5)
    axes.plot([0, 100], [0, 100], color="grey", linewidth=0.8)
    axes.scatter(
        [100 * bin_.confidence for bin_ in measured.reliability],
        [100 * bin_.accuracy for bin_ in measured.reliability],
        s=[10 + 200 * bin_.count / measured.images for bin_ in measured.reliability],
    )
    axes.set(xlabel="confidence, %", ylabel="accuracy, %", xlim=(0, 102), ylim=(0, 102))
    return figure


def _distorted(distorted: list[Distorted], undistorted: float) -> Figure:
    figure, axes = _axes(7, 5)
    names = [f"{entry.distortion} {entry.strength:g} {entry.unit}" for entry in distorted]
    axes.barh(names, [100 * entry.accuracy for entry in distorted])
    axes.axvline(100 * undistorted, color="grey", linewidth=0.8)
    axes.invert_yaxis()
    axes.set(xlabel="accuracy, %")
    return figure


def _rejected(shares: Mapping[str, float]) -> Figure:
    figure, axes = _axes(7, 3)
    axes.barh(list(shares), [100 * share for share in shares.values()])
    axes.invert_yaxis()
    axes.set(xlabel="rejected, %", xlim=(0, 100))
    return figure
