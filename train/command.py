"""`scanline train`: from a data set to a run's folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Final, TypedDict

import torch
from rich.table import Table

from scanline import console, signals
from scanline.errors import ModelError, UsageError
from scanline.lock import held
from scanline.settings import flag
from train import (
    batches,
    calibration,
    checkpoint,
    data,
    evaluate,
    loop,
    measure,
    origin,
    processes,
    report,
    state,
)
from train.batches import Digits
from train.checkpoint import Config, Figures
from train.model import DigitLSTM
from train.recipe import PRESETS, Recipe
from train.settings import Settings

LOCK: Final = "lock"
FILES: Final = (checkpoint.CONFIG, checkpoint.WEIGHTS, checkpoint.FIGURES, state.STATE, state.METRICS, report.HTML,
                report.JSON)  # fmt: skip


class Paths(TypedDict):
    """What a run reads, as its configuration keeps it: by paths that hold wherever it goes on or is exported from."""

    data: tuple[str, ...]
    data_dir: str | None
    calibrated_by: str | None
    teacher: tuple[str, ...]


def run(settings: Settings) -> int:
    """Train, measure, and write the run's folder.

    Raises:
        UsageError: options that contradict one another, or the run that is to go on.
        InputError: data that can't be used.
        ModelError: a run to go on with, to be calibrated by or to learn from that is missing or damaged.
        DivergenceError: the loss is not finite.
        KeyboardInterrupt, SystemExit: Ctrl-C, SIGTERM; what there is of the run is saved.
    """
    signals.end_in_good_order()
    begun = _begun(settings) if settings.resume else None
    if begun is not None and (settings.out / checkpoint.FIGURES).exists():
        console.err.print(f"{settings.out} is finished already")
        return 0
    on_cpu = begun is not None and begun.device == "cpu" and settings.device == "auto"  # it goes on where it began
    with processes.join("cpu" if on_cpu else settings.device) as here:
        config, dataset = _begin(settings, here) if begun is None else (begun, _resume(settings, begun, here))
        _check_held_out(config)
        digits = split(dataset, hold_out=config.calibrated_by is None, device=here.device)
        steps = batches.length(config.recipe, len(digits.labels), here).run  # before there is a folder, if too few
        what = f"{config.preset} ({config.parameters:,} weights) by {len(digits.labels):,} images of {config.dataset}"
        where = origin.hardware(here.device)  # as it is now: a run may go on on another machine
        title = f"training {what} in {steps:,} steps, on {where}"
        with _folder(settings, config, title) if here.rank == 0 else nullcontext():
            try:
                training = loop.fit(
                    config.architecture,
                    config.recipe,
                    digits,
                    teachers=[checkpoint.load(Path(run)).model for run in config.teacher],
                    seed=config.seed,
                    run=settings.out,
                    processes=here,
                )
                if here.rank == 0:
                    with signals.deferred() as asked:  # an exception amid the drawing of a report might be lost
                        found = _finish(settings, config, dataset, digits, training, asked=asked)
            except (KeyboardInterrupt, SystemExit):
                if here.rank == 0:
                    console.err.print(f"stopped; `{checkpoint.resume_command(settings.out, config)}` goes on")
                raise
        if here.rank == 0:
            _show(settings, config, *found)  # the run is whole, even if nobody reads this
    return 0


def split(dataset: data.Dataset, *, hold_out: bool, device: torch.device) -> Digits:
    """Bring the training images to the device.

    Args:
        dataset: the data.
        hold_out: whether to keep the validation split out of training.
        device: where the run computes.
    """
    held_out = dataset.held_out & hold_out
    return Digits(
        images=torch.tensor(dataset.train_images[~held_out], device=device),
        labels=torch.tensor(dataset.train_labels[~held_out], device=device),
        held_out_images=torch.tensor(dataset.train_images[held_out], device=device),
        held_out_labels=torch.tensor(dataset.train_labels[held_out], device=device),
    )


def _begin(settings: Settings, here: processes.Processes) -> tuple[Config, data.Dataset]:
    if here.rank == 0:
        _check_unused(settings.out)  # before the data is loaded; once more when the folder is this run's alone
    paths = _paths(settings)
    _check_kept(paths)
    _check_calibrated_by(settings)
    _check_teachers(settings)
    dataset = data.load(settings.data, settings.data_dir)
    preset = PRESETS[settings.preset]
    config = Config(
        preset=settings.preset,
        architecture=preset.architecture,
        parameters=DigitLSTM(preset.architecture).trained_weights(),
        recipe=_changed(preset.recipe, settings),
        **paths,
        teacher_sha256=tuple(checkpoint.weights_sha256(run) for run in settings.teacher),
        dataset=dataset.name,
        dataset_sha256=dataset.sha256,
        test_sha256=dataset.test_sha256,
        trial=settings.trial,
        seed=settings.seed,
        device=here.device.type,
        hardware=origin.hardware(here.device),
        processes=here.count,
        torch=torch.__version__,
        source_revision=origin.source_revision(),
    )
    return config, dataset


def _paths(settings: Settings) -> Paths:
    return {
        "data": tuple(map(data.absolute, settings.data)),
        "data_dir": None if settings.data_dir is None else str(settings.data_dir.absolute()),
        "calibrated_by": None if settings.calibrated_by is None else str(settings.calibrated_by.absolute()),
        "teacher": tuple(str(run.absolute()) for run in settings.teacher),
    }


@contextmanager
def _folder(settings: Settings, config: Config, title: str) -> Iterator[None]:
    """Begin the run's folder, or take it up again, say so, and keep other runs out of it until the end."""
    run = settings.out
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock = (run / LOCK).open("w")
    except OSError as error:
        raise UsageError(f"--out {run}: it can't be written to: {error.strerror}") from None
    with held(lock, run):
        if (run / checkpoint.FIGURES).exists():  # that other run held the lock when they were looked for
            (run / LOCK).unlink(missing_ok=True)
            raise UsageError(f"another run has just finished {run}: there is nothing left to do")
        if not settings.resume:
            _check_unused(run)
            checkpoint.save_config(run, config)
        for left in filter(_is_unfinished, run.iterdir()):
            left.unlink()
        console.err.print(title)
        yield
        (run / LOCK).unlink()


