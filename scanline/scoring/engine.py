"""What an engine is: it takes batches of images and gives their predictions, in order, a few batches ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from scanline.errors import InputError
from scanline.images import Image, Item
from scanline.prediction import Prediction
from scanline.scoring.entry import Entry

if TYPE_CHECKING:
    from scanline.reader import Reader

# Files handed on at once: the model runs them in batches of scanline.reader.BATCH, and a message takes little time.
BATCH_FILES: Final = 128
# What is inside a file is read before it is handed on; a batch is closed when it holds this much.
BATCH_BYTES: Final = 8 * 2**20

Work = TypeVar("Work")
Answer = TypeVar("Answer")


@dataclass(slots=True)
class Batch:
    """Neighbours in the table.

    Attributes:
        entries: what they are.
        images: the path, page, bytes or pixels of each, or an item that says what is wrong with it.
    """

    entries: list[Entry] = field(default_factory=list)
    images: list[Image] = field(default_factory=list)


class Engine(Protocol):
    """Reads batches of images."""

    @property
    def version(self) -> str:
        """Which model reads them: the first 12 hexadecimal digits of its file's SHA-256."""

    def run(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, list[Prediction]]]:
        """Give each batch with its predictions, in order; a bounded number is drawn ahead.

        Raises:
            ScanlineError: the work can't go on.
        """


def batched(entries: Iterable[Entry]) -> Iterator[Batch]:
    """Gather entries into batches that are bounded in number and in bytes."""
    batch, size = Batch(), 0
    for entry in entries:
        image = _image(entry)
        size += len(image) if isinstance(image, bytes) else 0
        batch.entries.append(entry)
        batch.images.append(image)
        if len(batch.entries) == BATCH_FILES or size >= BATCH_BYTES:
            yield batch
            batch, size = Batch(), 0
    if batch.entries:
        yield batch


def _image(entry: Entry) -> Image:
    try:
        return entry.name if entry.load is None else entry.load()
    except InputError as error:
        return Item(error=str(error))


def open_reader(model: str | Path | None, min_confidence: float | None) -> Reader:
    """Load a model in the process that reads with it; the one that hands out the work does without onnxruntime.

    Raises:
        ModelError: the model can't be used.
    """
    from scanline.reader import Reader

    return Reader(model, min_confidence=min_confidence)


def in_flight(
    work: Iterable[Work], submit: Callable[[Work], Future[Answer]], ahead: int
) -> Iterator[tuple[Work, Future[Answer]]]:
    """Submit work, at most `ahead` pieces of it before the answer to the first is waited for; give them in order."""
    waiting: deque[tuple[Work, Future[Answer]]] = deque()
    for piece in work:
        waiting.append((piece, submit(piece)))
        if len(waiting) >= ahead:
            yield waiting.popleft()
    yield from waiting
