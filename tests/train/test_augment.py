from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from train import augment, data, distortions
from train.recipe import Distortion

CPU = torch.device("cpu")
NONE = Distortion(degrees=0, scale=0, shear=0, shift=0, elastic=0)


@pytest.fixture(scope="module")
def rows(uci: data.Dataset) -> Tensor:
    return augment.to_rows(torch.tensor(uci.train_images[:64]))


def centre(images: Tensor) -> Tensor:
    """The centre of mass, [n, 2], x and y in pixels."""
    axis = torch.arange(28.0)
    mass = images.sum(dim=(1, 2))
    return (
        torch.stack([(images.sum(dim=1) * axis).sum(dim=1), (images.sum(dim=2) * axis).sum(dim=1)], dim=1)
        / mass[:, None]
    )


def bar() -> Tensor:
    image = torch.zeros(1, 28, 28)
    image[:, 4:24, 12:16] = 1
    return image


def test_pixels_become_shares_of_ink() -> None:
    pixels = torch.tensor([[0, 51, 255]], dtype=torch.uint8)
    torch.testing.assert_close(augment.to_rows(pixels), torch.tensor([[0, 0.2, 1]]))


def test_no_distortion_changes_nothing(rows: Tensor) -> None:
    torch.testing.assert_close(augment.bend(rows, augment.draw(NONE, 64, CPU)), rows, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", [field.name for field in fields(Distortion)])
def test_every_kind_of_distortion_bends_every_image_its_own_way(rows: Tensor, name: str) -> None:
    torch.manual_seed(0)
    limits = replace(NONE, **{name: {"degrees": 15, "shift": 2, "elastic": 2}.get(name, 0.2)})
    same = rows[:1].expand(64, -1, -1)
    bent = augment.bend(same, augment.draw(limits, 64, CPU))
    assert ((bent - same).abs().amax(dim=(1, 2)) > 0.1).float().mean() > 0.7  # a small draw changes little
    assert len({image.numpy().tobytes() for image in bent}) == 64
    assert 0 <= bent.min() <= bent.max() <= 1 + 1e-5


def test_shifts_stay_within_their_limit(rows: Tensor) -> None:
    torch.manual_seed(0)
    moved = centre(augment.bend(rows, augment.draw(replace(NONE, shift=2), 64, CPU))) - centre(rows)
    assert moved.abs().max() <= 2 + 1e-3
    assert moved.abs().max() > 1.5
    assert moved.min() < 0 < moved.max()


def test_a_part_of_a_batch_is_bent_as_in_the_whole(rows: Tensor) -> None:
    torch.manual_seed(0)
    weights = augment.draw(Distortion(degrees=13, scale=0.1, shear=0.1, shift=2, elastic=1.6), 64, CPU)
    torch.testing.assert_close(augment.bend(rows, weights)[32:], augment.bend(rows[32:], weights[32:]))


def test_rotation_turns_anticlockwise() -> None:
    turned = distortions.rotate(bar(), 90)
    torch.testing.assert_close(turned, bar().transpose(1, 2), atol=1e-4, rtol=0)
    slanted = distortions.rotate(bar(), 20)[0]
    assert slanted[6].argmax() < slanted[21].argmax()  # the top leans to the left


def test_shift_moves_right_and_down(rows: Tensor) -> None:
    torch.testing.assert_close(
        centre(distortions.shift(rows, 2)) - centre(rows), torch.full((64, 2), 2.0), atol=1e-3, rtol=0
    )


def test_blur_keeps_the_ink_and_spreads_it() -> None:
    blurred = distortions.blur(bar(), 1)
    assert blurred.sum().item() == pytest.approx(bar().sum().item(), rel=1e-3)
    assert blurred.max() < 1
    assert (blurred > 0.01).sum() > bar().sum()


def test_noise_repeats_and_stays_in_range(rows: Tensor) -> None:
    noisy = distortions.noise(rows, 0.2)
    assert torch.equal(noisy, distortions.noise(rows, 0.2))
    assert 0 <= noisy.min() <= noisy.max() <= 1
    assert (noisy - rows).std().item() == pytest.approx(0.15, abs=0.05)  # half of it is cut off at the background


def test_thickness_adds_or_takes_a_pixel_on_each_side() -> None:
    widths = [distortions.thickness(bar(), pixels)[0, 14].sum().item() for pixels in (-1, -0.5, 0.5, 1)]
    assert widths == pytest.approx([2, 3, 5, 6])


def test_contrast_leaves_a_share_of_the_ink(rows: Tensor) -> None:
    torch.testing.assert_close(distortions.contrast(rows, 0.25), rows * 0.25)
