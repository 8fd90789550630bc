"""Scanline's server with nothing counted: what it takes less than the server as it is, metrics cost.

python -m benchmarks.serving.uncounted serve ...
"""

from __future__ import annotations

import sys

from scanline.cli import main
from serve.statistics import ModelCounter


def _nothing(*_: object) -> None:
    """Take the place of a method that counts."""


if __name__ == "__main__":
    for method in ("ran", "succeeded", "failed", "rejected"):
        setattr(ModelCounter, method, _nothing)
    sys.exit(main())