def _check_unused(run: Path) -> None:
    if (run / checkpoint.CONFIG).exists():
        raise UsageError(f"{run} holds a run already: go on with it by --resume, or choose another --out")
    entries = sorted(run.iterdir()) if run.is_dir() else []
    foreign = [entry.name for entry in entries if entry.name != LOCK and not _is_unfinished(entry)]
    if foreign:
        raise UsageError(f"--out {run} is there and is no run: it holds {foreign[0]}; choose another folder")


def _is_unfinished(entry: Path) -> bool:
    """Say whether it is what a killed run was writing."""
    return any(entry.match(f".{file}.????????") for file in FILES)


def _check_kept(paths: Paths) -> None:
    for name, value in paths.items():
        said = _said(value)
        if said.encode(errors="replace").decode() != said:
            raise UsageError(
                f"{flag(name)} {said}: a run keeps paths as UTF-8, and this one has other bytes; rename it, or name a "
                f"link that leads to it"
            )


def _check_calibrated_by(settings: Settings) -> None:
    if settings.calibrated_by is None:
        return
    if settings.trial:
        raise UsageError("--trial measures on the images that --calibrated-by trains on: leave one of them out")
    other = checkpoint.load(settings.calibrated_by).config
    if other.preset != settings.preset or other.calibrated_by is not None:
        raise UsageError(
            f"--calibrated-by {settings.calibrated_by}: it should be a run of {settings.preset} that held images out, "
            f"not one of {other.preset} calibrated by {other.calibrated_by or 'its own held-out images'}"
        )


