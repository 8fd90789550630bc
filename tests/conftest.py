"""What several packages' tests need: a run trained on the digits that come with scikit-learn, and its export."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

# The tests themselves run side by side: PyTorch's threads would only wait for each other. Read when torch is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# All compute on the CPU: `--device auto` would take a GPU, whose draws and sums are others. Read when CUDA begins.
os.environ["CUDA_VISIBLE_DEVICES"] = ""

from scanline.cli import main

# What a shell starts in the background ignores Ctrl-C, and so would the processes whose Ctrl-C is tested.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the seed preset, a third as long as the tutorial's."""
    run = tmp_path_factory.mktemp("runs") / "seed"
    assert main(["train", "--preset", "seed", "--data", "uci", "--epochs", "12", "--out", str(run)]) == 0
    return run


@pytest.fixture(scope="session")
def exported(trained: Path) -> Path:
    """The export of that run; tests that change it copy it first."""
    out = trained.parent / "artifacts" / "seed"
    assert main(["export", str(trained), "--out", str(out)]) == 0
    return out
