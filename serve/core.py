"""The service: images in, predictions out. Any transport can stand before it; it knows none.

A call comes as a `Request` and is answered in two steps, so that a transport can hold several calls of one caller at
once and drop one whose caller has gone: `submit` checks it, reads its files and queues it; `Pending.result` waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scanline import reject
from scanline.contract import CLASSES, COLUMNS, ROWS, ModelCard, to_network
from scanline.errors import InputError
from scanline.model import Model, StepModel
from scanline.prediction import RejectReason, softmax
from scanline.preprocess import steps
from serve.batcher import Batcher, Ticket
from serve.errors import BadRequestError, CallError, ExpiredError, NotAvailableError, UnknownVersionError
from serve.statistics import FILES_MODEL, ROWS_MODEL, ModelCounter, Statistics


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A call's images, in one of two forms, and what is wanted of them.

    Attributes:
        pixels: uint8 [n, 28, 28], 0 background to 255 ink, in the network's form; None where there are files.
        files: the bytes of image files.
        version: the model version to use; empty for the current one.
        deadline: the time.monotonic() after which nobody wants the answer.
    """

    pixels: NDArray[np.uint8] | None = None
    files: Sequence[bytes] = ()
    version: str = ""
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class Answers:
    """What became of a call's images.

    Attributes:
        logits: float32 [k, 10], for the k images that could be read, in order.
        probabilities: the same after temperature scaling and softmax.
        reasons: for each of the k why its answer should not be trusted, or None.
        errors: for each image of the call what is wrong with it, or None where it was read.
    """

    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    reasons: Sequence[RejectReason | None]
    errors: Sequence[str | None]


@dataclass(frozen=True, slots=True)
class Images:
    """A call's images, ready for the network.

    Attributes:
        pixels: uint8 [k, 28, 28], of the k images that could be read.
        reasons: for each of the k why its file shows no single digit, or None; empty where they were no files.
        errors: for each image of the call what is wrong with it, or None.
    """

    pixels: NDArray[np.uint8]
    reasons: Sequence[RejectReason | None]
    errors: Sequence[str | None]


class Pending:
    """A call that is queued."""

    __slots__ = ("_batcher", "_came", "_card", "_counter", "_images", "_ticket")

    def __init__(
        self,
        batcher: Batcher,
        ticket: Ticket | None,
        images: Images,
        *,
        card: ModelCard,
        counter: ModelCounter,
        came: float,
    ) -> None:
        """Hold the images, the ticket of those that could be read, None if there are none, and their model's card.

        When the call came is what its time is counted from.
        """
        self._batcher = batcher
        self._ticket = ticket
        self._images = images
        self._card = card
        self._counter = counter
        self._came = came

    def cancel(self) -> None:
        """Drop the call: its caller has gone."""
        if self._ticket is not None:
            self._batcher.cancel(self._ticket)

    def result(self) -> Answers:
        """Wait for the answers.

        Raises:
            CallError: ExpiredError, CancelledError, StoppingError or ModelRunError.
        """
        ticket = self._ticket
        if ticket is None:
            now = time.monotonic()
            self._counter.succeeded(0, came=self._came, queued=now, begun=now, ended=now, had=now)
            none = np.empty((0, CLASSES), np.float32)
            return Answers(none, none, (), self._images.errors)
        try:
            logits = self._batcher.result(ticket)
        except CallError as error:
            self._counter.failed(error, time.monotonic() - self._came)
            raise
        reasons = reject.reasons(self._images.pixels, logits, self._card, self._images.reasons)
        for reason in reasons:
            if reason is not None:
                self._counter.rejected(reason)
        answers = Answers(logits, softmax(logits, self._card.temperature), reasons, self._images.errors)
        self._counter.succeeded(
            len(logits),
            came=self._came,
            queued=ticket.queued_at,
            begun=ticket.begun_at,
            ended=ticket.ended_at,
            had=time.monotonic(),
        )
        return answers

    def when_done(self, listener: Callable[[], None]) -> None:
        """Call a listener once, in any thread, when `result` need not wait; at once if that is now."""
        if self._ticket is None:
            listener()
        else:
            self._batcher.when_done(self._ticket, listener)


