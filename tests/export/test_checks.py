"""Each fault that an export could have is caught by the check that is named for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from export.candidates import Candidate, candidates
from export.evidence import Evidence
from export.gate import examine
from scanline.contract import LABELS, ModelCard
from tests.export.conftest import SAMPLE

FLOAT32, INT8, STEP = "digits.onnx", "digits.int8.onnx", "digits.step.onnx"


def candidate(name: str, evidence: Evidence) -> Candidate:
    """A sound candidate, whose model a test may change."""
    return next(one for one in candidates(evidence.network) if one.name == name)


def failed(subject: Candidate, card: ModelCard, evidence: Evidence) -> set[str]:
    """The names of the checks that a candidate fails."""
    outcome = examine(subject, card, evidence)
    names = {check.name for check in outcome.checks if not check.passed}
    assert outcome.passed == (not names)
    return names


def initializer(model: ModelProto, name: str) -> TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def change(model: ModelProto, name: str, function: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change one array of a model."""
    tensor = initializer(model, name)
    tensor.CopyFrom(numpy_helper.from_array(function(numpy_helper.to_array(tensor).copy()), name))


def node(model: ModelProto, operator: str) -> NodeProto:
    return next(node for node in model.graph.node if node.op_type == operator)


@pytest.mark.parametrize("name", [FLOAT32, INT8, STEP, "digits.int8-full.onnx", "digits.ort", "digits.step.ort"])
def test_a_sound_file_passes_every_check(name: str, card: ModelCard, evidence: Evidence) -> None:
    assert failed(candidate(name, evidence), card, evidence) == set()


def test_an_int8_file_that_reads_more_rightly_is_reported_so(card: ModelCard, evidence: Evidence) -> None:
    # the labels are the int8 file's own answers, but for one image that PyTorch reads the same way
    outcome = examine(candidate(INT8, evidence), card, evidence)
    assert outcome.logits is not None
    labels = outcome.logits.argmax(axis=1)
    labels[0] = (labels[0] + 1) % 10
    expected = evidence.expected.copy()
    expected[1] = -expected[1]  # here PyTorch is wrong
    outcome = examine(candidate(INT8, evidence), card, replace(evidence, expected=expected, labels=labels))
    detail = next(check.detail for check in outcome.checks if check.name == "pytorch")
    assert f"{SAMPLE - 1} are right, {SAMPLE - 2} in PyTorch" in detail


def reverse_time(model: ModelProto) -> None:
    lstm = next(node for node in model.graph.node if "LSTM" in node.op_type)
    next(attribute for attribute in lstm.attribute if attribute.name == "direction").s = b"reverse"


def swap_gates(array: np.ndarray) -> np.ndarray:
    axis = 1 if array.dtype == np.float32 else 2  # int8 weights stand on their side
    return np.concatenate([np.split(array, 4, axis)[gate] for gate in (0, 2, 1, 3)], axis)


@pytest.mark.parametrize("name", [FLOAT32, INT8])
def test_an_input_permuted_in_time_is_caught(name: str, card: ModelCard, evidence: Evidence) -> None:
    subject = candidate(name, evidence)
    reverse_time(subject.model)
    assert "pytorch" in failed(subject, card, evidence)


@pytest.mark.parametrize(("name", "check"), [(FLOAT32, "pytorch"), (INT8, "weights"), (STEP, "pytorch")])
def test_gates_in_the_wrong_order_are_caught(name: str, check: str, card: ModelCard, evidence: Evidence) -> None:
    subject = candidate(name, evidence)
    change(subject.model, "recurrent_weight_0", swap_gates)
    assert check in failed(subject, card, evidence)


@pytest.mark.parametrize("name", [FLOAT32, INT8, STEP])
def test_a_batch_size_burned_into_an_output_is_caught(name: str, card: ModelCard, evidence: Evidence) -> None:
    subject = candidate(name, evidence)
    subject.model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    assert "contract" in failed(subject, card, evidence)


def test_a_batch_size_burned_into_the_input_is_caught(card: ModelCard, evidence: Evidence) -> None:
    subject = candidate(FLOAT32, evidence)
    subject.model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    assert {"contract", "settings", "neighbours"} <= failed(subject, card, evidence)


@pytest.mark.parametrize("name", [FLOAT32, STEP])
def test_a_wrong_bias_is_caught(name: str, card: ModelCard, evidence: Evidence) -> None:
    subject = candidate(name, evidence)
    change(subject.model, "head_bias", lambda bias: bias + np.float32(2e-4) * np.eye(10, dtype=np.float32)[3])
    assert {"pytorch", "settings"} <= failed(subject, card, evidence)


