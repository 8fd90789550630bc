"""The service: images in, predictions out. Any transport can stand before it; it knows none.

A call is answered in two steps, so that a transport can hold several calls of one caller at once and drop one whose
caller has gone: `DigitService.submit` checks it, reads its files and queues it; `Pending.result` waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from scanline.contract import COLUMNS, ROWS, to_network
from scanline.errors import InputError
from scanline.model import STEP_FILE
from scanline.prediction import RejectReason, softmax
from scanline.preprocess import steps
from scanline.reject import REASONS
from serve.batcher import Batcher, Ticket
from serve.errors import BadRequestError, CallError, CancelledError, ExpiredError, FullError, NotAvailableError
from serve.repository import LOGITS, PROBABILITIES, REASON, WIDTH, Repository, Version
from serve.settings import ServeSettings
from serve.statistics import FILES_MODEL, ROWS_MODEL, Statistics, Times

if TYPE_CHECKING:
    from serve.tracing import RequestTrace, Tracer

Metadata: TypeAlias = tuple[tuple[str, str | bytes], ...]  # names and values
# A call's images: in the network's form, or the bytes of files.
Given: TypeAlias = NDArray[Any] | Sequence[bytes]

NO_DEADLINE: Final = 366 * 24 * 3600.0  # seconds: a transport may say hundreds of years where the caller set none


class Caller(Protocol):
    """Who waits for an answer: the part of grpc.ServicerContext that we use, which each transport has."""

    def time_remaining(self) -> float:
        """Give the seconds that are left until its deadline."""

    def is_active(self) -> bool:
        """Say whether it still waits."""

    def add_callback(self, callback: Callable[[], None], /) -> bool:
        """Call a function when it waits no longer; do nothing but say False where that is so already."""

    def invocation_metadata(self) -> Metadata:
        """Give what it sent along."""

    def set_trailing_metadata(self, trailing_metadata: Metadata, /) -> None:
        """Have something sent back after the answer."""


def when_over(caller: Caller, act: Callable[[], None]) -> None:
    """Call a function when nobody waits for a call any more, which may be now: another thread can have seen its end."""
    if not caller.add_callback(act):
        act()


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
ONE: Final = 0x3F800000  # the bits of 1.0 in float32


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


class Pending:
    """A call, from when it comes until it is answered.

    Attributes:
        version: the version of the model that answers it.
    """

    __slots__ = ("_batcher", "_came", "_errors", "_model", "_own_reasons", "_ready_at", "_ticket", "_trace", "version")

    def __init__(self, batcher: Batcher, version: Version, model: str, trace: RequestTrace | None) -> None:
        self._batcher = batcher
        self.version = version
        self._model = model  # as a request to which it is counted
        self._came = self._ready_at = time.monotonic()
        self._trace = trace
        self._own_reasons: Sequence[RejectReason | None]
        self._errors: Sequence[str | None]
        self._ticket: Ticket | None = None  # of the images that could be read; there may be none

    def queue(self, images: Images, caller: Caller, deadline: float | None, over: threading.Event | None) -> None:
        """Queue its images, once they are ready; where there is an event, wait for room until that is set.

        Raises:
            CallError: FullError or StoppingError; of who waits for room, ExpiredError or CancelledError.
        """
        self._own_reasons, self._errors = images.reasons, images.errors
        self._ready_at = time.monotonic()
        while len(images.rows) and self._ticket is None:
            try:
                self._ticket = self._batcher.submit(self.version.run, images.rows, deadline)
            except FullError as full:
                if over is None:
                    raise
                if deadline is not None and deadline <= time.monotonic():
                    raise ExpiredError("the deadline passed before there was room for the images") from None
                if over.wait(full.retry_after) or not caller.is_active():
                    raise CancelledError("the caller cancelled") from None

    def cancel(self) -> None:
        """Drop it: its caller has gone."""
        ticket = self._ticket
        if ticket is not None:
            self._batcher.cancel(ticket)

    def drop(self) -> None:
        """Cancel it where nobody will ask for its result."""
        self.cancel()
        self.count_failure(CancelledError("the caller cancelled"))

    def when_done(self, listener: Callable[[], None]) -> None:
        """Call a listener once, in any thread, when `result` need not wait; at once if that is now."""
        if self._ticket is None:
            listener()
        else:
            self._batcher.when_done(self._ticket, listener)

    def result(self) -> Answers:
        """Wait for the answers, once: whoever may yet cancel it keeps no images by it afterwards.

        Raises:
            CallError: ExpiredError, CancelledError, StoppingError or ModelRunError.
        """
        ticket = self._ticket
        if ticket is None:
            outputs = np.empty((0, WIDTH), np.float32)
            begun = ended = self._ready_at
        else:
            try:
                outputs = self._batcher.result(ticket)
            except CallError as error:
                self.count_failure(error)
                raise
            finally:
                self._ticket = None
            begun, ended = ticket.begun_at, ticket.ended_at
        reasons = self._reasons(outputs[:, REASON])
        times = Times(self._came, self._ready_at, begun, ended, time.monotonic())
        self.version.counters[self._model].succeeded(len(outputs), times)
        if self._trace is not None:
            self._trace.answered((self._model, self.version.name), len(outputs), times)
        return Answers(outputs[:, LOGITS], outputs[:, PROBABILITIES], reasons, self._errors)

    def count_failure(self, error: CallError) -> None:
        """Count that it fails, now."""
        self.version.counters[self._model].failed(error, time.monotonic() - self._came)
        if self._trace is not None:
            self._trace.failed((self._model, self.version.name), error, self._came)

    def _reasons(self, found: NDArray[np.float32]) -> list[RejectReason | None]:
        """Give each image's reason to be rejected, the file's own before what the network's input and answer show."""
        reasons = [REASONS[code] for code in found.astype(np.uint8).tolist()]
        if self._own_reasons:
            reasons = [own or other for own, other in zip(self._own_reasons, reasons, strict=True)]
        if any(reasons):
            self.version.counters[self._model].rejected(reason for reason in reasons if reason is not None)
        return reasons


