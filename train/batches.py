"""The batches of a run: which images a step shows, and how each is bent.

What is random about them is drawn for many steps at once, on the device; a step is left with one resampling. The draws
come from the run's seed and the number of the step alone, so a run repeats, and a run that was stopped goes on as if it
had not been.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from scanline.contract import CLASSES, COLUMNS, ROWS
from scanline.errors import InputError, UsageError
from train import augment, degrade, negatives
from train.processes import Processes
from train.recipe import Recipe

# what a random number is for
FIRST_WEIGHTS: Final = 0
ORDER_OF_EPOCH: Final = 1
DRAWS_OF_GROUP: Final = 2
NOISE: Final = 3

MOST_NEGATIVES: Final = 8192  # drawn for the whole run; each is bent differently every time
GROUP: Final = 64  # batches that are drawn at once: some 9 MB with 144 images each


@dataclass(frozen=True, kw_only=True)
class Digits:
    """The data of a run, on its device.

    Attributes:
        images: uint8 [n, 28, 28], to train on.
        labels: int64 [n].
        held_out_images: uint8 [m, 28, 28], to watch the accuracy on; m may be 0.
        held_out_labels: int64 [m].
    """

    images: Tensor
    labels: Tensor
    held_out_images: Tensor
    held_out_labels: Tensor


@dataclass(frozen=True, kw_only=True)
class Length:
    """How long a run is.

    Attributes:
        epoch: steps in which each image is shown once; the rest of an epoch's random order is left out.
        run: steps in all.
    """

    epoch: int
    run: int


def length(recipe: Recipe, images: int, processes: Processes) -> Length:
    """Count the steps of a run over so many images.

    Raises:
        InputError: there are fewer images than one batch has.
        UsageError: the processes can't share a batch evenly.
    """
    shared = recipe.batch + recipe.negatives
    if shared % processes.count:
        raise UsageError(f"a batch of {shared} images can't be shared evenly by {processes.count} processes")
    if images < recipe.batch:
        raise InputError(
            f"there are {images} images to train on, fewer than one batch of {recipe.batch}, beside those held out and "
            f"for testing: add images, or join the data with `--data mnist`, or `--data uci` without a network"
        )
    epoch = images // recipe.batch
    return Length(epoch=epoch, run=recipe.epochs * epoch if recipe.steps is None else recipe.steps)


def seed_generators(seed: int, purpose: int, *number: int) -> None:
    """Set the default generators, which a run draws from; SeedSequence makes unrelated states of near numbers."""
    torch.manual_seed(int(np.random.SeedSequence((seed, purpose, *number)).generate_state(1)[0]))


class Batches:
    """This process's share of each step's batch."""

    def __init__(self, digits: Digits, recipe: Recipe, *, seed: int, processes: Processes) -> None:
        """Draw the images of no digit, where the recipe has them.

        Args:
            digits: the images to show.
            recipe: how many at once, how far bent, and with how many negatives.
            seed: the run's.
            processes: those that share each batch.

        Raises:
            InputError, UsageError: as `length` does.
        """
        self.length = length(recipe, len(digits.labels), processes)
        self._recipe, self._seed, self._processes = recipe, seed, processes
        self._images, self._labels = digits.images, digits.labels
        self._digits = len(digits.labels)
        if recipe.negatives:  # behind the digits, with a label of their own
            count = min(MOST_NEGATIVES, self.length.run * recipe.negatives)
            drawn = negatives.draw(count, digits.images.cpu().numpy(), seed)
            self._images = torch.cat([digits.images, torch.from_numpy(drawn).to(digits.images)])
            self._labels = torch.cat([digits.labels, digits.labels.new_full((len(drawn),), CLASSES)])
        self._noise = None
        if recipe.degradation is not None:
            seed_generators(seed, NOISE)
            self._noise = degrade.Noise(recipe.batch + recipe.negatives, digits.images.device)
        self._group: _Group | None = None

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        """Give the images and labels of a step, float32 [share, 28, 28] and int64 [share], 10 for no digit."""
        epoch, batch = divmod(step, self.length.epoch)
        number, place = divmod(batch, GROUP)
        if self._group is None or self._group.number != (epoch, number):
            self._group = self._draw(epoch, number)
        rows = augment.to_rows(self._group.images[place])
        if self._group.bends is not None:
            rows = augment.bend(rows, self._group.bends[place])
        if self._noise is not None:
            noise = self._noise[step][self._processes.share(self._recipe.batch + self._recipe.negatives)]
            degrade.worse(rows, self._group.worse[place], noise)
        return rows, self._group.labels[place]

    def _draw(self, epoch: int, number: int) -> _Group:
        """Draw a group for all processes, so that their number changes nothing, and keep what is this one's."""
        recipe, device = self._recipe, self._images.device
        seed_generators(self._seed, ORDER_OF_EPOCH, epoch)
        first = number * GROUP
        batches = min(GROUP, self.length.epoch - first)
        order = torch.randperm(self._digits, device=device)
        chosen = order[first * recipe.batch :][: batches * recipe.batch].view(batches, recipe.batch)

        seed_generators(self._seed, DRAWS_OF_GROUP, epoch, number)
        if recipe.negatives:
            shape = (batches, recipe.negatives)
            drawn = torch.randint(self._digits, len(self._labels), shape, device=device)
            chosen = torch.cat([chosen, drawn], dim=1)
        bends = None
        if recipe.distortion is not None:
            done = (epoch * self.length.epoch + first) / self.length.run
            limits = recipe.distortion.scaled(1 - (1 - recipe.last_distortion) * done)
            bends = augment.draw(limits, chosen.numel(), device).view(*chosen.shape, 2, augment.SURFACES)
        share = self._processes.share(chosen.shape[1])
        worse = []
        if recipe.degradation is not None:
            strengths = degrade.draw(recipe.degradation, chosen.numel()).view(*chosen.shape, degrade.KINDS)
            worse = degrade.choose(strengths[:, share], device)
        chosen = chosen[:, share]
        images = self._images.index_select(0, chosen.flatten())  # an image at a time, not a pixel as indexing does
        return _Group(
            number=(epoch, number),
            images=images.view(*chosen.shape, ROWS, COLUMNS),
            labels=self._labels[chosen],
            bends=None if bends is None else bends[:, share],
            worse=worse,
        )


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Some neighbouring batches of an epoch.

    Attributes:
        number: the epoch and the group's place in it.
        images: uint8 [batches, share, 28, 28].
        labels: int64 [batches, share].
        bends: what `augment.bend` takes for each image, float32 [batches, share, 2, 28], or None.
        worse: what `degrade.worse` takes for each batch; nothing where the recipe has none.
    """

    number: tuple[int, int]
    images: Tensor
    labels: Tensor
    bends: Tensor | None
    worse: list[list[degrade.Chosen]]
