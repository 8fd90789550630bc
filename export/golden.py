"""The golden vectors: images and the logits that each file gives for them on this machine (see scanline.verify)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from export.evidence import extreme_images
from export.gate import Outcome
from scanline import verify
from scanline.contract import CLASSES, to_network
from train import data

IMAGES_PER_DIGIT: Final = 8


def write(folder: Path, outcomes: Iterable[Outcome]) -> None:
    """Write `golden.npz` for the files that passed.

    The images are scikit-learn's UCI digits of writers that no network is trained on, and the extremes: none is of
    MNIST, so the file may go where the model goes.
    """
    images = np.concatenate([_digits(), extreme_images()])
    rows = to_network(images)
    arrays: dict[str, Any] = {verify.GOLDEN_IMAGES: images}
    for outcome in outcomes:
        if outcome.content is not None and outcome.candidate.is_onnx:
            path = Path(outcome.candidate.name)
            arrays[path.stem] = verify.in_batches(verify.open_run(outcome.content, path), rows, 1)
    # without allow_pickle=False, which numpy before 2.2 takes for an array; none of these is pickled
    np.savez_compressed(folder / verify.GOLDEN, **arrays)


def _digits() -> NDArray[np.uint8]:
    uci = data.load([data.UCI], None)
    chosen = [np.flatnonzero(uci.test_labels == digit)[:IMAGES_PER_DIGIT] for digit in range(CLASSES)]
    return uci.test_images[np.concatenate(chosen)]
