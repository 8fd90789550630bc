"""A run's folder: the weights, how they were made and how good they are.

    runs/NAME/config.json               what was asked for, and with what it was done    from the start
    runs/NAME/checkpoint.safetensors    the weights, and nothing but weights             when training is done
    runs/NAME/figures.json              accuracy, calibration                            when training is done

All three are read without running anything that they hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from shlex import quote
from typing import Final, TypeVar

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from scanline.errors import ModelError
from scanline.writing import replacing
from train.model import Architecture, DigitLSTM
from train.recipe import Recipe

CONFIG: Final = "config.json"
WEIGHTS: Final = "checkpoint.safetensors"
FIGURES: Final = "figures.json"


@dataclass(frozen=True, kw_only=True)
class Config:
    """How a run is made; enough to make it again.

    Attributes:
        preset: the name of the recipe, such as ``edge``.
        architecture: the network's shape.
        parameters: the number of trained weights.
        recipe: how it is trained.
        data: the data specifications, such as ``("mnist",)`` (see train.data).
        data_dir: the folder that held MNIST's files, or None where they were downloaded.
        dataset: the name of the data, such as ``mnist``.
        dataset_sha256: the checksum of the training images and labels.
        test_sha256: that of the test images and labels; empty in runs of before it was kept.
        trial: whether the run leaves the test set alone and is measured on its validation images.
        calibrated_by: the run that gave the temperature, so that this one trained on every image; else None.
        teacher: the runs whose answers have a share of the target.
        teacher_sha256: the checksums of their weights; none in runs of before they were kept.
        seed: the number that all its random draws come from.
        device: ``cpu`` or ``cuda``.
        hardware: the machine, in words.
        processes: the number of processes that shared each batch.
        torch: the version of PyTorch.
        source_revision: the commit of the code, or ``unknown``.
    """

    preset: str
    architecture: Architecture
    parameters: int
    recipe: Recipe
    data: tuple[str, ...]
    data_dir: str | None
    dataset: str
    dataset_sha256: str
    trial: bool
    calibrated_by: str | None
    teacher: tuple[str, ...]
    seed: int
    device: str
    hardware: str
    processes: int
    torch: str
    source_revision: str
    test_sha256: str = ""
    teacher_sha256: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Figures:
    """How good a finished run's network is.

    Attributes:
        accuracy: the share of right answers, 0 to 1, on the images that accuracy_method names.
        accuracy_method: how that figure was measured, in a sentence.
        temperature: logits are divided by it before the softmax (Guo et al. 2017, arXiv:1706.04599).
        temperature_method: how it was found, in a sentence.
        reject: the thresholds of the reject option (scanline.reject); empty where the network learned of no negatives.
        seconds: the time spent in training, with augmentation and without start-up, in seconds.
    """

    accuracy: float
    accuracy_method: str
    temperature: float
    temperature_method: str
    reject: Mapping[str, float]
    seconds: float


@dataclass(frozen=True)
class Checkpoint:
    """A finished run.

    Attributes:
        model: the network in evaluation mode, on the CPU.
        config: how it was made.
        figures: how good it is.
    """

    model: DigitLSTM
    config: Config
    figures: Figures


T = TypeVar("T", Config, Figures)


def load(run: Path) -> Checkpoint:
    """Read a finished run.

    Args:
        run: its folder, such as ``runs/edge``.

    Raises:
        ModelError: there is no run, it is not finished, or a file of it is damaged.
    """
    config = _finished(run)
    figures = _read(run / FIGURES, Figures)
    try:
        model = DigitLSTM(config.architecture)
    except ValueError as error:
        raise ModelError(f"{run / CONFIG} is damaged: {error}") from None
    try:
        model.load_state_dict(load_file(run / WEIGHTS))
    except (
        SafetensorError,
        RuntimeError,
    ) as error:  # not a safetensors file, or other names and shapes than config.json's
        raise ModelError(f"{run / WEIGHTS} is damaged or is not the network of {CONFIG}: {error}") from None
    return Checkpoint(model.eval(), config, figures)


def weights_sha256(run: Path) -> str:
    """Give the checksum of a finished run's weights.

    Raises:
        ModelError: there is no run, or it is not finished.
    """
    _finished(run)
    return sha256((run / WEIGHTS).read_bytes()).hexdigest()


def load_config(run: Path) -> Config:
    """Read how a run is made; it need not be finished.

    Raises:
        ModelError: there is no run in that folder, or its configuration is damaged.
    """
    if not (run / CONFIG).is_file():
        raise ModelError(f"{run} holds no training run, {CONFIG} is missing; expected what `scanline train` wrote")
    return _read(run / CONFIG, Config)


def resume_command(run: Path, config: Config, *options: str) -> str:
    """Give the command that goes on with a run, in as many processes as it began with."""
    start = "scanline" if config.processes == 1 else f"torchrun --nproc-per-node {config.processes} -m scanline"
    return " ".join([start, "train", "--resume", *options, "--out", quote(str(run))])


def save_config(run: Path, config: Config) -> None:
    """Begin a run's folder with its configuration."""
    _write(run / CONFIG, config)


def save(run: Path, model: DigitLSTM, figures: Figures) -> None:
    """Finish a run: its weights first, then the figures that say it is whole.

    Raises:
        OSError: the folder can't be written to, or the disk is full.
    """
    # as bytes: a full disk is an OSError then, and not one of safetensors' own
    content = to_bytes({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()})
    with replacing(run / WEIGHTS) as path:
        path.write_bytes(content)
    _write(run / FIGURES, figures)


def _finished(run: Path) -> Config:
    config = load_config(run)
    for name in (WEIGHTS, FIGURES):
        if not (run / name).is_file():
            raise ModelError(f"{run} is not finished, {name} is missing: go on with `{resume_command(run, config)}`")
    return config


def _read(path: Path, kind: type[T]) -> T:
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'the file'}: {problem['msg']}" for problem in error.errors()
        )
        raise ModelError(f"{path} is damaged: {problems}") from None


def _write(path: Path, values: Config | Figures) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(TypeAdapter(type(values)).dump_json(values, indent=2) + b"\n")
