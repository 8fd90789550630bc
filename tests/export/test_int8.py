"""The int8 graphs: the answer to an image does not depend on who else is in the batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from export import graph
from export.int8 import FULL_RANGE, REDUCED_RANGE, int8, quantise, with_sentinels
from export.network import Network, from_model
from scanline.verify import BATCHES, OPTIMISATIONS, THREADS
from tests.export.networks import ARCHITECTURES, compute, network, pytorch, strokes
from train.model import Architecture

LEVELS = pytest.mark.parametrize("levels", [FULL_RANGE, REDUCED_RANGE])


@LEVELS
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_it_gives_nearly_pytorchs_logits(kind: str, levels: int) -> None:
    model, rows = network(ARCHITECTURES[kind], scale=1.0), strokes(50)
    expected = pytorch(model, rows)
    found = compute(int8(from_model(model), levels), rows)
    assert np.abs(found - expected).max() < 0.1 * np.ptp(expected)


# Five times as large, most gates are nearly saturated: nearer to the sentinels' bound than trained networks come.
@pytest.mark.parametrize("scale", [1.0, 5.0])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_logits_are_the_same_bits_in_every_batch(kind: str, scale: float) -> None:
    rows = strokes(max(BATCHES))
    model = int8(from_model(network(ARCHITECTURES[kind], scale)), FULL_RANGE)
    alone = np.concatenate([compute(model, rows[i : i + 1]) for i in range(8)])
    for threads in THREADS:
        for optimisation in OPTIMISATIONS.values():
            for size in BATCHES:
                found = compute(model, rows[:size], threads, optimisation)[:8]
                np.testing.assert_array_equal(found, alone[: len(found)])


@pytest.mark.parametrize("poison", [1e30, -1e30, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_poisoned_neighbour_changes_nothing(kind: str, poison: float) -> None:
    rows = strokes(8)
    model = int8(from_model(network(ARCHITECTURES[kind])), FULL_RANGE)
    poisoned = rows.copy()
    poisoned[::2] = poison
    np.testing.assert_array_equal(compute(model, poisoned)[1::2], compute(model, rows)[1::2])


def test_without_sentinels_a_neighbour_does_change_the_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the tests above can fail: the same graph over a network whose extra units have no saturated gates."""

    def unpinned(network: Network) -> Network:
        pinned = with_sentinels(network)
        layers = [replace(layer, bias=np.where(np.abs(layer.bias) == 100, 0, layer.bias)) for layer in pinned.layers]
        return replace(pinned, layers=tuple(layers))

    monkeypatch.setattr("export.int8.with_sentinels", unpinned)
    rows = strokes(8)
    model = int8(from_model(network(ARCHITECTURES["plain"])), FULL_RANGE)
    assert not np.array_equal(compute(model, rows)[:1], compute(model, rows[:1]))


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_sentinels_change_no_other_unit(kind: str) -> None:
    plain = from_model(network(ARCHITECTURES[kind]))
    pinned = with_sentinels(plain)
    assert all(layer.hidden % 4 == 0 for layer in pinned.layers)
    first = pinned.layers[0]  # without the constant 1, which only the int8 graph feeds
    narrow = replace(first, input_weight=first.input_weight[:, :, :-1])
    rows = strokes(20)
    found = compute(graph.whole(replace(pinned, layers=(narrow, *pinned.layers[1:]))), rows)
    np.testing.assert_allclose(found, compute(graph.whole(plain), rows), atol=1e-5)


@LEVELS
def test_a_weight_is_within_half_a_step(levels: int) -> None:
    weight = np.random.default_rng(0).normal(size=(2, 40, 30)).astype(np.float32)
    weight[0, 3] = 0
    steps, scale = quantise(weight, levels)
    assert np.abs(steps).max() == levels
    assert (np.abs(steps * scale[:, :, None] - weight) <= 0.5001 * scale[:, :, None]).all()


def test_the_reduced_range_fits_into_16_bits() -> None:
    """Two products of an 8-bit activation and a weight are summed in 16 bits where there is no VNNI."""
    assert 2 * 255 * REDUCED_RANGE <= np.iinfo(np.int16).max < 2 * 255 * (REDUCED_RANGE + 1)


def test_edge_is_at_most_100_000_bytes_with_room_for_its_card() -> None:
    assert int8(from_model(network(Architecture(hidden=126))), FULL_RANGE).ByteSize() <= 100_000 - 1_500
