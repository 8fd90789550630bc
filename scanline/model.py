"""A model file, opened: the only place that talks to onnxruntime."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from scanline import manifest
from scanline.contract import CLASSES, COLUMNS, INPUT_NAME, OUTPUT_NAME, ROWS, ModelCard
from scanline.errors import ModelError

SHIPPED: Final = Path(__file__).parent / "models"
NAMED: Final = {"edge": SHIPPED, "accurate": SHIPPED / "accurate"}  # what ships, by the presets' names
# What `--model FOLDER` takes, the best first: the int8 file gives the same digits in about half the time.
MODEL_FILES: Final = ("digits.int8.onnx", "digits.onnx")
STEP_FILE: Final = "digits.step.onnx"
STEP_INPUTS: Final = ["row", "h", "c"]
STEP_OUTPUTS: Final = ["logits", "h_next", "c_next"]
VERSION_DIGITS: Final = 12

# onnxruntime raises these for a file that is no model, is cut short, or uses what this build can't run, and for inputs
# that the model doesn't take. They have no common base of their own.
ORT_ERRORS: Final = tuple(
    getattr(ort.capi.onnxruntime_pybind11_state, name)
    for name in (
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "NoSuchFile",
        "NotImplemented",
        "RuntimeException",
    )
)


class Model:
    """A digit reader loaded from a file, after its card and its inputs and outputs have been checked.

    `run` may be called from several threads at once.

    Attributes:
        path: the file.
        card: what it says of itself.
        version: the first 12 hexadecimal digits of the file's SHA-256.
    """

    def __init__(self, path: str | Path | None = None, *, threads: int = 1) -> None:
        """Open a model file.

        Args:
            path: the file; a folder of exported files, of which the best is taken; ``edge`` or ``accurate`` for one of
                the models that ship; None for ``edge``.
            threads: how many threads one `run` may use. With 1, none but the caller's.

        Raises:
            ModelError: there is no such file, it is not the one that the manifest beside it names, onnxruntime can't
                load it, or it breaks the contract.
        """
        self.path = find(path)
        content = manifest.read(self.path)
        self.version = hashlib.sha256(content).hexdigest()[:VERSION_DIGITS]
        self._session = open_session(content, self.path, threads)
        self.card = read_card(self._session, self.path)
        _check_signature(self._session, self.path)

    def run(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the logits, float32 [n, 10], of images given as float32 [n, 28, 28], 0 background to 1 ink."""
        logits: NDArray[np.float32] = self._session.run([OUTPUT_NAME], {INPUT_NAME: rows})[0]
        return logits


State = tuple[NDArray[np.float32], NDArray[np.float32]]


class StepModel:
    """The same network one row at a time, from the `digits.step.onnx` that an export writes beside a model.

    `run` may be called from several threads at once, each with states of its own.
    """

    def __init__(self, path: Path) -> None:
        """Open a step file.

        Raises:
            ModelError: it is not the one that the manifest beside it names, onnxruntime can't load it, or it is no step
                file.
        """
        self._session = open_session(manifest.read(path), path, threads=1)
        self.card = read_card(self._session, path)
        inputs = {node.name: node.shape for node in self._session.get_inputs()}
        outputs = [node.name for node in self._session.get_outputs()]
        if [*inputs] != STEP_INPUTS or outputs != STEP_OUTPUTS:
            raise ModelError(
                f"the step model {path} takes {[*inputs]} and gives {outputs}, "
                f"expected {STEP_INPUTS} and {STEP_OUTPUTS}"
            )
        self._hidden = int(inputs["h"][-1])

    def start(self) -> State:
        """Give the state before the first row: h and c, float32 [1, hidden]."""
        return np.zeros((1, self._hidden), np.float32), np.zeros((1, self._hidden), np.float32)

    def run(self, row: NDArray[np.float32], state: State) -> tuple[NDArray[np.float32], State]:
        """Take the next row, float32 [1, 28], and give the logits so far, float32 [1, 10], and the state after it."""
        logits, h, c = self._session.run(STEP_OUTPUTS, dict(zip(STEP_INPUTS, (row, *state), strict=True)))
        return logits, (h, c)


