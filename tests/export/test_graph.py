"""The float32 graphs compute what PyTorch computes, and are as small as they can be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from export import graph
from export.candidates import candidates
from export.network import from_model
from scanline.model import STEP_INPUTS, STEP_OUTPUTS, open_session
from scanline.verify import every_row
from tests.export.networks import ARCHITECTURES, CONVOLUTIONS, compute, network, pytorch, strokes
from train.model import Architecture


@pytest.mark.parametrize("kind", ARCHITECTURES | CONVOLUTIONS)
def test_the_whole_model_gives_pytorchs_logits(kind: str) -> None:
    model, rows = network((ARCHITECTURES | CONVOLUTIONS)[kind]), strokes(30)
    found = compute(graph.whole(from_model(model)), rows)
    np.testing.assert_allclose(found, pytorch(model, rows), atol=1e-5)


@pytest.mark.parametrize("kind", ["plain", "projection", "stacked"])
def test_the_step_model_gives_pytorchs_logits_after_every_row(kind: str) -> None:
    model, rows = network(ARCHITECTURES[kind]), strokes(30)
    session = open_session(graph.step(from_model(model)).SerializeToString(), Path("step"), threads=1)
    with torch.inference_mode():
        expected = model.every_row(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(every_row(session, rows), expected, atol=1e-5)


def test_a_stream_may_go_on_from_any_state() -> None:
    model, rows = network(ARCHITECTURES["stacked"]), strokes(3)
    session = open_session(graph.step(from_model(model)).SerializeToString(), Path("step"), threads=1)
    states = [np.zeros((3, 24), np.float32)] * 2
    for t in range(28):
        if t == 14:  # from here on one stream goes alone
            states, rows = [state[1:2] for state in states], rows[1:2]
        logits, *states = session.run(STEP_OUTPUTS, dict(zip(STEP_INPUTS, [rows[:, t], *states], strict=True)))
    np.testing.assert_allclose(logits, pytorch(model, rows), atol=1e-5)


def test_a_plain_network_takes_four_nodes() -> None:
    model = graph.whole(from_model(network(Architecture(hidden=20, projection=16))))
    assert [node.op_type for node in model.graph.node] == ["Transpose", "LSTM", "Squeeze", "Gemm"]


def test_the_seeds_projection_is_folded_away() -> None:
    """Issue 4: at most 0.65 of the plain export's size, which holds the projection, W of 128 inputs and more."""
    folded = graph.whole(from_model(network(Architecture(hidden=128, projection=128)))).ByteSize()
    plain = 4 * (28 * 128 + 128 + 512 * (128 + 128 + 2) + 128 * 10 + 10)  # its weights alone
    assert folded <= 0.65 * plain


def test_convolutions_have_neither_int8_nor_step_files() -> None:
    names = [candidate.name for candidate in candidates(from_model(network(CONVOLUTIONS["convolutions"])))]
    assert names == ["digits.onnx", "digits.ort"]


@pytest.mark.parametrize("kind", ARCHITECTURES | CONVOLUTIONS)
def test_the_files_use_the_oldest_opset_that_will_do(kind: str) -> None:
    model = graph.whole(from_model(network((ARCHITECTURES | CONVOLUTIONS)[kind])))
    assert (model.ir_version, [(entry.domain, entry.version) for entry in model.opset_import]) == (6, [("", 11)])
    onnx.checker.check_model(model, full_check=True)
