"""The service: images in, predictions out. Any transport can stand before it; it knows none.

A call comes as a `Request` and is answered in two steps, so that a transport can hold several calls of one caller at
once and drop one whose caller has gone: `submit` checks it, reads its files and queues it; `Pending.result` waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from scanline.contract import CLASSES, COLUMNS, ROWS, to_network
from scanline.errors import InputError
from scanline.model import STEP_FILE, StepModel
from scanline.prediction import RejectReason, softmax
from scanline.preprocess import steps
from scanline.reject import REASONS
from serve.batcher import Batcher, Ticket
from serve.errors import BadRequestError, CallError, ExpiredError, NotAvailableError
from serve.repository import CURRENT, Repository
from serve.statistics import FILES_MODEL, ROWS_MODEL, ModelKey, Statistics, Times
from serve.version import LOGITS, PROBABILITIES, REASON, Version


class Trace(Protocol):
    """What is told of a request once it is over: serve/tracing.py."""

    def answered(self, model: ModelKey, images: int, times: Times) -> None:
        """Tell that a model answered it."""

    def failed(self, model: ModelKey, error: CallError, came: float) -> None:
        """Tell that it failed, just now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A call's images, in one of three forms, and what is wanted of them.

    Attributes:
        images: in the network's form, uint8 [n, 28, 28], 0 background to 255 ink, or float32 of the same shape, 0 to 1;
            or the bytes of image files.
        version: the model version to use; empty for the current one.
        deadline: the time.monotonic() after which nobody wants the answer.
        trace: what is told of it, if anything.
    """

    images: NDArray[Any] | Sequence[bytes]
    version: str = CURRENT
    deadline: float | None = None
    trace: Trace | None = None


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


# How far a value may be from 0 to 1 before the image can't be meant so: what resampling makes of an edge.
SLACK: Final = 0.01


@dataclass(frozen=True, slots=True)
class Images:
    """A call's images, ready for the network.

    Attributes:
        rows: float32 [k, 28, 28], 0 to 1, of the k images that could be read.
        reasons: for each of the k why its file shows no single digit, or None; empty where they were no files.
        errors: for each image of the call what is wrong with it, or None.
    """

    rows: NDArray[np.float32]
    reasons: Sequence[RejectReason | None]
    errors: Sequence[str | None]


@dataclass(slots=True, eq=False)
class Pending:
    """A call that is queued.

    Attributes:
        version: the version of the model that answers it.
    """

    _batcher: Batcher
    _ticket: Ticket | None  # of the images that could be read, None if there are none
    _images: Images
    version: Version
    _model: str  # as a request to which it is counted
    _came: float  # from when its time is counted
    _trace: Trace | None

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
            self._count(0, Times(self._came, now, now, now, now))
            none = np.empty((0, CLASSES), np.float32)
            return Answers(none, none, (), self._images.errors)
        try:
            outputs = self._batcher.result(ticket)
        except CallError as error:
            _count_failure(self.version, self._model, error, self._came, self._trace)
            raise
        answers = Answers(
            outputs[:, LOGITS], outputs[:, PROBABILITIES], self._reasons(outputs[:, REASON]), self._images.errors
        )
        times = Times(self._came, ticket.queued_at, ticket.begun_at, ticket.ended_at, time.monotonic())
        self._count(len(outputs), times)
        return answers

    def when_done(self, listener: Callable[[], None]) -> None:
        """Call a listener once, in any thread, when `result` need not wait; at once if that is now."""
        if self._ticket is None:
            listener()
        else:
            self._batcher.when_done(self._ticket, listener)

    def _reasons(self, found: NDArray[np.float32]) -> list[RejectReason | None]:
        """Give each image's reason to be rejected, the file's own before what the network's input and answer show."""
        reasons = [REASONS[code] for code in found.astype(np.uint8).tolist()]
        if self._images.reasons:
            reasons = [own or other for own, other in zip(self._images.reasons, reasons, strict=True)]
        if any(reasons):
            self.version.counters[self._model].rejected(reason for reason in reasons if reason is not None)
        return reasons

    def _count(self, images: int, times: Times) -> None:
        self.version.counters[self._model].succeeded(images, times)
        if self._trace is not None:
            self._trace.answered((self._model, self.version.name), images, times)


