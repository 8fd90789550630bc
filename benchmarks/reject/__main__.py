"""What the reject option catches and costs: `python -m benchmarks.reject [--model PATH] [--split validation]`.

Digits are MNIST's test images, or the last 5,000 of its training images with `--split validation`, on which thresholds
are chosen; they are had as `scanline train` has them. Everything else is drawn (pictures.py), with another seed for
each split, as files that scanline.Reader reads and as raw pixels of 28x28.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.ending import end_with
from benchmarks.reject.pictures import KINDS, file, raw
from scanline import Reader, RejectReason, console, reject
from scanline.contract import to_network
from scanline.model import Model
from scanline.prediction import Prediction, softmax
from train import calibration
from train.data import load
from train.settings import Settings

Array = NDArray[np.float32]
SEEDS: Final = {"validation": 1, "test": 2}
BOUNDS: Final = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)


def main() -> None:
    """Measure what the command line asks for."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", type=Path, help="model file, folder, or edge or accurate; by default edge")
    options.add_argument("--split", choices=SEEDS, default="test", help="which digits; test by default")
    options.add_argument("--count", type=int, default=1000, help="pictures of each kind; 1000 by default")
    options.add_argument("--picture", type=Path, help="where to write the risk-coverage curve")
    given = options.parse_args()
    measure(given.model, given.split, given.count, given.picture)


def measure(path: Path | None, split: str, count: int, picture: Path | None) -> None:
    """Measure and print."""
    images, labels = _digits(split)
    chance = np.random.default_rng(SEEDS[split])
    model = Model(path)
    card = model.card
    with Reader(path) as reader:
        console.out.print(
            f"{card.name}, {card.precision}; thresholds {dict(card.reject)}, temperature {card.temperature:.3f}"
        )
        table = Table("what", "form", "images", "rejected", *(reason.replace("_", " ") for reason in RejectReason))
        table.add_row(f"MNIST, {split}", "raw", *_shares(reader.classify(images)))
        drawn = {}
        for kind in KINDS:
            files = [file(kind, chance, images) for _ in range(count)]
            drawn[kind.__name__] = np.stack([raw(kind, chance, images) for _ in range(count)])
            table.add_row(kind.__name__, "files", *_shares(reader.classify(files)))
            table.add_row(kind.__name__, "raw", *_shares(reader.classify(drawn[kind.__name__])))
        console.out.print(table)
        logits = _logits(model, images)
        others = {
            name: _logits(model, pixels) for name, pixels in drawn.items() if name not in {"white", "black", "blank"}
        }
    console.out.print(_separation(logits, others, card.temperature))
    _report_confidence(logits, labels, others, card.temperature, picture)


def _digits(split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    data = load(["mnist"], Settings(out=Path()).data_dir)
    if split == "test":
        return data.test_images, data.test_labels
    return data.train_images[data.held_out], data.train_labels[data.held_out]


def _logits(model: Model, pixels: NDArray[np.uint8]) -> Array:
    rows = to_network(pixels)
    return np.concatenate([model.run(rows[start : start + 256]) for start in range(0, len(rows), 256)])


def _shares(answers: Sequence[Prediction]) -> tuple[str, ...]:
    counts = Counter(answer.reason for answer in answers)
    rejected = sum(answer.rejected for answer in answers)
    shares = (counts[reason] / len(answers) for reason in RejectReason)
    return (
        f"{len(answers):,}",
        f"{rejected / len(answers):.2%}",
        *(f"{share:.2%}" if share else "" for share in shares),
    )


def _separation(logits: Array, others: dict[str, Array], temperature: float) -> Table:
    """Compare scores by how well they tell digits from the rest, raw pixels both."""
    scores: dict[str, Callable[[Array], Array]] = {
        "energy": reject.energy,
        "largest logit": lambda each: each.max(axis=1),
        "confidence": lambda each: softmax(each, temperature).max(axis=1),
    }
    table = Table("AUROC", *others, "all")
    for name, score in scores.items():
        found = [_auroc(score(logits), score(each)) for each in (*others.values(), np.concatenate([*others.values()]))]
        table.add_row(name, *(f"{value:.4f}" for value in found))
    return table


def _auroc(digits: Array, others: Array) -> float:
    """Give the probability that a digit scores higher than another picture, ties counted half (Mann and Whitney)."""
    below = np.searchsorted(np.sort(others), digits, "left").mean()
    up_to = np.searchsorted(np.sort(others), digits, "right").mean()
    return float(below + up_to) / 2 / len(others)


def _report_confidence(
    logits: Array, labels: NDArray[np.int64], others: dict[str, Array], temperature: float, picture: Path | None
) -> None:
    """Print what --min-confidence trades, the calibration error and the accuracy; draw the risk-coverage curve."""
    confidences, wrong = softmax(logits, temperature).max(axis=1), logits.argmax(axis=1) != labels
    bins = calibration.reliability(torch.from_numpy(logits), torch.from_numpy(labels), temperature)
    console.out.print(
        f"accuracy {1 - wrong.mean():.2%}, expected calibration error {calibration.expected_error(bins):.4f}"
    )
    drawn = {name: softmax(each, temperature).max(axis=1) for name, each in others.items()}
    table = Table("--min-confidence", "digits answered", "of these wrong", *(f"{name} answered" for name in drawn))
    for bound in BOUNDS:
        kept = confidences >= bound
        shares = (f"{np.mean(each >= bound):.2%}" for each in drawn.values())
        table.add_row(f"{bound}", f"{kept.mean():.2%}", f"{wrong[kept].mean():.3%}", *shares)
    console.out.print(table)
    if picture is not None:
        _draw(picture, confidences, wrong, drawn)


def _draw(picture: Path, confidences: Array, wrong: NDArray[np.bool_], drawn: dict[str, Array]) -> None:
    order = np.argsort(-confidences, kind="stable")
    answered = np.arange(1, len(order) + 1)
    figure = Figure(figsize=(9, 3.6))
    risk, kept = figure.subplots(1, 2)
    risk.plot(100 * answered / len(order), 100 * np.cumsum(wrong[order]) / answered)
    risk.set(xlabel="digits answered, %", ylabel="of these wrong, %", xlim=(90, 100), ylim=(0, None))
    bounds = np.linspace(0, 1, 201)
    for name, each in {"digits": confidences, **drawn}.items():
        kept.plot(bounds, [100 * np.mean(each >= bound) for bound in bounds], label=name.replace("_", " "))
    kept.set(xlabel="--min-confidence", ylabel="answered, %")
    kept.legend(frameon=False, fontsize=8)
    for axes in (risk, kept):
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(picture, metadata={"Date": None} if picture.suffix == ".svg" else None)


if __name__ == "__main__":
    end_with(main)
