from __future__ import annotations

import pytest
import torch

from train import initialise
from train.model import Architecture, DigitLSTM
from train.recipe import PRESETS


@pytest.mark.parametrize("preset", PRESETS)
def test_gives_ten_logits_for_each_image_of_any_batch(preset: str) -> None:
    network = DigitLSTM(PRESETS[preset].architecture).eval()
    rows = torch.rand(5, 28, 28)
    logits = network(rows)
    assert logits.shape == (5, 10)
    torch.testing.assert_close(network(rows[2:3]), logits[2:3])


@pytest.mark.parametrize("preset", ["seed", "edge"])
def test_the_last_answer_is_that_of_forward(preset: str) -> None:
    network = DigitLSTM(PRESETS[preset].architecture)
    rows = torch.rand(3, 28, 28)
    answers = network.every_row(rows)
    assert answers.shape == (3, 28, 10)
    torch.testing.assert_close(answers[:, -1], network(rows))


def test_an_answer_depends_on_no_later_row() -> None:
    network = DigitLSTM(Architecture(hidden=16))
    rows = torch.rand(2, 28, 28)
    changed = rows.clone()
    changed[:, 20:] = 0
    torch.testing.assert_close(network.every_row(rows)[:, :20], network.every_row(changed)[:, :20])
    assert not torch.allclose(network.every_row(rows)[:, 20], network.every_row(changed)[:, 20])


@pytest.mark.parametrize(
    "architecture", [Architecture(hidden=8, bidirectional=True), Architecture(hidden=8, convolutions=(2, 3))]
)
def test_a_network_that_looks_ahead_has_no_early_answers(architecture: Architecture) -> None:
    with pytest.raises(ValueError, match="reads the whole image at once"):
        DigitLSTM(architecture).every_row(torch.rand(1, 28, 28))


def test_convolutions_give_the_lstm_a_step_for_every_two_rows() -> None:
    network = DigitLSTM(Architecture(hidden=8, bidirectional=True, convolutions=(2, 3)))
    steps = []
    network.lstm.register_forward_pre_hook(lambda _, given: steps.append(given[0]))
    rows = torch.zeros(1, 28, 28)
    network(rows)
    rows[0, 13, 9] = 1  # under 3x3 twice, once at half the size: it reaches 3 rows up and down of the second
    network(rows)
    assert steps[0].shape == (1, 14, 3 * 7)
    changed = (steps[0] != steps[1]).any(dim=2).squeeze(0).nonzero().flatten()
    assert set(changed.tolist()) <= {5, 6, 7, 8}


@pytest.mark.parametrize(
    "architecture",
    [
        Architecture(hidden=14),
        Architecture(hidden=16),
        Architecture(hidden=14, bidirectional=True),
        Architecture(hidden=14, layers=2),
        Architecture(hidden=16, projection=6),
        Architecture(hidden=14, projection=6),
        Architecture(hidden=14, projection=6, layers=2, bidirectional=True),
    ],
    ids=lambda architecture: architecture.name,
)
def test_what_is_computed_on_a_cpu_is_the_network(architecture: Architecture) -> None:
    torch.manual_seed(0)
    network = DigitLSTM(architecture)
    rows = torch.rand(4, 28, 28)
    states = network.lstm(rows if network.projection is None else network.projection(rows))[0]
    expected = network.head(states.mean(dim=1) if architecture.bidirectional else states[:, -1])
    logits = network(rows)
    torch.testing.assert_close(logits, expected)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    theirs = torch.autograd.grad(expected.square().sum(), trained)
    for ours, wanted in zip(torch.autograd.grad(logits.square().sum(), trained), theirs, strict=True):
        torch.testing.assert_close(ours, wanted)


def test_the_forget_gates_constant_is_not_trained() -> None:
    network = DigitLSTM(Architecture(hidden=4, layers=2, bidirectional=True))
    constants = {name: weights for name, weights in network.named_parameters() if "bias_hh" in name}
    assert len(constants) == 4
    for weights in constants.values():
        assert weights.tolist() == [0] * 4 + [1] * 4 + [0] * 8
        assert not weights.requires_grad
    assert network.trained_weights() == sum(p.numel() for p in network.parameters()) - 4 * 16


def test_the_presets_keep_their_size() -> None:
    counts = {name: DigitLSTM(preset.architecture).trained_weights() for name, preset in PRESETS.items()}
    assert counts["seed"] == (28 * 128 + 128) + (256 * 512 + 512) + (128 * 10 + 10)
    assert counts["edge"] <= 90_000
    assert counts["accurate"] <= 2_000_000


@pytest.mark.parametrize(
    ("preset", "name"),
    [("seed", "projection-128-lstm-128"), ("edge", "lstm-126"), ("accurate", "conv-16-32-32-bidirectional-lstm-64")],
)
def test_an_architecture_has_a_name_for_the_card(preset: str, name: str) -> None:
    assert PRESETS[preset].architecture.name == name


def test_the_seed_begins_as_the_tutorial_does() -> None:
    torch.manual_seed(0)
    preset = PRESETS["seed"]
    network = initialise.draw(preset.architecture, preset.recipe)
    assert network.projection is not None
    for layer in (network.projection, network.head):
        assert (layer.bias == 0.1).all()
        assert layer.weight.std().item() == pytest.approx(1, abs=0.05)
        assert layer.weight.mean().item() == pytest.approx(0, abs=0.1)
    limit = (6 / (256 + 512)) ** 0.5  # Glorot and Bengio for one kernel [128 + 128, 4 * 128]
    lstm = network.lstm.state_dict()
    for weights in (lstm["weight_ih_l0"], lstm["weight_hh_l0"]):
        assert weights.abs().max().item() == pytest.approx(limit, rel=1e-3)
        assert weights.std().item() == pytest.approx(limit / 3**0.5, rel=0.02)
    assert not lstm["bias_ih_l0"].any()


def test_edge_begins_with_orthogonal_gates() -> None:
    preset = PRESETS["edge"]
    network = initialise.draw(preset.architecture, preset.recipe)
    for gate in network.lstm.state_dict()["weight_hh_l0"].chunk(4):
        torch.testing.assert_close(gate @ gate.T, torch.eye(126), atol=1e-5, rtol=0)
