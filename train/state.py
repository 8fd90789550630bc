"""What changes while a run trains, and its file, so that an interrupted run goes on as if it had not been."""

from __future__ import annotations

import copy
import io
import json
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR

from scanline.errors import ModelError
from scanline.writing import replacing
from train.model import DigitLSTM
from train.recipe import Recipe

STATE: Final = "state.pt"
METRICS: Final = "metrics.jsonl"


@dataclass(kw_only=True)
class Training:
    """Everything that a step changes.

    Attributes:
        network: the network in training.
        average: the running mean of its weights, which is the network that is kept.
        optimizer: AdamW and its moments.
        schedule: the learning rate's.
        loss_sum: the sum of the losses since the last line of metrics, a scalar on the device: of this process's
            images, and as it is saved the mean over all processes.
        step: the number of steps done.
        history: the lines of metrics.jsonl.
        seconds: the time spent in the loop.
    """

    network: DigitLSTM
    average: DigitLSTM
    optimizer: AdamW
    schedule: LRScheduler
    loss_sum: Tensor
    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0

    def save(self, run: Path) -> None:
        """Write metrics.jsonl and the state into the run's folder."""
        with replacing(run / METRICS) as path:
            path.write_text("".join(json.dumps(line) + "\n" for line in self.history), encoding="utf-8")
        values = {name: part.state_dict() for name, part in self._parts().items()}
        numbers = {name: getattr(self, name) for name in ("loss_sum", "step", "history", "seconds")}
        content = io.BytesIO()  # a full disk is an OSError that names the file; torch.save's own error does not
        torch.save(values | numbers, content)
        with replacing(run / STATE) as path:
            path.write_bytes(content.getbuffer())

    def restore(self, run: Path) -> None:
        """Go back to what was saved; nothing happens where the run was stopped before it saved anything.

        Raises:
            ModelError: the state is damaged. It is read without unpickling any class.
            OSError: it can't be read.
        """
        path = run / STATE
        if not path.exists():
            return
        content = io.BytesIO(path.read_bytes())
        try:
            values: dict[str, Any] = torch.load(content, map_location="cpu", weights_only=True)
            for name, part in self._parts().items():
                part.load_state_dict(values[name])
            self.loss_sum, self.step = values["loss_sum"].to(self.loss_sum.device), values["step"]
            self.history, self.seconds = values["history"], values["seconds"]
        except torch.OutOfMemoryError:  # a RuntimeError, and no damage
            raise
        except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, ValueError) as error:
            what = str(error).partition("\n")[0]  # what follows is PyTorch's advice to programmers
            raise ModelError(f"{path} is damaged ({what}): start the run again in another folder") from None

    def _parts(self) -> dict[str, Any]:
        return {
            "network": self.network,
            "average": self.average,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
        }


def begin(network: DigitLSTM, recipe: Recipe, *, steps: int, device: torch.device) -> Training:
    """Give the state before the first step.

    Args:
        network: with its first weights, on the device.
        recipe: how it is trained.
        steps: the number of steps in all.
        device: where the run computes.
    """
    adam = optimizer(network, recipe)
    average = copy.deepcopy(network)
    average.lstm.flatten_parameters()  # a copy's weights lie apart, and cuDNN would join them again at every use
    return Training(
        network=network,
        average=average,
        optimizer=adam,
        schedule=(
            OneCycleLR(adam, max_lr=recipe.learning_rate, total_steps=steps)
            if recipe.one_cycle
            else ConstantLR(adam, factor=1)
        ),
        loss_sum=torch.zeros((), device=device),
    )


def optimizer(network: DigitLSTM, recipe: Recipe, *, fused: bool = True) -> AdamW:
    """Give the recipe's optimizer of the weights that training changes; fused, a step takes half the time on a CPU."""
    trained = (parameter for parameter in network.parameters() if parameter.requires_grad)
    return AdamW(trained, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=fused)