class RowReader:
    """Reads one image row by row, with an answer after each."""

    def __init__(self, steps: StepModel, temperature: float) -> None:
        """Begin an image."""
        self._steps = steps
        self._temperature = temperature
        self._state = steps.start()
        self.rows_seen = 0

    def read(self, row: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Take the next row, uint8 [28], and give the probabilities of the ten digits so far, float32 [10].

        Raises:
            BadRequestError: the image has had its 28 rows.
        """
        if self.rows_seen == ROWS:
            raise BadRequestError(f"the image has had its {ROWS} rows; begin another stream for another image")
        logits, self._state = self._steps.run(to_network(row[np.newaxis]), self._state)
        self.rows_seen += 1
        probabilities: NDArray[np.float32] = softmax(logits, self._temperature)[0]
        return probabilities


class DigitService:
    """Answers calls with one model."""

    def __init__(
        self,
        model: Model,
        steps: StepModel | None,
        statistics: Statistics,
        *,
        max_images: int,
        max_pixels: int,
        max_batch_size: int,
        max_queue_images: int,
        max_queue_delay: float,
        instances: int,
    ) -> None:
        """Serve a model.

        Args:
            model: the opened model.
            steps: the same network one row at a time, if there is one.
            statistics: where what the model does is counted.
            max_images: the most images in one call.
            max_pixels: the most pixels of an image file.
            max_batch_size: the most images in one run of the model.
            max_queue_images: the most images that wait.
            max_queue_delay: how long a batch that is not full waits for company, in seconds.
            instances: how many runs may be under way at once.
        """
        self._model = model
        self._steps = steps
        self._max_images = max_images
        self._max_pixels = max_pixels
        # A large picture takes three bytes a pixel while it is read: no more at once than there are cores for it.
        self._decoding = threading.BoundedSemaphore(instances)
        self._batcher = Batcher(
            self._run,
            max_batch_size=max_batch_size,
            max_queue_images=max_queue_images,
            max_queue_delay=max_queue_delay,
            instances=instances,
        )
        self._counters = {name: statistics.of(name, model.version) for name in (ROWS_MODEL, FILES_MODEL)}
        self._counters[ROWS_MODEL].pending = lambda: self._batcher.pending

    @property
    def version(self) -> str:
        """The version of the model that answers."""
        return self._model.version

    @property
    def max_images(self) -> int:
        """The most images in one call."""
        return self._max_images

    def warm_up(self) -> None:
        """Run the model once, so that the first caller does not wait for its memory."""
        self._model.run(np.zeros((1, ROWS, COLUMNS), np.float32))

    def work(self) -> bool:
        """Run one batch if something waits and a run is free; say whether more waits, which is then the caller's."""
        return self._batcher.work()

    def close(self) -> None:
        """Refuse what is waiting and what comes."""
        self._batcher.close()

    def describe(self, version: str = "") -> tuple[str, ModelCard]:
        """Give the version and the card of a loaded model; an empty version means the current one.

        Raises:
            UnknownVersionError: that version is not loaded.
        """
        self._check_version(version)
        return self._model.version, self._model.card

    def submit(self, request: Request) -> Pending:
        """Check a call, read its files, and queue it. A file that can't be read is an error on its own prediction.

        Raises:
            BadRequestError: there is no image, or there are too many.
            UnknownVersionError: the version that it asks for is not loaded.
            ExpiredError: the deadline passed while files were read.
            FullError: too much is waiting.
            StoppingError: the server is stopping.
        """
        came = time.monotonic()
        self._check_version(request.version)
        counter = self._counters[FILES_MODEL if request.pixels is None else ROWS_MODEL]
        try:
            ticket, images = self._queue(request)
        except CallError as error:
            counter.failed(error, time.monotonic() - came)
            raise
        return Pending(self._batcher, ticket, images, card=self._model.card, counter=counter, came=came)

    def begin_rows(self) -> RowReader:
        """Begin an image that comes row by row.

        Raises:
            NotAvailableError: the model can't be run row by row.
        """
        if self._steps is None:
            raise NotAvailableError(
                f"the model {self._model.path.name} can't be run row by row: there is no digits.step.onnx beside it"
            )
        return RowReader(self._steps, self._model.card.temperature)

    def _queue(self, request: Request) -> tuple[Ticket | None, Images]:
        """Queue what can be read of a call; give the ticket and the images."""
        count = len(request.files) if request.pixels is None else len(request.pixels)
        if not 1 <= count <= self._max_images:
            raise BadRequestError(f"the call has {count} images, expected 1 to {self._max_images}")
        images = self._read_files(request) if request.pixels is None else Images(request.pixels, (), [None] * count)
        rows = to_network(images.pixels)
        return self._batcher.submit(rows, request.deadline) if len(rows) else None, images

    def _read_files(self, request: Request) -> Images:
        readable: list[NDArray[np.uint8]] = []
        reasons: list[RejectReason | None] = []
        errors: list[str | None] = []
        for file in request.files:
            if request.deadline is not None and request.deadline <= time.monotonic():
                raise ExpiredError(f"the deadline passed with {len(errors)} of {len(request.files)} files read")
            try:
                with self._decoding:
                    taken = steps(file, self._max_pixels)
                readable.append(taken.rows)
                reasons.append(taken.reason)
                errors.append(None)
            except InputError as error:
                errors.append(str(error))
        pixels = np.stack(readable) if readable else np.empty((0, ROWS, COLUMNS), np.uint8)
        return Images(pixels, reasons, errors)

    def _run(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        started = time.monotonic()
        logits = self._model.run(rows)
        self._counters[ROWS_MODEL].ran(len(rows), time.monotonic() - started)
        return logits

    def _check_version(self, version: str) -> None:
        if version not in {"", self._model.version}:
            # cut, since it comes from outside and goes into a header and the log
            raise UnknownVersionError(f"model version {version[:64]!r} is not loaded; {self._model.version!r} is")
