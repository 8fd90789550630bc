"""The training loop.

All data lies on the device, and no step waits for it; only a line of metrics does. Every random draw comes from the
run's seed and the number of the epoch or step, so a run repeats, and a run that was stopped goes on as if it had not
been.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from scanline import console
from scanline.contract import CLASSES
from scanline.errors import DivergenceError, InputError, UsageError
from train import augment, evaluate, initialise, interrupt, negatives, state
from train.model import Architecture, DigitLSTM
from train.objective import Objective
from train.processes import Processes
from train.recipe import Distortion, Recipe

# what a random number is for
FIRST_WEIGHTS: Final = 0
ORDER_OF_EPOCH: Final = 1
DRAWS_OF_STEP: Final = 2

NEGATIVES_DRAWN: Final = 8192  # for the whole run; each is bent differently every time


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


def fit(
    architecture: Architecture,
    recipe: Recipe,
    digits: Digits,
    *,
    teachers: Sequence[DigitLSTM] = (),
    seed: int,
    run: Path,
    processes: Processes,
) -> state.Training:
    """Train a network, from the beginning or from where the run's folder says that it was stopped.

    Args:
        architecture: its shape.
        recipe: how it is trained.
        digits: on what.
        teachers: trained networks whose answers have a share of the target (train.recipe).
        seed: 0 or more.
        run: the folder for metrics.jsonl and the state, which are written after every epoch.
        processes: those that share each batch.

    Returns:
        The state after the last step; `average` is the network to keep.

    Raises:
        InputError: there are fewer images than one batch has.
        UsageError: the processes can't share a batch evenly.
        DivergenceError: the loss is not finite.
        KeyboardInterrupt: Ctrl-C; the state is saved.
    """
    batches, steps = count_steps(recipe, len(digits.labels), processes)
    _seed(processes.device, seed, FIRST_WEIGHTS, 0)
    network = initialise.draw(architecture, recipe).to(processes.device)
    images, labels = _with_negatives(digits, recipe, seed)
    training = state.begin(network, recipe, steps=steps, device=processes.device)
    training.restore(run)
    objective: nn.Module = Objective(network, recipe, teachers).to(processes.device)
    if processes.count > 1:
        objective = DistributedDataParallel(objective)

    bar = console.progress("steps")
    bar.disable = bar.disable or processes.rank > 0
    with bar, interrupt.deferred() as stop:
        task = bar.add_task("training", total=steps, completed=training.step)
        order, began = torch.empty(0), time.perf_counter() - training.seconds
        for step in range(training.step, steps):
            epoch, batch = divmod(step, batches)
            if batch == 0 or not len(order):
                _seed(processes.device, seed, ORDER_OF_EPOCH, epoch)
                order = torch.randperm(len(digits.labels), device=processes.device)
            _seed(processes.device, seed, DRAWS_OF_STEP, step)
            chosen = order[batch * recipe.batch :][: recipe.batch]
            if recipe.negatives:
                drawn = torch.randint(len(order), len(labels), (recipe.negatives,), device=processes.device)
                chosen = torch.cat([chosen, drawn])
            shown = _batch(images, labels, chosen, _distortion(recipe, step / steps), processes)
            _step(training, objective, recipe, *shown)
            training.seconds = time.perf_counter() - began
            bar.advance(task)

            if (step + 1) % batches == 0 if recipe.report_every is None else step % recipe.report_every == 0:
                _report(training, recipe, digits, shown, processes)
            if processes.rank == 0 and ((step + 1) % batches == 0 or step + 1 == steps or stop.is_set()):
                training.save(run)
            if stop.is_set():
                raise KeyboardInterrupt
    return training


def count_steps(recipe: Recipe, images: int, processes: Processes) -> tuple[int, int]:
    """Give the steps of an epoch and of the run over so many images.

    Raises:
        InputError: there are fewer images than one batch has.
        UsageError: the processes can't share a batch evenly.
    """
    shared = recipe.batch + recipe.negatives
    if shared % processes.count:
        raise UsageError(f"a batch of {shared} images can't be shared evenly by {processes.count} processes")
    if images < recipe.batch:
        raise InputError(
            f"there are {images} images to train on, fewer than one batch of {recipe.batch}: add images, or join the "
            f"data with `--data mnist`"
        )
    batches = images // recipe.batch  # the rest of an epoch's random order is left out
    return batches, recipe.epochs * batches if recipe.steps is None else recipe.steps


def _seed(device: torch.device, seed: int, purpose: int, number: int) -> None:
    """Set the default generators that a run draws from; SeedSequence makes unrelated states of neighbouring numbers."""
    drawn = int(np.random.SeedSequence((seed, purpose, number)).generate_state(1)[0])
    # torch.manual_seed does this for every kind of device that there might be, which takes a hundredth of a step
    torch.default_generator.manual_seed(drawn)
    if device.type == "cuda":
        torch.cuda.manual_seed(drawn)


def _with_negatives(digits: Digits, recipe: Recipe, seed: int) -> tuple[Tensor, Tensor]:
    """Give the images and labels to train on, followed by images of no digit where the recipe has them, label 10."""
    if not recipe.negatives:
        return digits.images, digits.labels
    drawn = torch.from_numpy(negatives.draw(NEGATIVES_DRAWN, digits.images.cpu().numpy(), seed)).to(digits.images)
    return torch.cat([digits.images, drawn]), torch.cat([digits.labels, digits.labels.new_full((len(drawn),), CLASSES)])


def _distortion(recipe: Recipe, done: float) -> Distortion | None:
    """Give the distortion when this share of the steps is done, 0 to 1."""
    if recipe.distortion is None:
        return None
    return recipe.distortion.scaled(1 - (1 - recipe.last_distortion) * done)


def _batch(
    images: Tensor, labels: Tensor, chosen: Tensor, distortion: Distortion | None, processes: Processes
) -> tuple[Tensor, Tensor]:
    """Give this process's share of a batch, bent: float32 [share, 28, 28] and int64 [share]."""
    share = processes.share(len(chosen))
    rows = augment.to_rows(images[chosen[share]])
    if distortion is not None:  # drawn for the whole batch, so that the number of processes changes nothing
        rows = augment.bend(rows, augment.draw(distortion, len(chosen), processes.device)[share])
    return rows, labels[chosen[share]]


