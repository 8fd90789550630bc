from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from train.model import Architecture, DigitLSTM
from train.objective import Objective
from train.recipe import PRESETS

ROWS = torch.rand(6, 28, 28)
LABELS = torch.tensor([0, 1, 2, 3, 4, 5])
PLAIN = replace(PRESETS["seed"].recipe, early_rows=0.0)


def test_without_early_rows_it_is_the_cross_entropy_of_the_last_answer() -> None:
    network = DigitLSTM(Architecture(hidden=8))
    torch.testing.assert_close(Objective(network, PLAIN)(ROWS, LABELS), functional.cross_entropy(network(ROWS), LABELS))


@pytest.mark.parametrize("early_rows", [0.0, 0.25])
def test_the_loss_is_computed_in_float32_whatever_the_network_is(
    monkeypatch: pytest.MonkeyPatch, early_rows: float
) -> None:
    seen = []
    cross_entropy = functional.cross_entropy

    def watched(answers: torch.Tensor, *arguments: torch.Tensor, **options: str) -> torch.Tensor:
        seen.append(answers.dtype)
        return cross_entropy(answers, *arguments, **options)  # type: ignore[arg-type] # what was given, handed on

    monkeypatch.setattr(functional, "cross_entropy", watched)
    objective = Objective(DigitLSTM(Architecture(hidden=8)), replace(PLAIN, early_rows=early_rows))
    with torch.autocast("cpu", torch.bfloat16):
        objective(ROWS, LABELS)
    assert seen == [torch.float32]


def test_early_answers_count_by_the_square_of_their_row() -> None:
    network = DigitLSTM(Architecture(hidden=8))
    answers = network.every_row(ROWS)
    each = [functional.cross_entropy(answers[:, row], LABELS).item() for row in range(28)]
    squares = [row**2 for row in range(1, 28)]
    early = sum(square * loss for square, loss in zip(squares, each[:27], strict=True)) / sum(squares)
    found = Objective(network, replace(PLAIN, early_rows=0.25))(ROWS, LABELS)
    assert found.item() == pytest.approx(0.25 * early + 0.75 * each[27], rel=1e-5)


def test_label_smoothing_costs_certainty() -> None:
    network = DigitLSTM(Architecture(hidden=8))
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.copy_(torch.tensor([50.0] + [0.0] * 9))  # sure of 0
    zeros = torch.zeros(6, dtype=torch.int64)
    smoothed = replace(PLAIN, label_smoothing=0.1)
    assert Objective(network, PLAIN)(ROWS, zeros).item() == pytest.approx(0, abs=1e-6)
    assert Objective(network, smoothed)(ROWS, zeros).item() == pytest.approx(0.1 * 0.9 * 50, rel=1e-3)


def test_no_digit_is_an_eleventh_answer_whose_logit_is_0() -> None:
    network = DigitLSTM(Architecture(hidden=8))
    labels = torch.tensor([0, 1, 2, 10, 10, 10])
    logits = network(ROWS)
    log_partition = torch.cat([logits, torch.zeros(6, 1)], dim=1).logsumexp(dim=1)
    expected = torch.cat([logits[[0, 1, 2], [0, 1, 2]], torch.zeros(3)]) - log_partition
    found = Objective(network, replace(PLAIN, negatives=1))(ROWS, labels)
    torch.testing.assert_close(found, -expected.mean())


def test_teachers_have_their_share_of_the_target_by_turns() -> None:
    network, *teachers = (DigitLSTM(Architecture(hidden=8)) for _ in range(3))
    objective = Objective(network, replace(PLAIN, teacher_share=0.75), teachers)
    for step in range(3):
        said = teachers[step % 2](ROWS).detach().softmax(dim=1)
        target = 0.25 * functional.one_hot(LABELS, 10) + 0.75 * said
        loss = objective(ROWS, LABELS, step)
        torch.testing.assert_close(loss, functional.cross_entropy(network(ROWS), target))
        loss.backward()
    assert network.head.weight.grad is not None
    assert all(teacher.head.weight.grad is None for teacher in teachers)


def test_a_teacher_says_no_digit_too() -> None:
    network, teacher = (DigitLSTM(Architecture(hidden=8)) for _ in range(2))
    with torch.no_grad():
        teacher.head.weight.zero_()
        teacher.head.bias.fill_(-50)  # sure that nothing is a digit
        network.head.weight.zero_()
        network.head.bias.fill_(-50)
    recipe = replace(PLAIN, negatives=1, early_rows=0.5, teacher_share=1.0)
    assert Objective(network, recipe, [teacher])(ROWS, LABELS).item() == pytest.approx(0, abs=1e-6)
