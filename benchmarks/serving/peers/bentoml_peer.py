"""The shipped model behind BentoML: `python bentoml_peer.py MODEL PORT`, in BentoML's own environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import bentoml
from common import Digits


@bentoml.service(workers=1)
class Peer:
    """Runs the model on each request."""

    def __init__(self) -> None:
        """Open the model."""
        self._digits = Digits(os.environ["PEER_MODEL"])

    @bentoml.api
    def predict(self, rows: str) -> dict[str, list[tuple[int, float]]]:
        """Answer."""
        return {"answers": self._digits.read_text(rows)}


if __name__ == "__main__":
    os.environ["PEER_MODEL"] = sys.argv[1]
    os.chdir(Path(__file__).parent)
    command = ["bentoml", "serve", "bentoml_peer:Peer", "--host", "127.0.0.1", "--port", sys.argv[2]]
    os.execv(Path(sys.executable).with_name("bentoml"), command)  # noqa: S606 - no shell, which would take the signals: this process becomes the server