class DigitService:
    """Answers calls with the versions of the model.

    Attributes:
        repository: the versions.
        batcher: runs them.
    """

    def __init__(
        self, repository: Repository, statistics: Statistics, settings: ServeSettings, tracer: Tracer | None = None
    ) -> None:
        """Serve what a repository holds, within the limits of the settings; tell statistics how many requests wait.

        Requests are traced where there is something that makes traces.
        """
        self.repository = repository
        self._tracer = tracer
        self._max_images = settings.max_images
        self._max_pixels = settings.max_pixels
        # A large picture takes sizing.BYTES_PER_PIXEL while it is read: no more at once than there are cores for it.
        self._decoding = threading.BoundedSemaphore(settings.instances)
        self.batcher = Batcher(
            max_batch_size=settings.max_batch_size,
            max_queue_images=settings.max_queue_images,
            max_queue_delay=settings.max_queue_delay,
            instances=settings.instances,
        )
        statistics.pending = lambda: {
            (ROWS_MODEL, version.name): self.batcher.pending(version.run) for version in repository.served()
        }

    def submit(
        self,
        caller: Caller,
        images: Given,
        version: str,
        *,
        timeout: float | None = None,
        over: threading.Event | None = None,
    ) -> Pending:
        """Check a call, read its files, and queue it, to be dropped when its caller goes or its deadline passes.

        A file that can't be read is an error on its own prediction.

        Args:
            caller: who waits for the answer.
            images: in the network's form, uint8 [n, 28, 28], 0 background to 255 ink, or float32 of the same shape, 0
                to 1; or the bytes of image files.
            version: the model version to use; empty for the current one.
            timeout: seconds after which the caller wants no answer, if it says more than its deadline does.
            over: of a stream, which has time: while too much is waiting, so does this, until the event is set. Who
                reads the stream drops its requests when the caller goes: gRPC would keep a callback for each.

        Raises:
            BadRequestError: there is no image, or there are too many.
            NotFoundError: the version that it asks for does not exist.
            NotReadyError: it does, but is not served.
            ExpiredError: the deadline passed while files were read.
            CancelledError: the caller went meanwhile.
            FullError: too much is waiting.
            StoppingError: the server is stopping.
        """
        remaining = caller.time_remaining() if timeout is None else min(caller.time_remaining(), timeout)
        deadline = time.monotonic() + remaining if remaining < NO_DEADLINE else None
        chosen = self.repository.get(version)
        model = ROWS_MODEL if isinstance(images, np.ndarray) else FILES_MODEL
        trace = None if self._tracer is None else self._tracer.begin(caller.invocation_metadata())
        pending = Pending(self.batcher, chosen, model, trace)
        try:
            pending.queue(self._ready(images, deadline, caller), caller, deadline, over)
        except CallError as error:
            pending.count_failure(error)
            raise
        if over is None:
            when_over(caller, pending.cancel)
        return pending

    def read_rows(self, rows: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Read one image, rows of uint8 [28], and give after each the ten digits' probabilities so far, float32 [10].

        Raises:
            NotReadyError: no version is served.
            NotAvailableError: the model can't be run row by row.
            BadRequestError: there are more than 28 rows.
        """
        version = self.repository.get()
        if version.steps is None:
            name = f"{version.model.path.name} ({version.card.architecture})"
            raise NotAvailableError(
                f"the model {name} can't be run row by row: there is no {STEP_FILE} beside it, and there can be none "
                "of a network that reads ahead"
            )
        state = version.steps.start()
        for seen, row in enumerate(rows):
            if seen == ROWS:
                raise BadRequestError(f"the image has had its {ROWS} rows; begin another stream for another image")
            logits, state = version.steps.run(to_network(row[np.newaxis]), state)
            yield softmax(logits, version.card.temperature)[0]

    def _ready(self, images: Given, deadline: float | None, caller: Caller) -> Images:
        """Make a call's images ready for the network."""
        if not 1 <= len(images) <= self._max_images:
            raise BadRequestError(
                f"the call has {len(images)} images, expected 1 to {self._max_images}, the server's --max-images"
            )
        if not isinstance(images, np.ndarray):
            return self._read(images, deadline, caller)
        if images.dtype == np.uint8:
            return Images(to_network(images), (), [None] * len(images))
        # In bits, the numbers from 0 to 1 are those up to ONE, and one pass shows it; -0 alone is looked at again.
        if images.view("<u4").max() <= ONE:
            return Images(images, (), [None] * len(images))
        return _tamed(images)

    def _read(self, files: Sequence[bytes], deadline: float | None, caller: Caller) -> Images:
        readable: list[NDArray[np.uint8]] = []
        reasons: list[RejectReason | None] = []
        errors: list[str | None] = []
        for file in files:
            if deadline is not None and deadline <= time.monotonic():
                raise ExpiredError(f"the deadline passed with {len(errors)} of {len(files)} files read")
            if not caller.is_active():
                raise CancelledError(f"the caller cancelled with {len(errors)} of {len(files)} files read")
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


def _tamed(images: NDArray[np.float32]) -> Images:
    """Take images, float32 [n, 28, 28], of which some have values beyond 0 to 1, or NaN: load generators send any bits.

    The network sees the nearest values that are allowed, so that whatever was sent has finite answers; and they are
    rejected.
    """
    flat = images.reshape(len(images), -1)
    fits = np.all((flat > -SLACK) & (flat < 1 + SLACK), axis=1)
    reasons = [None if fit else RejectReason.NOT_A_DIGIT for fit in fits.tolist()]
    return Images(np.clip(np.nan_to_num(images), 0, 1), reasons, [None] * len(images))