@pytest.mark.parametrize("name", [INT8, "digits.int8.ort"])
def test_a_wrong_bias_is_caught_where_quantisation_would_hide_it(
    name: str, card: ModelCard, evidence: Evidence
) -> None:
    subject = candidate(name, evidence)
    change(subject.model, "bias_0", lambda bias: bias + np.float32(1e-5))
    assert failed(subject, card, evidence) == {"weights"}


@pytest.mark.parametrize("name", [FLOAT32, INT8, STEP])
def test_nan_in_a_weight_is_caught(name: str, card: ModelCard, evidence: Evidence) -> None:
    def poison(array: np.ndarray) -> np.ndarray:
        array[3, 5] = np.nan
        return array

    subject = candidate(name, evidence)
    change(subject.model, "head_weight", poison)
    assert {"weights", "pytorch"} <= failed(subject, card, evidence)


@dataclass(frozen=True, kw_only=True)
class WithOtherCard(Candidate):
    """A candidate that writes another card than it should."""

    changes: dict[str, str] | None = None

    def content(self, card: ModelCard) -> bytes:
        model = ModelProto.FromString(super().content(card))
        kept = [] if self.changes is None else list(model.metadata_props)
        del model.metadata_props[:]
        for entry in kept:
            model.metadata_props.add(key=entry.key, value=(self.changes or {}).get(entry.key, entry.value))
        return model.SerializeToString(deterministic=True)


def test_a_missing_card_is_caught(card: ModelCard, evidence: Evidence) -> None:
    subject = WithOtherCard(**vars(candidate(FLOAT32, evidence)))
    assert failed(subject, card, evidence) == {"card"}


@pytest.mark.parametrize(
    "changes", [{"scanline.labels": LABELS[::-1]}, {"scanline.temperature": "2.5"}, {"scanline.precision": "int8"}]
)
def test_a_card_that_says_something_else_is_caught(
    changes: dict[str, str], card: ModelCard, evidence: Evidence
) -> None:
    subject = WithOtherCard(**vars(candidate(FLOAT32, evidence)), changes=changes)
    assert failed(subject, card, evidence) == {"card"}


@pytest.mark.parametrize("name", ["input_weight_0", "recurrent_weight_0"])
def test_a_clipped_quantised_weight_is_caught(name: str, card: ModelCard, evidence: Evidence) -> None:
    subject = candidate(INT8, evidence)
    change(subject.model, name, lambda steps: steps.clip(-62, 62))
    assert "weights" in failed(subject, card, evidence)


def test_an_unpinned_range_is_caught(card: ModelCard, evidence: Evidence) -> None:
    subject = candidate(INT8, evidence)
    change(subject.model, "bias_0", lambda bias: np.where(np.abs(bias) == 100, np.float32(0), bias))
    assert {"weights", "settings", "neighbours"} <= failed(subject, card, evidence)


def test_an_operator_that_the_targets_lack_is_caught(card: ModelCard, evidence: Evidence) -> None:
    subject = candidate(FLOAT32, evidence)
    squeeze = node(subject.model, "Squeeze")
    subject.model.graph.node.insert(3, NodeProto(op_type="Identity", input=["state"], output=["copied"]))
    node(subject.model, "Gemm").input[0] = "copied"
    assert squeeze.output[0] == "state"
    assert failed(subject, card, evidence) == {"operators"}


def test_a_model_that_onnx_finds_invalid_is_caught(card: ModelCard, evidence: Evidence) -> None:
    subject = candidate(FLOAT32, evidence)
    subject.model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 11
    assert {"checker", "contract"} <= failed(subject, card, evidence)


def test_a_step_model_of_another_network_is_caught(card: ModelCard, evidence: Evidence) -> None:
    subject = candidate(STEP, evidence)
    change(subject.model, "recurrent_weight_0", lambda weight: weight * np.float32(1.001))
    assert {"pytorch", "rows"} <= failed(subject, card, evidence)


def test_a_file_that_does_not_load_is_caught(card: ModelCard, evidence: Evidence) -> None:
    subject = candidate(FLOAT32, evidence)
    node(subject.model, "Squeeze").op_type = "Squeese"
    assert failed(subject, card, evidence) == {"loads"}


def test_the_card_holds_the_figures_of_the_file(card: ModelCard, evidence: Evidence) -> None:
    outcome = examine(candidate(INT8, evidence), card, evidence)
    assert outcome.logits is not None
    read_rightly = float(np.mean(outcome.logits.argmax(axis=1) == evidence.labels))
    assert (outcome.card.precision, outcome.card.accuracy) == ("int8", read_rightly)
    assert outcome.card.verification["images"] == len(evidence.rows)
    assert {"settings", "neighbours", "weights"} <= set(outcome.card.verification["checks"])


def test_the_card_of_a_float32_file_has_the_runs_accuracy(card: ModelCard, evidence: Evidence) -> None:
    outcome = examine(candidate(FLOAT32, evidence), replace(card, accuracy=0.5), evidence)
    assert outcome.card.accuracy == 0.5
