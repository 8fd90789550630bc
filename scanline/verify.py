"""Proof that this machine computes the right numbers, with onnxruntime and numpy alone.

The golden vectors are images and the logits that the export found for them, in `golden.npz` beside the model files.
They are computed again here at several batch sizes, thread counts and levels of graph optimisation. The export's gate
runs the same checks on the whole test set.
"""

from __future__ import annotations

import platform
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from scanline import manifest
from scanline.contract import CLASSES, INPUT_NAME, OUTPUT_NAME, ROWS, ModelCard, to_network
from scanline.errors import GateError, InputError, ModelError, ScanlineError, UsageError
from scanline.model import ORT_ERRORS, STEP_INPUTS, STEP_OUTPUTS, open_session, read_card, reason_of

GOLDEN: Final = "golden.npz"
GOLDEN_IMAGES: Final = "images"
INT8: Final = "int8"  # the card's precision
FLOAT32_STEM: Final = "digits"  # of the file whose logits the others are compared with

BATCHES: Final = (1, 2, 7, 64, 257)
THREADS: Final = (1, 2)
OPTIMISATIONS: Final = {
    "off": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
NEIGHBOURS: Final = 8  # images kept among as many absurd ones
POISONS: Final = (1e6, -1e6, float("inf"), float("nan"))

# float32: the last bits of a sum depend on the CPU's vectors.
FLOAT32_TOLERANCE: Final = 1e-4
# int8: those last bits move some activations by one quantisation step. In shares of the largest change that quantising
# the model made; seen were 0 from one x86-64 CPU to another, and 0.1 on arm64.
INT8_TOLERANCE: Final[Mapping[str, float]] = {"x86-64 with VNNI": 0.25, "x86-64": 0.25, "arm64": 0.25, "other": 0.5}
CPU_INFO: Final = Path("/proc/cpuinfo")

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one check.

    Attributes:
        name: which check it was.
        passed: whether nothing was wrong.
        detail: what was found, in words.
    """

    name: str
    passed: bool
    detail: str

    @classmethod
    def of(cls, name: str, function: Callable[[], str]) -> Check:
        """Run a check: a function that says what it found, or raises a ScanlineError that says what is wrong."""
        try:
            return cls(name, True, function())
        except ScanlineError as error:
            return cls(name, False, str(error))


@dataclass(frozen=True, slots=True)
class Difference:
    """How far logits are from those expected.

    Attributes:
        largest: the largest absolute difference; NaN where there is a NaN.
        changed: the number of images whose digit is another.
    """

    largest: float
    changed: int

    @classmethod
    def between(cls, expected: NDArray[np.float32], found: NDArray[np.float32]) -> Difference:
        """Compare logits, float32 [n, 10] each."""
        changed = int(np.count_nonzero(expected.argmax(axis=1) != found.argmax(axis=1)))
        return cls(float(np.abs(found - expected).max()), changed)

    def require(self, tolerance: float, circumstances: str) -> None:
        """Insist that no logit is further away than the tolerance.

        Raises:
            GateError: one is, or is NaN.
        """
        if not self.largest <= tolerance:  # so that a NaN fails too
            raise GateError(
                f"logits differ by {self.largest:.3g} {circumstances} ({self.changed} digits change); "
                f"at most {tolerance:.3g} is right"
            )


def open_run(
    content: bytes,
    path: Path,
    threads: int = 1,
    optimisation: ort.GraphOptimizationLevel = ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
) -> Run:
    """Load a model file of either form, whole digits or one row at a time.

    Args:
        content: the file's bytes.
        path: its name, for errors.
        threads: how many threads it may use.
        optimisation: how far onnxruntime may rewrite the graph.

    Returns:
        A function from rows, float32 [n, 28, 28], to logits, float32 [n, 10]. It raises ModelError where the model
        doesn't take them.

    Raises:
        ModelError: onnxruntime can't load it.
    """
    session = open_session(content, path, threads, optimisation)
    is_step = [node.name for node in session.get_inputs()] == STEP_INPUTS

    def run(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            if is_step:
                return every_row(session, rows)[:, -1]
            logits: NDArray[np.float32] = session.run([OUTPUT_NAME], {INPUT_NAME: rows})[0]
        except ORT_ERRORS as error:
            raise ModelError(f"{path} can't take {len(rows)} images: {reason_of(error)}") from None
        if logits.shape != (len(rows), CLASSES):
            raise ModelError(f"{path} gives logits {logits.shape} for {len(rows)} images")
        return logits

    return run


def every_row(session: ort.InferenceSession, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the logits after each row, float32 [n, 28, 10], with a step file's session."""
    width = session.get_inputs()[-1].shape[-1]
    states = [np.zeros((len(rows), width), np.float32)] * 2
    logits = np.empty((len(rows), ROWS, CLASSES), np.float32)
    for t in range(ROWS):
        inputs = zip(STEP_INPUTS, [np.ascontiguousarray(rows[:, t]), *states], strict=True)
        logits[:, t], *states = session.run(STEP_OUTPUTS, dict(inputs))
    return logits


def in_batches(run: Run, rows: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Compute the logits of many images, `size` at a time."""
    return np.concatenate([run(rows[start : start + size]) for start in range(0, len(rows), size)])


def settings_check(
    content: bytes, path: Path, rows: NDArray[np.float32], expected: NDArray[np.float32], tolerance: float
) -> str:
    """Compute the logits at every batch size, thread count and optimisation level; give what was found, in words.

    Raises:
        GateError: they are not those expected.
    """
    largest = 0.0
    for threads, (level, optimisation) in product(THREADS, OPTIMISATIONS.items()):
        run = open_run(content, path, threads, optimisation)
        for size in BATCHES:
            difference = Difference.between(expected, in_batches(run, rows, size))
            difference.require(tolerance, f"in batches of {size}, threads {threads}, optimisation {level}")
            largest = max(largest, difference.largest)
    return f"largest difference {largest:.2g} in {len(THREADS) * len(OPTIMISATIONS) * len(BATCHES)} settings"


def neighbours_check(content: bytes, path: Path, rows: NDArray[np.float32], tolerance: float) -> str:
    """Put images beside others of absurd values; give what was found, in words.

    Raises:
        GateError: an image's logits are not those that it has alone.
    """
    run = open_run(content, path)
    kept = rows[:NEIGHBOURS]
    alone = in_batches(run, kept, 1)
    for poison in POISONS:
        mixed = np.full((2 * len(kept), *kept.shape[1:]), poison, np.float32)
        mixed[::2] = kept
        Difference.between(alone, run(mixed)[::2]).require(tolerance, f"beside images of {poison}")
    return f"at most {tolerance:.2g} beside images of {', '.join(map(str, POISONS))}"


def repeat_check(content: bytes, path: Path, rows: NDArray[np.float32]) -> str:
    """Compute the same logits twice in a row, and with the file loaded again; give what was found, in words.

    Raises:
        GateError: they are not the same bits.
    """
    first, second = open_run(content, path), open_run(content, path)
    logits = first(rows)
    if not (np.array_equal(logits, first(rows)) and np.array_equal(logits, second(rows))):
        raise GateError("the same images give other logits the second time")
    return "the same bits three times"


def instruction_set() -> str:
    """Name what this machine multiplies int8 with: a key of INT8_TOLERANCE."""
    machine = platform.machine().lower()
    if machine in {"arm64", "aarch64"}:
        return "arm64"
    if machine not in {"x86_64", "amd64"}:
        return "other"
    flags = CPU_INFO.read_text(encoding="utf-8").split() if CPU_INFO.exists() else []
    return "x86-64 with VNNI" if {"avx512_vnni", "avx_vnni"} & set(flags) else "x86-64"


def golden_check(path: Path, card: ModelCard, run: Run) -> str:
    """Compute the golden vectors of a model file; give what was found, in words.

    Raises:
        ModelError: there are none.
        GateError: the logits are not those that the export found.
    """
    images, expected, tolerance = _golden(path, int8=card.precision == INT8)
    return _golden_check(card, expected, run(to_network(images)), tolerance)


def _golden_check(card: ModelCard, expected: NDArray[np.float32], found: NDArray[np.float32], tolerance: float) -> str:
    difference = Difference.between(expected, found)
    difference.require(tolerance, f"from the export's on {instruction_set()}; it suits {card.instruction_sets}")
    return f"largest difference {difference.largest:.2g} on {len(found)} images, at most {tolerance:.2g} is right"


def verify(path: Path, data: Path | None = None) -> list[Check]:
    """Check a model file on this machine: against its manifest, and its golden vectors at every setting.

    Args:
        path: a model file, whole or step, ONNX or ORT format, with `manifest.json` and `golden.npz` beside it.
        data: a folder of labelled digits, DATA/0 to DATA/9 of image files, to compute as well; None for none.

    Returns:
        The checks, failed ones included.

    Raises:
        ModelError: the file can't be loaded, has no card, or there are no golden vectors for it.
        UsageError: there are no digits in the folder.
        InputError: one of them can't be read.
    """
    own = None if data is None else _labelled(data)  # before the checks: what is wrong with it is no wrong number
    content = path.read_bytes()
    try:
        session = open_session(content, path, threads=1)
    except ModelError:
        if (path.parent / manifest.MANIFEST).is_file():
            manifest.check(path)  # damaged on its way: that says more than what onnxruntime stumbled over
        raise
    card = read_card(session, path)
    images, expected, tolerance = _golden(path, int8=card.precision == INT8)
    rows = to_network(images)
    alone = in_batches(open_run(content, path), rows, 1)
    change = 0.0 if card.precision == INT8 else FLOAT32_TOLERANCE  # from one setting to another, on one machine

    def own_digits(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> str:
        rows = to_network(images)
        logits = in_batches(open_run(content, path), rows, 1)
        settings_check(content, path, rows, logits, change)
        right = int(np.count_nonzero(logits.argmax(axis=1) == labels))
        share = f"{right} of {len(labels)} digits right ({right / len(labels):.2%})"
        return f"{share}, the same in every setting; the card says {card.accuracy:.2%} of {card.dataset}"

    checks = [
        Check.of("manifest", lambda: manifest.check(path)),
        Check.of("golden", lambda: _golden_check(card, expected, alone, tolerance)),
        Check.of("settings", lambda: settings_check(content, path, rows, alone, change)),
        Check.of("neighbours", lambda: neighbours_check(content, path, rows, change)),
        Check.of("repeat", lambda: repeat_check(content, path, rows)),
    ]
    return checks if own is None else [*checks, Check.of("data", lambda: own_digits(*own))]


def _labelled(folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    from scanline.images import labelled
    from scanline.preprocess import to_rows  # needs Pillow, the golden vectors don't

    files = labelled(folder)
    if not files:
        problem = "holds no digits" if folder.is_dir() else "is no folder"
        raise UsageError(f"{folder} {problem}; expected image files in {folder}/0 to {folder}/9")
    images = []
    for file, _ in files:
        try:
            images.append(to_rows(file))
        except InputError as error:
            raise InputError(f"{file}: {error}") from None
    return np.stack(images), np.array([digit for _, digit in files])


def _golden(path: Path, *, int8: bool) -> tuple[NDArray[np.uint8], NDArray[np.float32], float]:
    """Read the golden images, the logits that a file should give for them, and how far it may be from these."""
    place = path.parent / GOLDEN
    try:
        manifest.check(place)
        with np.load(place, allow_pickle=False) as arrays:
            images, expected, float32 = arrays[GOLDEN_IMAGES], arrays[path.stem], arrays[FLOAT32_STEM]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ModelError(
            f"no golden vectors of {path.name} in {place}: {error}; copy the folder that `scanline export` wrote whole"
        ) from None
    quantisation = float(np.abs(expected - float32).max())
    return images, expected, INT8_TOLERANCE[instruction_set()] * quantisation if int8 else FLOAT32_TOLERANCE
