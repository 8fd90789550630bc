"""The training loop.

All data lies on the device, and no step waits for it; only a line of metrics does.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from signal import SIGTERM
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from scanline import console
from scanline.errors import DivergenceError
from scanline.signals import deferred, ending
from train import evaluate, initialise, state
from train.batches import FIRST_WEIGHTS, Batches, Digits, seed_generators
from train.model import Architecture, DigitLSTM
from train.objective import Objective
from train.processes import Processes
from train.recipe import Recipe

AGREE_EVERY: Final = 16  # steps, at which several processes tell one another whether they are to stop


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
        KeyboardInterrupt, SystemExit: Ctrl-C, SIGTERM; the state is saved.
    """
    shown = Batches(digits, recipe, seed=seed, processes=processes)
    steps = shown.length.run
    seed_generators(seed, FIRST_WEIGHTS, 0)
    network = initialise.draw(architecture, recipe).to(processes.device)
    training = state.begin(network, recipe, steps=steps, device=processes.device)
    training.restore(run)
    objective: nn.Module = Objective(network, recipe, teachers).to(processes.device)
    if processes.count > 1:
        objective = DistributedDataParallel(objective)

    # Processes stop after the same step, as in every one each waits for the others.
    agreement = 1 if processes.count == 1 else AGREE_EVERY
    bar = console.progress("steps")
    bar.disable = bar.disable or processes.rank > 0
    with bar, deferred() as asked:
        task = bar.add_task("training", total=steps, completed=training.step)
        began = time.perf_counter() - training.seconds
        for step in range(training.step, steps):
            batch = shown[step]
            _step(training, objective, recipe, *batch)
            whole_epoch, last = training.step % shown.length.epoch == 0, training.step == steps
            if last:
                processes.wait()
            training.seconds = time.perf_counter() - began
            bar.advance(task)

            if last or (whole_epoch if recipe.report_every is None else step % recipe.report_every == 0):
                _report(training, recipe, digits, batch, processes)
            stop = (last or training.step % agreement == 0) and processes.any_asks(asked=bool(asked))
            if whole_epoch or last or stop:
                processes.average(training.loss_sum)  # all of them go on from the file of one
                if processes.rank == 0:
                    training.save(run)
            if stop:
                raise ending(asked[0] if asked else SIGTERM)
    return training


def _step(training: state.Training, objective: nn.Module, recipe: Recipe, rows: Tensor, labels: Tensor) -> None:
    """Change the weights once, and let their running mean follow."""
    training.network.train()
    with torch.autocast(rows.device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
        loss: Tensor = objective(rows, labels, training.step)
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
    processes.average(training.loss_sum)
    steps = training.step - (int(training.history[-1]["step"]) if training.history else 0)
    loss = training.loss_sum.item() / steps
    training.loss_sum.zero_()
    # the loss is that of the weights before the last step
    sound = torch.stack([weights.isfinite().all() for weights in training.network.parameters()]).all()
    if not math.isfinite(loss) or not sound:
        raise DivergenceError(
            f"the loss is {loss} after step {training.step}, and the weights are lost; try again, in another "
            f"--out, with a lower --learning-rate than {recipe.learning_rate:g}, or look for unusual images in the data"
        )
    line = {"step": training.step, "loss": loss, "seconds": round(training.seconds, 3)}
    if recipe.report_every is not None:  # on the batch that the step was made with, after it
        rows, labels = batch
        accuracy = evaluate.accuracy(evaluate.logits(training.network, rows), labels)
        mean = torch.tensor(accuracy, dtype=torch.float64, device=rows.device)
        processes.average(mean)
        line["batch_accuracy"] = mean.item()
    elif len(digits.held_out_labels):
        answers = evaluate.logits(training.average, digits.held_out_images)
        line["validation_accuracy"] = evaluate.accuracy(answers, digits.held_out_labels)
    training.history.append(line)
    if processes.rank == 0:
        console.err.print(" ".join(f"{name} {value:.5g}" for name, value in line.items()))
