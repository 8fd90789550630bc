from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from train import augment, data, degrade, distortions
from train.recipe import Degradation

CPU = torch.device("cpu")
NONE = Degradation(share=1, thickness=0, blur=0, fading=0, noise=0)
KINDS = [field.name for field in fields(Degradation) if field.name != "share"]


@pytest.fixture(scope="module")
def rows(uci: data.Dataset) -> Tensor:
    return augment.to_rows(torch.tensor(uci.train_images[:64]))


def made_worse(rows: Tensor, strengths: Tensor, noise: Tensor) -> Tensor:
    result = rows.clone()
    degrade.worse(result, degrade.choose(strengths.unsqueeze(0), CPU)[0], noise)
    return result


def worse(rows: Tensor, degradation: Degradation) -> Tensor:
    torch.manual_seed(0)
    noise = degrade.Noise(len(rows), CPU)[0]
    return made_worse(rows, degrade.draw(degradation, len(rows)), noise)


def strengths(kind: str, strength: float) -> Tensor:
    result = torch.zeros(64, degrade.KINDS)
    result[:, KINDS.index(kind)] = strength
    return result


def test_batches_are_chosen_for_as_each_alone() -> None:
    torch.manual_seed(0)
    strengths = degrade.draw(replace(NONE, share=0.3, noise=1), 3 * 64).view(3, 64, degrade.KINDS)
    for together, batch in zip(degrade.choose(strengths, CPU), strengths, strict=True):
        for (images, amounts), kind in zip(together, batch.unbind(dim=1), strict=True):
            assert torch.equal(images, kind.nonzero().squeeze(1))
            assert torch.equal(amounts.flatten(), kind[images])


def test_no_degradation_changes_nothing(rows: Tensor) -> None:
    torch.testing.assert_close(worse(rows, NONE), rows)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_makes_every_image_worse_its_own_way(rows: Tensor, kind: str) -> None:
    same = rows[:1].expand(64, -1, -1)
    changed = worse(same, replace(NONE, **{kind: 0.8}))
    assert ((changed - same).abs().amax(dim=(1, 2)) > 0.05).float().mean() > 0.8  # a small draw changes little
    assert len({image.numpy().tobytes() for image in changed}) == 64
    assert 0 <= changed.min() <= changed.max() <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_share_of_the_images_gets_it(rows: Tensor, kind: str) -> None:
    torch.manual_seed(0)
    drawn = degrade.draw(replace(NONE, share=0.25, **{kind: 1}), 4000)
    assert (drawn[:, KINDS.index(kind)] != 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert drawn.abs().max() <= 1


def test_strokes_grow_as_often_as_they_shrink() -> None:
    torch.manual_seed(0)
    drawn = degrade.draw(replace(NONE, thickness=0.5), 4000)[:, 0]
    assert (drawn < 0).float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert -0.5 <= drawn.min() < -0.45
    assert 0.45 < drawn.max() <= 0.5


def test_a_strength_means_what_it_does_in_the_report(rows: Tensor) -> None:
    noise = degrade.Noise(64, CPU)[0]
    for pixels in (-0.6, 0.6):
        found = made_worse(rows, strengths("thickness", pixels), noise)
        torch.testing.assert_close(found, distortions.thickness(rows, pixels))
    blurred = distortions.blur(rows, degrade.BLUR)
    torch.testing.assert_close(made_worse(rows, strengths("blur", 1), noise), blurred, atol=0.01, rtol=0)
    faded = distortions.contrast(rows, 0.3)
    torch.testing.assert_close(made_worse(rows, strengths("fading", 0.7), noise), faded)
    noisy = (rows + 0.2 * noise).clamp(0, 1)
    torch.testing.assert_close(made_worse(rows, strengths("noise", 0.2), noise), noisy)


def test_every_step_has_noise_of_its_own() -> None:
    noise = degrade.Noise(16, CPU)
    assert noise[3].shape == (16, 28, 28)
    assert torch.equal(noise[3], noise[3])
    assert len({noise[step].numpy().tobytes() for step in range(1000)}) == 1000
    assert noise[0].std().item() == pytest.approx(1, abs=0.05)
