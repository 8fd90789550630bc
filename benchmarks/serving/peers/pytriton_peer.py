"""The shipped model behind PyTriton: `python pytriton_peer.py MODEL PORT`, in PyTriton's own environment."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from common import Digits, free_ports
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

MODEL, PORT = sys.argv[1], int(sys.argv[2])


def main() -> None:
    """Serve until killed: batches of what is waiting, without delay."""
    digits = Digits(MODEL)

    @batch
    def infer(rows: Any) -> dict[str, Any]:
        probabilities, best = digits.read(rows)
        return {"probabilities": probabilities, "digit": best[:, np.newaxis]}

    http, metrics = free_ports(2)
    with Triton(config=TritonConfig(grpc_port=PORT, http_port=http, metrics_port=metrics)) as triton:
        triton.bind(
            model_name="digits",
            infer_func=infer,
            inputs=[Tensor(name="rows", dtype=np.float32, shape=(28, 28))],
            outputs=[
                Tensor(name="probabilities", dtype=np.float32, shape=(10,)),
                Tensor(name="digit", dtype=np.int64, shape=(1,)),
            ],
            config=ModelConfig(max_batch_size=64, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
        )
        triton.serve()


if __name__ == "__main__":
    main()
