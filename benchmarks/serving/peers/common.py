"""What the peers share: the model as each calls it. It needs numpy and onnxruntime, and nothing of Scanline."""

from __future__ import annotations

import base64
import socket
from contextlib import ExitStack
from typing import Any

import numpy as np
import onnxruntime


class Digits:
    """The shipped model with one thread, as Scanline has it."""

    def __init__(self, path: str) -> None:
        """Open a model file."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._temperature = np.float32(self._session.get_modelmeta().custom_metadata_map["scanline.temperature"])

    def read(self, rows: Any) -> tuple[Any, Any]:
        """Give probabilities, float32 [n, 10], and digits, int64 [n], of rows, float32 [n, 28, 28]."""
        scaled = self._session.run(["logits"], {"rows": rows})[0] / self._temperature
        exponents = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        probabilities = exponents / exponents.sum(axis=1, keepdims=True)
        return probabilities, probabilities.argmax(axis=1)

    def read_text(self, rows: str) -> list[tuple[int, float]]:
        """Give digits and confidences of rows in base64, for those that speak JSON alone."""
        array = np.frombuffer(base64.b64decode(rows), np.float32).reshape(-1, 28, 28)
        probabilities, digits = self.read(array)
        return [*zip(digits.tolist(), probabilities.max(axis=1).tolist(), strict=True)]


def free_ports(count: int) -> list[int]:
    """Give ports that are free now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]
