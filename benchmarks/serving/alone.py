"""What onnxruntime does with the shipped int8 model and nothing around it: images a second at batch 64.

python -m benchmarks.serving.alone
"""

from __future__ import annotations

import sys
import time
from typing import Final

from benchmarks.serving.protocols import some_images
from scanline.contract import to_network
from scanline.model import Model

BATCH: Final = 64
RUNS: Final = 1500


def main() -> None:
    """Run the model again and again, and print the rate."""
    model = Model()
    rows = to_network(some_images(BATCH))
    model.run(rows)
    started = time.perf_counter()
    for _ in range(RUNS):
        model.run(rows)
    sys.stdout.write(f"{BATCH * RUNS / (time.perf_counter() - started)}\n")


if __name__ == "__main__":
    main()
