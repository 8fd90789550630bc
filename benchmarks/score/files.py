"""Many 28x28 PNG files in MNIST's form, for little disk: hard links to a few hundred distinct ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from scanline import samples
from scanline.preprocess import in_normal_form, to_rows

DISTINCT: Final = 300
FOLDER_FILES: Final = 50_000


def make(folder: Path, count: int) -> None:
    """Fill a new folder with `count` files, 50,000 in each folder within."""
    originals = folder.with_name(f"{folder.name}-originals")
    originals.mkdir()
    chance = np.random.default_rng(0)
    drawn = [to_rows(file) for file in samples.files()]
    number = 0
    while number < DISTINCT:
        picture = drawn[chance.integers(len(drawn))]
        noisy = np.where(picture > 0, np.clip(picture + chance.integers(-40, 41, picture.shape), 1, 255), 0)
        if in_normal_form(noisy.astype(np.uint8)):
            Image.fromarray(noisy.astype(np.uint8)).save(originals / f"{number}.png")
            number += 1
    for start in range(0, count, FOLDER_FILES):
        (folder / f"{start:08}").mkdir(parents=True)
        for number in range(start, min(start + FOLDER_FILES, count)):
            os.link(originals / f"{number % DISTINCT}.png", folder / f"{start:08}" / f"{number:08}.png")
