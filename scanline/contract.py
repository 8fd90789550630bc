"""What every model file promises, and the card in which it says so.

A model file takes `rows`, float32 [batch, 28, 28] with 0 for background and 1 for ink, row t being the network's time
step t, and gives `logits`, float32 [batch, 10]. Only the batch is dynamic. Everything else that a reader must know to
use the file rightly is its card: text in the ONNX file's `metadata_props`, under keys that begin with `scanline.`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from scanline.errors import ModelError

CONTRACT_VERSION: Final = 1
ROWS: Final = 28
COLUMNS: Final = 28
IMAGE_BYTES: Final = ROWS * COLUMNS
LABELS: Final = "0123456789"
CLASSES: Final = len(LABELS)
INPUT_NAME: Final = "rows"
OUTPUT_NAME: Final = "logits"
BATCH_DIMENSION: Final = "batch"
METADATA_PREFIX: Final = "scanline."
# The key of gRPC's metadata with which every answer of a server says its request's id, and callers may give one.
REQUEST_ID: Final = "x-request-id"
# The most seconds that a caller may give a call, a year: somewhere beyond 10**9 gRPC's clock overflows.
MAX_TIMEOUT: Final = 31_536_000

# MNIST's own procedure: ink box scaled into 20x20, centre of mass at the centre of 28x28 (scanline/preprocess.py).
PREPROCESSING: Final = "mnist-20x20-centre-of-mass"
PREPROCESSING_VERSION: Final = 1


def to_network(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Turn images, uint8 [n, 28, 28] with 255 for ink, into the network's input, float32 of the same shape, 0 to 1."""
    return np.divide(pixels, 255, dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a model file says of itself.

    Attributes:
        contract_version: the version of this page that the file keeps to.
        name: the preset or the name that its trainer gave it, such as ``edge``.
        labels: the meaning of the 10 logits, in their order.
        preprocessing: the procedure that brings a picture to the input (see scanline.preprocess).
        preprocessing_version: the version of that procedure.
        architecture: the network in words, such as ``lstm-128``.
        precision: ``float32`` or ``int8``.
        instruction_sets: the CPUs that the file suits, in words.
        parameters: the number of trained weights in the file.
        dataset: what it was trained on, such as ``mnist``.
        dataset_sha256: the checksum of the training images and labels.
        seed: the seed of the training run.
        source_revision: the commit of the code that trained it, or ``unknown``.
        accuracy: the share of right answers on the test set, 0 to 1.
        accuracy_method: how that figure was measured, in a sentence.
        temperature: logits are divided by it before the softmax (Guo et al. 2017, arXiv:1706.04599); above 0.
        reject: thresholds of the reject option by measure; empty where there are none.
        verification: what the export checked, and the figures it found.
        producer: the versions of the packages that made the file.
    """

    contract_version: int = CONTRACT_VERSION
    name: str
    labels: str = LABELS
    preprocessing: str = PREPROCESSING
    preprocessing_version: int = PREPROCESSING_VERSION
    architecture: str
    precision: str = "float32"
    instruction_sets: str = "any"
    parameters: int
    dataset: str
    dataset_sha256: str
    seed: int
    source_revision: str
    accuracy: float
    accuracy_method: str
    temperature: float = 1.0
    reject: Mapping[str, float]
    verification: Mapping[str, Any]
    producer: Mapping[str, str]

    def to_metadata(self) -> dict[str, str]:
        """Give the card as the key-value text of an ONNX file: text fields as they are, all others as JSON."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {
            METADATA_PREFIX + name: value if isinstance(value, str) else json.dumps(value, sort_keys=True)
            for name, value in values
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Self:
        """Read the card from an ONNX file's metadata.

        Raises:
            ModelError: a key is missing or holds the wrong kind of value, or the card disagrees with this release.
        """
        missing = [field.name for field in fields(cls) if METADATA_PREFIX + field.name not in metadata]
        if missing:
            raise ModelError(
                f"the model has no complete card: {', '.join(METADATA_PREFIX + name for name in missing)} "
                f"is missing from its metadata; export it with `scanline export`"
            )
        card = cls(**{field.name: _parse(field.name, str(field.type), metadata) for field in fields(cls)})
        card.check()
        return card

    def check(self) -> None:
        """Compare what the card says with what this release can use.

        Raises:
            ModelError: naming each field that differs, with both values.
        """
        expected: dict[str, object] = {
            "contract_version": CONTRACT_VERSION,
            "labels": LABELS,
            "preprocessing": PREPROCESSING,
            "preprocessing_version": PREPROCESSING_VERSION,
        }
        differing = [
            f"{name} is {getattr(self, name)!r}, expected {value!r}"
            for name, value in expected.items()
            if getattr(self, name) != value
        ]
        if not self.temperature > 0:
            differing.append(f"temperature is {self.temperature!r}, expected a number above 0")
        if differing:
            raise ModelError(f"the model's card disagrees with this release: {'; '.join(differing)}")


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The model that answers, of a server or of a reader.

    Attributes:
        version: what the server calls it, such as ``"3"``; a model that is no version among others is ``"1"``.
        file: which file it is: the first 12 hexadecimal digits of its SHA-256.
        card: what the file says of itself.
    """

    version: str
    file: str
    card: ModelCard


_KINDS: Final[dict[str, tuple[type, ...]]] = {
    "int": (int,),
    "float": (int, float),
    "Mapping[str, float]": (dict,),
    "Mapping[str, Any]": (dict,),
    "Mapping[str, str]": (dict,),
}


def _parse(name: str, kind: str, metadata: Mapping[str, str]) -> Any:
    text = metadata[METADATA_PREFIX + name]
    if kind == "str":
        return text
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = None
    if not isinstance(value, _KINDS[kind]) or isinstance(value, bool):
        raise ModelError(f"the model's card is damaged: {METADATA_PREFIX}{name} is {text!r}, expected {kind}")
    return value