def _check_teachers(settings: Settings) -> None:
    own = PRESETS[settings.preset].recipe
    for run in settings.teacher:
        other = checkpoint.load(run).config
        if bool(own.negatives) != bool(other.recipe.negatives):
            alone, as_well = "digits alone", "images of no digit as well"
            raise UsageError(
                f"--teacher {run}: {settings.preset} learns from {as_well if own.negatives else alone}, "
                f"and {other.preset} from {as_well if other.recipe.negatives else alone}"
            )


def _check_held_out(config: Config) -> None:
    """Check that the run is calibrated on images of its own data, and that no teacher saw what it is measured on."""
    if config.calibrated_by is not None:
        other = checkpoint.load_config(Path(config.calibrated_by))
        if other.dataset_sha256 != config.dataset_sha256:
            raise UsageError(
                f"--calibrated-by {config.calibrated_by}: it should be a run on the same images of {config.dataset}, "
                f"not on those of {other.dataset} with the checksum {other.dataset_sha256}"
            )
    for run in config.teacher:
        other = checkpoint.load_config(Path(run))
        same = other.dataset_sha256 == config.dataset_sha256
        seen = {data.resolved(spec) for spec in other.data}
        shared = [spec for spec in config.data if data.resolved(spec) in seen]
        folders = [spec for spec in shared if spec.startswith(data.FOLDER_PREFIX)]
        if folders and not same:  # a file more, and all of a folder is split in another way
            raise UsageError(
                f"--teacher {run}: it was trained on {folders[0]} too, but its data have another checksum than this "
                f"run's: it may have seen what is held out or for the test now; train the teacher again on this run's "
                f"data as they are now, in the same order"
            )
        if config.calibrated_by is None and other.calibrated_by is not None and (same or shared):
            raise UsageError(
                f"--teacher {run}: it was trained on the images that this run holds out; give a teacher that held them "
                f"out as well, such as {other.calibrated_by}"
            )


def _changed(recipe: Recipe, settings: Settings) -> Recipe:
    if settings.epochs is not None:
        recipe = replace(recipe, epochs=settings.epochs, steps=None)
    if settings.learning_rate is not None:
        recipe = replace(recipe, learning_rate=settings.learning_rate)
    return replace(recipe, precision=settings.precision)


def _begun(settings: Settings) -> Config:
    """Read how the run began, and check that no option that is given again is another one now."""
    config = checkpoint.load_config(settings.out)
    begun = {
        "preset": config.preset,
        "data": config.data,
        "trial": config.trial,
        "calibrated_by": config.calibrated_by,
        "teacher": config.teacher,
        "seed": config.seed,
        "epochs": config.recipe.epochs if config.recipe.steps is None else None,
        "learning_rate": config.recipe.learning_rate,
        "precision": config.recipe.precision,
    }
    given = dict(settings) | _paths(settings)
    differing = [
        f"{flag(name)} was {_said(value)}, not {_said(getattr(settings, name))}"
        for name, value in begun.items()
        if name in settings.model_fields_set and given[name] != value
    ]
    if differing:
        raise UsageError(f"the run in {settings.out} began with other options: {'; '.join(differing)}")
    return config


def _resume(settings: Settings, config: Config, here: processes.Processes) -> data.Dataset:
    """Load the data of a run, and check that they, its teachers and where it computes are what it began with."""
    begun, now = (
        f"{device}, in {count} process{'es' if count > 1 else ''}"
        for device, count in ((config.device, config.processes), (here.device.type, here.count))
    )
    if begun != now:
        command = checkpoint.resume_command(settings.out, config, "--device", config.device)
        raise UsageError(
            f"the run in {settings.out} began on {begun}: on {now}, it would come to another network; "
            f"`{command}` goes on"
        )
    begun_with = None if config.data_dir is None else Path(config.data_dir)
    dataset = data.load(config.data, settings.data_dir or begun_with)
    for kind, was, is_now in (
        ("data", config.dataset_sha256, dataset.sha256),
        ("test data", config.test_sha256 or dataset.test_sha256, dataset.test_sha256),
        *(
            (f"weights of --teacher {teacher}", was, checkpoint.weights_sha256(Path(teacher)))
            for teacher, was in zip(config.teacher, config.teacher_sha256, strict=False)  # old runs have none
        ),
    ):
        if was != is_now:
            raise ModelError(
                f"the run in {settings.out} began with other {kind}: its checksum was {was}, now it is {is_now}"
            )
    return dataset


