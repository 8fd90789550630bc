"""The shipped model behind MLServer: `python mlserver_peer.py MODEL PORT`, in MLServer's own environment."""

from __future__ import annotations

import asyncio
import sys

import numpy as np
from common import Digits, free_ports
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

MODEL, PORT = sys.argv[1], int(sys.argv[2])


class Peer(MLModel):
    """Runs the model on each request."""

    async def load(self) -> bool:
        """Open the model."""
        self._digits = Digits(MODEL)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer."""
        probabilities, digits = self._digits.read(NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32))
        outputs = [
            NumpyCodec.encode_output("probabilities", probabilities),
            NumpyCodec.encode_output("digit", digits),
        ]
        return InferenceResponse(model_name=self.name, outputs=outputs)


async def main() -> None:
    """Serve until killed: in one process, as is fastest for a model so small."""
    http, metrics = free_ports(2)
    settings = Settings(parallel_workers=0, host="127.0.0.1", grpc_port=PORT, http_port=http, metrics_port=metrics)
    await MLServer(settings).start(models_settings=[ModelSettings(name="digits", implementation=Peer)])


if __name__ == "__main__":
    asyncio.run(main())
