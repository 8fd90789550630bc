from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from train import calibration, data, evaluate, measure
from train.model import Architecture, DigitLSTM


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_spoilt_the_logits_is_found(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(20_000, 10, generator=generator)
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=generator).squeeze(1)
    assert calibration.fit_temperature(logits * temperature, labels) == pytest.approx(temperature, rel=0.05)


def test_calibration_error_is_the_distance_of_confidence_from_accuracy() -> None:
    logits = torch.zeros(100, 10)
    logits[:, 3] = torch.tensor(9.0).log()  # the answer is 3 at confidence 9 / (9 + 9) = 0.5
    labels = torch.tensor([3] * 80 + [4] * 20)
    bins = calibration.reliability(logits, labels, 1.0)
    assert [bin_.count for bin_ in bins] == [100]
    assert calibration.expected_error(bins) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("digits", "by_energy", "by_confidence"), [(14, 0, 0), (119, 0, 0), (249, 0, 0), (300, 1, 0), (5000, 20, 1)]
)
def test_no_more_digits_are_rejected_than_promised(digits: int, by_energy: int, by_confidence: int) -> None:
    logits = 3 * torch.randn(digits, 10, generator=torch.Generator().manual_seed(0))
    found = calibration.reject_thresholds(logits, 2.0)
    energy = logits.double().logsumexp(dim=1)
    confidence = (logits.double() / 2).softmax(dim=1).amax(dim=1)
    assert (energy < found["energy"]).sum() == by_energy
    assert (confidence < found["confidence"]).sum() == by_confidence


def test_a_gpu_would_measure_in_float32_and_not_in_tf32() -> None:
    network = DigitLSTM(Architecture(hidden=4, layers=2))  # of two layers the module itself is called
    allowed = []
    network.lstm.register_forward_hook(lambda *_: allowed.append(torch.backends.cudnn.allow_tf32))
    images = torch.zeros(3, 28, 28, dtype=torch.uint8)
    evaluate.logits(network, images)
    evaluate.every_row(network, images)
    assert allowed == [False, False]
    assert torch.backends.cudnn.enabled


def test_a_gpu_would_distort_in_float32_too(uci: data.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed, conv2d = set(), functional.conv2d

    def watched(*arguments: Any, **options: Any) -> torch.Tensor:
        allowed.add(torch.backends.cudnn.allow_tf32)
        return conv2d(*arguments, **options)

    monkeypatch.setattr(functional, "conv2d", watched)
    images, labels = torch.tensor(uci.test_images[:20]), torch.tensor(uci.test_labels[:20])
    measure.measure(DigitLSTM(Architecture(hidden=4)), images, labels, 1.0, {})
    assert allowed == {False}


def test_measurements_agree_with_one_another(uci: data.Dataset) -> None:
    torch.manual_seed(0)
    network = DigitLSTM(Architecture(hidden=16))
    images, labels = torch.tensor(uci.test_images), torch.tensor(uci.test_labels)
    found = measure.measure(network, images, labels, temperature=2.0, thresholds={})

    assert found.images == 360
    assert [sum(row) for row in found.confusion] == torch.bincount(labels, minlength=10).tolist()
    assert sum(found.confusion[digit][digit] for digit in range(10)) / 360 == pytest.approx(found.accuracy)
    assert found.interval[0] < found.accuracy < found.interval[1]
    assert found.rows is not None
    assert len(found.rows) == 28
    assert found.rows[-1] == pytest.approx(found.accuracy)
    assert sum(bin_.count for bin_ in found.reliability) == 360

    assert len(found.mistakes) == 25
    confidences = [mistake.confidence for mistake in found.mistakes]
    assert confidences == sorted(confidences, reverse=True)
    for mistake in found.mistakes:
        assert mistake.label == labels[mistake.index] != mistake.answer
        shares = (network(images[mistake.index : mistake.index + 1] / 255) / 2.0).softmax(dim=1)[0]
        assert shares[mistake.answer].item() == pytest.approx(mistake.confidence, abs=1e-4)

    kinds = {entry.distortion for entry in found.distorted}
    assert kinds == {"rotate", "shift", "blur", "noise", "thickness", "contrast"}


def test_the_interval_is_wilsons(uci: data.Dataset) -> None:
    network = DigitLSTM(Architecture(hidden=4))
    images = torch.tensor(uci.test_images[:10])
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.copy_(torch.arange(10.0))  # the answer is always 9
    labels = torch.tensor([9] * 9 + [0])
    low, high = measure.measure(network, images, labels, 1.0, {}).interval
    assert (low, high) == pytest.approx((0.5958, 0.9821), abs=1e-4)  # 9 of 10, from the literature's tables


@pytest.mark.parametrize("label", [0, 9])
def test_the_interval_stays_within_0_and_1(uci: data.Dataset, label: int) -> None:
    network = DigitLSTM(Architecture(hidden=4))
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.copy_(torch.arange(10.0))  # the answer is always 9
    for count in range(10, 40):
        images, labels = torch.tensor(uci.test_images[:count]), torch.full((count,), label)
        low, high = measure.measure(network, images, labels, 1.0, {}).interval
        assert 0 <= low < high <= 1


def test_a_network_that_looks_ahead_has_no_accuracy_by_row(uci: data.Dataset) -> None:
    network = DigitLSTM(Architecture(hidden=4, bidirectional=True))
    found = measure.measure(network, torch.tensor(uci.test_images[:20]), torch.tensor(uci.test_labels[:20]), 1.0, {})
    assert found.rows is None
