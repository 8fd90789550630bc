"""Reading digits in this process, with no server."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from scanline import reject
from scanline.contract import ServedModel, to_network
from scanline.errors import ClosedError, InputError
from scanline.images import Image, Item, items
from scanline.model import Model
from scanline.prediction import Prediction, RejectReason, bound, predictions, softmax
from scanline.preprocess import steps

# onnxruntime's speed on this network has levelled off by then, and the memory stays small.
BATCH: Final = 64
ONLY_VERSION: Final = "1"  # what a server calls the model of a file

Taken = tuple[NDArray[np.uint8], RejectReason | None]


class Reader:
    """Reads digits with a model file, in this process; safe under threads.

    with Reader() as reader:
        for answer in reader.classify(["seven.png", "four.jpg"]):
            print(answer.digit, answer.confidence)
    """

    def __init__(
        self, path: str | Path | None = None, *, threads: int = 1, min_confidence: float | None = None
    ) -> None:
        """Load a model.

        Args:
            path: a model file, a folder of exported files, or ``edge`` or ``accurate``, which ship; None for ``edge``.
            threads: how many threads one batch may use.
            min_confidence: answers of less confidence, 0 to 1, are rejected; None for the bound in the model's card.

        Raises:
            ModelError: the file is missing, damaged or breaks the contract.
            InputError: `min_confidence` is not from 0 to 1.
        """
        self._model: Model | None = Model(path, threads=threads)
        self._min_confidence = bound(min_confidence)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the model; later calls, and what is left of a stream, end with ClosedError."""
        self._model = None

    def model(self) -> ServedModel:
        """Give what a server of the same file says of its model: its version, file and card.

        Raises:
            ClosedError: the reader is closed.
        """
        model = self._open()
        return ServedModel(ONLY_VERSION, model.version, model.card)

    def classify(self, images: Image | Iterable[Image], *, probabilities: bool = False) -> list[Prediction]:
        """Read the digit in each image.

        Args:
            images: any iterable of paths, bytes of image files, binary file objects, PIL images, or uint8 arrays
                [28, 28] or [n, 28, 28], 0 background to 255 ink, which are taken to be in the network's form already;
                or a single one of these.
            probabilities: whether to give those of all ten digits.

        Returns:
            One prediction for each image, in order. An image that can't be read is an error on its own prediction.

        Raises:
            InputError: something in `images` is no image at all.
            ClosedError: the reader is closed.
        """
        return list(self.stream(images, probabilities=probabilities))

    def stream(
        self, images: Image | Iterable[Image], *, probabilities: bool = False
    ) -> Generator[Prediction, None, None]:
        """Read the digit in each image, and give the predictions one by one, as they come.

        For any number of images in bounded memory: they are taken as they are wanted, BATCH at once, so that the first
        answer comes when a batch is full or the source ends. Arguments, order and errors are those of `classify`.
        """
        self._open()  # no image is taken in vain
        # a file is decoded as it is drawn, so that a batch holds 28x28 pixels alone
        taken = map(_taken, items(images))
        while batch := list(islice(taken, BATCH)):
            yield from self._classify(batch, probabilities=probabilities)

    def _classify(self, batch: list[Taken | Prediction], *, probabilities: bool) -> list[Prediction]:
        model = self._open()
        readable = [image for image in batch if not isinstance(image, Prediction)]
        if not readable:
            return [image for image in batch if isinstance(image, Prediction)]
        pixels, own = np.stack([rows for rows, _ in readable]), [reason for _, reason in readable]
        rows, card = to_network(pixels), model.card
        logits = model.run(rows)
        shares = softmax(logits, card.temperature)
        reasons = reject.reasons(rows, logits, shares, card, own)
        read = iter(predictions(shares, reasons, probabilities=probabilities))
        return [image if isinstance(image, Prediction) else next(read).held_to(self._min_confidence) for image in batch]

    def _open(self) -> Model:
        if self._model is None:
            raise ClosedError("reader")
        return self._model


def _taken(item: Item) -> Taken | Prediction:
    """Give an image's pixels and its file's own reason for rejection, or the prediction that says what is wrong."""
    if item.pixels is not None:
        return item.pixels.copy(), None  # a batch gathers, while a generator may fill the same array again
    if item.encoded is None:
        return Prediction(error=item.error)
    try:
        found = steps(item.encoded)
    except InputError as error:
        return Prediction(error=str(error))
    return found.rows, found.reason
