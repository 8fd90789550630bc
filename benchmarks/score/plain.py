"""The plain loop, one image at a time, on one core: `python -m benchmarks.score.plain FOLDER OUTPUT`."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np

from scanline.contract import to_network
from scanline.model import Model
from scanline.prediction import softmax
from scanline.preprocess import steps


def main() -> None:
    """Write a row a file: path, digit, confidence."""
    model = Model()
    with Path(sys.argv[2]).open("w", newline="") as output:
        table = csv.writer(output)
        for path in sorted(Path(sys.argv[1]).rglob("*.png")):
            logits = model.run(to_network(steps(path).rows[np.newaxis]))
            (shares,) = softmax(logits, model.card.temperature)
            table.writerow([path, int(shares.argmax()), float(shares.max())])


if __name__ == "__main__":
    main()