def _step(training: state.Training, objective: nn.Module, recipe: Recipe, rows: Tensor, labels: Tensor) -> None:
    """Change the weights once, and let their running mean follow."""
    training.network.train()
    with torch.autocast(rows.device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
        loss: Tensor = objective(rows, labels)
    training.optimizer.zero_grad()
    torch.autograd.backward(loss)
    training.optimizer.step()
    training.schedule.step()
    training.loss_sum += loss.detach()
    decay = min(recipe.average_decay, training.step / (training.step + 10))  # the first weights are soon forgotten
    with torch.no_grad():
        for mean, weights in zip(training.average.parameters(), training.network.parameters(), strict=True):
            mean.lerp_(weights, 1 - decay)
    training.step += 1


def _report(
    training: state.Training, recipe: Recipe, digits: Digits, batch: tuple[Tensor, Tensor], processes: Processes
) -> None:
    """Add a line to the history: here the host waits for the device."""
    if processes.count > 1:
        distributed.all_reduce(training.loss_sum)
    steps = training.step - (int(training.history[-1]["step"]) if training.history else 0)
    loss = training.loss_sum.item() / steps / processes.count
    training.loss_sum.zero_()
    if not math.isfinite(loss):
        raise DivergenceError(
            f"the loss is {loss} after step {training.step}, so the weights are lost; try again, in another "
            f"--out, with a lower --learning-rate than {recipe.learning_rate:g}, or look for unusual images in the data"
        )
    line = {"step": training.step, "loss": loss, "seconds": round(training.seconds, 3)}
    if recipe.report_every is not None:  # on the batch that the step was made with, after it
        rows, labels = batch
        line["batch_accuracy"] = evaluate.accuracy(evaluate.logits(training.network, rows), labels)
    elif len(digits.held_out_labels):
        answers = evaluate.logits(training.average, digits.held_out_images)
        line["validation_accuracy"] = evaluate.accuracy(answers, digits.held_out_labels)
    training.history.append(line)
    if processes.rank == 0:
        console.err.print(" ".join(f"{name} {value:.5g}" for name, value in line.items()))
