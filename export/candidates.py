"""The files that an export offers to its gate, and how each becomes bytes with its card inside."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnxruntime as ort
from onnx import ModelProto, helper

from export import graph
from export.int8 import FULL_RANGE, REDUCED_RANGE, int8
from export.network import Network
from scanline.contract import ModelCard
from scanline.errors import ModelError
from scanline.model import ORT_ERRORS, reason_of
from scanline.verify import INT8

FLOAT32: Final = "float32"
WHOLE_FILE: Final = "digits.onnx"
ANY_CPU: Final = "any"
# What full-range int8 weights need: dot products of four bytes into 32 bits at once.
WIDE_PRODUCTS: Final = "x86-64 with AVX-VNNI, AVX512-VNNI or AMX; arm64"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A file that an export could write.

    Attributes:
        name: the file's name; the suffix is .onnx or .ort.
        precision: FLOAT32 or INT8.
        instruction_sets: the CPUs that it suits, in words.
        step: whether it reads one row at a time.
        model: what it computes, without a card.
    """

    name: str
    precision: str
    instruction_sets: str
    step: bool
    model: ModelProto

    @property
    def is_onnx(self) -> bool:
        """Whether the file is an ONNX file; otherwise it is onnxruntime's own format."""
        return self.name.endswith(".onnx")

    def content(self, card: ModelCard) -> bytes:
        """Give the file's bytes with this card."""
        model = ModelProto()
        model.CopyFrom(self.model)
        helper.set_model_props(model, card.to_metadata())
        content = model.SerializeToString(deterministic=True)
        return content if self.is_onnx else _ort_format(content)


def candidates(network: Network) -> list[Candidate]:
    """List the files for a network: float32 first, each in both formats."""
    models = [("digits", FLOAT32, ANY_CPU, graph.whole(network), False)]
    if not network.convolutions:  # their features have no range that int8 could be pinned to
        models += [
            # the plain name is for the file that is right everywhere
            ("digits.int8", INT8, ANY_CPU, int8(network, REDUCED_RANGE), False),
            ("digits.int8-full", INT8, WIDE_PRODUCTS, int8(network, FULL_RANGE), False),
        ]
    if not network.reads_ahead:
        models.append(("digits.step", FLOAT32, ANY_CPU, graph.step(network), True))
    return [
        Candidate(name=stem + suffix, precision=precision, instruction_sets=suits, step=is_step, model=model)
        for stem, precision, suits, model, is_step in models
        for suffix in (".onnx", ".ort")
    ]


def _ort_format(content: bytes) -> bytes:
    """Convert an ONNX file, optimised as far as is right on every machine (onnxruntime's level "extended")."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.ort"
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(path)
        options.add_session_config_entry("session.save_model_format", "ORT")
        try:
            ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except ORT_ERRORS as error:
            raise ModelError(f"onnxruntime can't convert it to its own format: {reason_of(error)}") from None
        return path.read_bytes()
