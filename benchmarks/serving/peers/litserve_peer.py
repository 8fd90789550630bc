"""The shipped model behind LitServe: `python litserve_peer.py MODEL PORT`, in LitServe's own environment."""

from __future__ import annotations

import sys
from typing import Any

import litserve
from common import Digits
from typing_extensions import override

MODEL, PORT = sys.argv[1], int(sys.argv[2])


class Peer(litserve.LitAPI):
    """Runs the model on each request."""

    @override
    def setup(self, device: str) -> None:
        """Open the model."""
        self._digits = Digits(MODEL)

    def decode_request(self, request: dict[str, str]) -> str:
        """Take the rows out of a request."""
        return request["rows"]

    def predict(self, x: str) -> list[tuple[int, float]]:
        """Answer."""
        return self._digits.read_text(x)

    def encode_response(self, output: list[tuple[int, float]]) -> dict[str, Any]:
        """Make a response."""
        return {"answers": output}


if __name__ == "__main__":
    server = litserve.LitServer(Peer(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=PORT, num_api_servers=1, generate_client_file=False, log_level="error")