def _said(value: object) -> str:
    if value in {None, ()}:
        return "not given"
    return " and ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _finish(
    settings: Settings,
    config: Config,
    dataset: data.Dataset,
    digits: Digits,
    training: state.Training,
    *,
    asked: Sequence[int],
) -> tuple[Figures, measure.Measurements]:
    """Calibrate and measure the network, and write everything that makes the run a finished one.

    A signal that asked to stop, by its number, is heeded between the two.
    """
    console.err.print("the training is done; measuring, and drawing the report")
    network, device = training.average, digits.labels.device
    temperature, temperature_method, thresholds = _calibration(config, network, digits)
    if config.trial:
        images, labels = digits.held_out_images, digits.held_out_labels
        which = "training images, which were held out; the test set was not touched"
    else:
        images = torch.tensor(dataset.test_images, device=device)
        labels = torch.tensor(dataset.test_labels, device=device)
        which = "test images, once, after training"
    measured = measure.measure(network, images, labels, temperature, thresholds)
    if asked:
        raise signals.ending(asked[0])
    figures = Figures(
        accuracy=measured.accuracy,
        accuracy_method=f"measured on {dataset.name}'s {measured.images:,} {which}",
        temperature=temperature,
        temperature_method=temperature_method,
        reject=thresholds,
        seconds=training.seconds,
    )
    report.write(
        settings.out,
        config=config,
        figures=figures,
        measurements=measured,
        history=training.history,
        images=images.cpu().numpy(),
    )
    checkpoint.save(settings.out, network, figures)
    (settings.out / state.STATE).unlink()
    return figures, measured


def _calibration(config: Config, network: DigitLSTM, digits: Digits) -> tuple[float, str, Mapping[str, float]]:
    """Give the temperature, how it was found, and the thresholds of the reject option."""
    if config.calibrated_by is not None:
        other = checkpoint.load(Path(config.calibrated_by))
        alike = (other.config.recipe, bool(other.config.teacher)) == (config.recipe, bool(config.teacher))
        kind = "a run" if alike else "a run by another recipe"
        method = f"taken from {kind} that held images out: {other.figures.temperature_method}"
        return other.figures.temperature, method, other.figures.reject
    answers = evaluate.logits(network, digits.held_out_images)
    count = f"{len(answers):,} training images, which were held out"
    if evaluate.accuracy(answers, digits.held_out_labels) == 1:
        temperature, method = 1.0, f"left alone, because no answer was wrong on {count}"
    else:
        temperature, method = calibration.fit_temperature(answers, digits.held_out_labels), f"fitted on {count}"
    thresholds = calibration.reject_thresholds(answers, temperature) if config.recipe.negatives else {}
    return temperature, method, thresholds


def _show(settings: Settings, config: Config, figures: Figures, measured: measure.Measurements) -> None:
    low, high = measured.interval
    table = Table(title=f"{config.preset} on {config.dataset}", show_header=False)
    table.add_row("accuracy", f"{measured.accuracy:.2%}, 95 % interval {low:.2%} to {high:.2%}")
    table.add_row("", figures.accuracy_method)
    table.add_row("calibration error", f"{measured.calibration_error_scaled:.2%}")
    if config.trial:
        table.add_row("", report.IN_SAMPLE)
    table.add_row("temperature", f"{figures.temperature:.3f}, {figures.temperature_method}")
    table.add_row("time", f"{figures.seconds:.1f} s of training")
    console.out.print(table)
    console.out.print(f"report: {settings.out / report.HTML}")
    exported = Path("artifacts", settings.out.name)
    console.out.print(f"next: scanline export {quote(str(settings.out))} --out {quote(str(exported))}")