def find(path: str | Path | None) -> Path:
    """Give the model file that a path means: itself, or the best in a folder, after `place_of`.

    Raises:
        ModelError: there is none, or the best is missing of those that the folder's manifest names.
    """
    place = place_of(path)
    if place.is_dir():
        if best := _best_in(place):
            if not best.is_file():  # a lesser one must not take its place without a word
                raise ModelError(
                    f"{best} is missing, though {manifest.MANIFEST} beside it names it: copy or export it again, or "
                    f"name the file that is meant"
                )
            return best
        versions = [entry for entry in place.iterdir() if entry.name.isdecimal() and _best_in(entry)]
        if versions:
            highest = max(versions, key=lambda version: int(version.name))
            raise ModelError(
                f"{place} is a folder of versions, which `scanline serve` alone takes, named 1, 2 and so on; expected "
                f"one of them, such as {highest}"
            )
        hides = f"; it hides {path}, which ships" if str(path) in NAMED else ""
        expected = f"{' or '.join(MODEL_FILES)}, as `scanline export` writes them"
        raise ModelError(f"no model in the folder {place}: expected {expected}{hides}")
    if not place.is_file():
        raise ModelError(
            f"no such model: {path}; expected an .onnx file, a folder that `scanline export` wrote, or the name of a "
            f"model that ships: {' or '.join(NAMED)}"
        )
    return place


def _best_in(folder: Path) -> Path | None:
    """Give the best model file that a folder has, or by its manifest should have."""
    named = manifest.named(folder)
    return next((folder / name for name in MODEL_FILES if name in named or (folder / name).is_file()), None)


def place_of(path: str | Path | None) -> Path:
    """Give the file or folder that a path means: itself, or the folder of a model that ships, for its name or None.

    What lies in the working directory under such a name goes before what ships. A text with a separator, such as
    ``./accurate``, is no name; as a Path it has lost its ``./``, and is one.

    Raises:
        ModelError: it is no path.
    """
    if path is None:
        return SHIPPED
    if not str(path) or not isinstance(path, str | Path):
        raise ModelError(f"a model is a file, a folder, {' or '.join(NAMED)}, not {path!r}")
    return Path(path) if os.path.lexists(path) else NAMED.get(str(path), Path(path))


def open_session(
    content: bytes,
    path: Path,
    threads: int,
    optimisation: ort.GraphOptimizationLevel = ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
) -> ort.InferenceSession:
    """Load a model into onnxruntime, with threads that fit a server and no spinning.

    Raises:
        ModelError: onnxruntime can't load it.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = optimisation
    # Spinning threads burn a core while there is nothing to do (onnxruntime#11841).
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # its errors come as exceptions; lines of its own would stand between ours
    try:
        # no fallback: it prints, and tries the same again
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except (*ORT_ERRORS, UnicodeDecodeError) as error:  # the latter where its own message quotes damaged bytes
        raise ModelError(
            f"onnxruntime can't load the model {path}: {reason_of(error)}; it is no ONNX model, or a damaged "
            f"one: export it again"
        ) from None


def reason_of(error: Exception) -> str:
    """Give what onnxruntime says, without the lines that follow; now and then it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def read_card(session: ort.InferenceSession, path: Path) -> ModelCard:
    """Give the card of a model that is loaded.

    Raises:
        ModelError: it is missing, damaged, or disagrees with this release.
    """
    try:
        metadata = session.get_modelmeta().custom_metadata_map
    except UnicodeDecodeError:
        raise ModelError(f"the metadata of the model {path} is damaged: it is not text; export it again") from None
    return ModelCard.from_metadata(metadata)


def _check_signature(session: ort.InferenceSession, path: Path) -> None:
    if [node.name for node in session.get_inputs()] == STEP_INPUTS:
        raise ModelError(
            f"{path} is a step file, which reads an image one row at a time; expected the file of the whole network, "
            f"{' or '.join(MODEL_FILES)}, or the folder that holds it"
        )
    given = [(node.name, node.type, node.shape[1:]) for node in (*session.get_inputs(), *session.get_outputs())]
    expected = [(INPUT_NAME, "tensor(float)", [ROWS, COLUMNS]), (OUTPUT_NAME, "tensor(float)", [CLASSES])]
    batches = [node.shape[0] for node in (*session.get_inputs(), *session.get_outputs())]
    if given != expected or any(isinstance(batch, int) for batch in batches):
        raise ModelError(
            f"the model {path} takes and gives {given} with batches {batches}, expected {expected} with a dynamic batch"
        )