def _count_failure(version: Version, model: str, error: CallError, came: float, trace: Trace | None) -> None:
    version.counters[model].failed(error, time.monotonic() - came)
    if trace is not None:
        trace.failed((model, version.name), error, came)


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
    """Answers calls with the versions of the model."""

    def __init__(
        self,
        repository: Repository,
        statistics: Statistics,
        *,
        max_images: int,
        max_pixels: int,
        max_batch_size: int,
        max_queue_images: int,
        max_queue_delay: float,
        instances: int,
    ) -> None:
        """Serve what a repository holds.

        Args:
            repository: the versions of the model.
            statistics: where it is told how many requests wait.
            max_images: the most images in one call.
            max_pixels: the most pixels of an image file.
            max_batch_size: the most images in one run of the model.
            max_queue_images: the most images that wait.
            max_queue_delay: how long a batch that is not full waits for company, in seconds.
            instances: how many runs may be under way at once.
        """
        self._repository = repository
        self._max_images = max_images
        self._max_pixels = max_pixels
        # A large picture takes three bytes a pixel while it is read: no more at once than there are cores for it.
        self._decoding = threading.BoundedSemaphore(instances)
        self._batcher = Batcher(
            max_batch_size=max_batch_size,
            max_queue_images=max_queue_images,
            max_queue_delay=max_queue_delay,
            instances=instances,
        )
        statistics.pending = self._pending

    @property
    def max_images(self) -> int:
        """The most images in one call."""
        return self._max_images

    def version(self, name: str = CURRENT) -> Version:
        """Give a version of the model; without a name the highest.

        Raises:
            NotFoundError: there is no such version.
            NotReadyError: there is, but it is not served.
        """
        return self._repository.get(name)

    def work(self) -> bool:
        """Run one batch if something waits and a run is free; say whether more waits, which is then the caller's."""
        return self._batcher.work()

    def close(self) -> None:
        """Refuse what is waiting and what comes."""
        self._batcher.close()

    def submit(self, request: Request) -> Pending:
        """Check a call, read its files, and queue it. A file that can't be read is an error on its own prediction.

        Raises:
            BadRequestError: there is no image, or there are too many.
            NotFoundError: the version that it asks for does not exist.
            NotReadyError: it does, but is not served.
            ExpiredError: the deadline passed while files were read.
            FullError: too much is waiting.
            StoppingError: the server is stopping.
        """
        came = time.monotonic()
        version = self._repository.get(request.version)
        model = ROWS_MODEL if isinstance(request.images, np.ndarray) else FILES_MODEL
        try:
            images = self._ready(request)
            ticket = self._batcher.submit(version.run, images.rows, request.deadline) if len(images.rows) else None
        except CallError as error:
            _count_failure(version, model, error, came, request.trace)
            raise
        return Pending(self._batcher, ticket, images, version, model, came, request.trace)

    def begin_rows(self) -> RowReader:
        """Begin an image that comes row by row.

        Raises:
            NotReadyError: no version is served.
            NotAvailableError: the model can't be run row by row.
        """
        version = self._repository.get()
        if version.steps is None:
            name = version.model.path.name
            raise NotAvailableError(f"the model {name} can't be run row by row: there is no {STEP_FILE} beside it")
        return RowReader(version.steps, version.card.temperature)

    def _ready(self, request: Request) -> Images:
        """Make a call's images ready for the network."""
        images = request.images
        if not 1 <= len(images) <= self._max_images:
            raise BadRequestError(
                f"the call has {len(images)} images, expected 1 to {self._max_images}, the server's --max-images"
            )
        if not isinstance(images, np.ndarray):
            return self._read(images, request.deadline)
        if images.dtype == np.uint8:
            return Images(to_network(images), (), [None] * len(images))
        if images.min() >= 0 and images.max() <= 1:
            return Images(images, (), [None] * len(images))
        return _tamed(images)

    def _read(self, files: Sequence[bytes], deadline: float | None) -> Images:
        readable: list[NDArray[np.uint8]] = []
        reasons: list[RejectReason | None] = []
        errors: list[str | None] = []
        for file in files:
            if deadline is not None and deadline <= time.monotonic():
                raise ExpiredError(f"the deadline passed with {len(errors)} of {len(files)} files read")
            try:
                with self._decoding:
                    taken = steps(file, self._max_pixels)
                readable.append(taken.rows)
                reasons.append(taken.reason)
                errors.append(None)
            except InputError as error:
                errors.append(str(error))
        pixels = np.stack(readable) if readable else np.empty((0, ROWS, COLUMNS), np.uint8)
        return Images(to_network(pixels), reasons, errors)

    def _pending(self) -> dict[ModelKey, int]:
        versions = self._repository.served()
        return {(ROWS_MODEL, version.name): self._batcher.pending(version.run) for version in versions}


def _tamed(images: NDArray[np.float32]) -> Images:
    """Take images, float32 [n, 28, 28], of which some have values beyond 0 to 1, or NaN: load generators send any bits.

    The network sees the nearest values that are allowed, so that whatever was sent has finite answers; and they are
    rejected.
    """
    flat = images.reshape(len(images), -1)
    fits = np.all((flat > -SLACK) & (flat < 1 + SLACK), axis=1)
    reasons = [None if fit else RejectReason.NOT_A_DIGIT for fit in fits.tolist()]
    return Images(np.clip(np.nan_to_num(images), 0, 1), reasons, [None] * len(images))
