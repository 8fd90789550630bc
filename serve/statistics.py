"""What each model has done, counted as it happens; serve/metrics.py and the Open Inference Protocol tell it.

A count costs a lock and a few additions, so that it can be kept of every call. Counts of several processes add up,
which is how the supervisor of several workers makes one of theirs.
"""

from __future__ import annotations

import copy
import threading
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Final, Literal, NamedTuple, Self

from serve.errors import CallError, CancelledError, ExpiredError, FullError, ModelRunError, StoppingError

# The models as the Open Inference Protocol names them: images in the network's form, and image files.
ROWS_MODEL: Final = "digits"
FILES_MODEL: Final = "digits-image"

# The upper ends of the buckets of times, in seconds; what takes longer is in one more.
TIMES: Final = (50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

# Triton's names for why a request failed; what is not in the table made no sense.
REASONS: Final = ("REJECTED", "CANCELED", "BACKEND", "OTHER")
FAILURES: Final[dict[type[CallError], str]] = {
    FullError: "REJECTED",
    StoppingError: "REJECTED",
    ExpiredError: "REJECTED",
    CancelledError: "CANCELED",
    ModelRunError: "BACKEND",
}

ModelKey = tuple[str, str]  # name, version
_zeros: Callable[[], dict[Any, int]] = partial(defaultdict, int)
What = Literal["model", "certificate", "token"]
Outcome = Literal["done", "refused"]


class Times(NamedTuple):
    """The course of a request that was answered, on the monotonic clock, in seconds."""

    came: float  # when it came
    queued: float  # when it was ready to be queued: who waits for room in the queue waits for the model
    begun: float  # when the first of its images was taken into a run
    ended: float  # when the run with its last image ended
    had: float  # when its answers were taken


@dataclass(slots=True)
class _Addable:
    """Counts that add up with another process's, field by field."""

    def __iadd__(self, other: Self) -> Self:
        for each in fields(self):
            ours, theirs = getattr(self, each.name), getattr(other, each.name)
            if isinstance(ours, dict):
                for key, value in theirs.items():
                    ours[key] += value
            else:
                setattr(self, each.name, max(ours, theirs) if each.name == "last" else ours + theirs)
        return self


@dataclass(slots=True)
class Counts(_Addable):
    """What one model has done. Times are in seconds."""

    success: int = 0  # requests that were answered
    images: int = 0  # in those requests
    last: float = 0.0  # when the last run of the model ended, since the epoch; 0 where there was none
    pending: int = 0  # requests that wait now
    # What the answered requests took in all
    input: float = 0.0  # until they were queued: checks, and reading files
    queue: float = 0.0  # waiting for the model
    infer: float = 0.0  # in runs of the model, each counted with the whole run
    output: float = 0.0  # from then until their answers were had
    total: float = 0.0  # in all four
    # How many requests took, and waited, how long, by the index of the bucket in TIMES
    total_times: dict[int, int] = field(default_factory=_zeros)
    queue_times: dict[int, int] = field(default_factory=_zeros)
    failed: dict[str, int] = field(default_factory=_zeros)  # requests that failed, by reason
    failed_total: float = 0.0  # what those took in all until they did
    rejected: dict[str, int] = field(default_factory=_zeros)  # images read but not to be trusted, by reason
    runs: dict[int, int] = field(default_factory=_zeros)  # runs of the model, by the number of images in the run
    run_total: dict[int, float] = field(default_factory=lambda: defaultdict(float))  # what those took, likewise
    run_times: dict[int, int] = field(default_factory=_zeros)  # runs that took so long, by the bucket's index


@dataclass(slots=True)
class Snapshot(_Addable):
    """What a server has done so far."""

    # of each model that was ever loaded, by its name and version
    models: dict[ModelKey, Counts] = field(default_factory=lambda: defaultdict(Counts))
    # how often something was read again from its files, and whether it was taken or refused
    reloads: dict[tuple[What, Outcome], int] = field(default_factory=_zeros)
    calls_failed: dict[str, int] = field(default_factory=_zeros)  # by the name of their status code
    in_flight: int = 0  # calls under way
    workers: int = 0  # processes that answer
    restarts: int = 0  # how often one that had ended was started again

    def end(self) -> None:
        """Keep of a process that has ended what it has done, and nothing that it was about to."""
        self.in_flight = self.workers = 0
        for counts in self.models.values():
            counts.pending = 0


class ModelCounter:
    """Counts what one model does. Any thread may call it."""

    def __init__(self, counts: Counts, lock: threading.Lock) -> None:
        """Count there, with the lock held."""
        self._counts = counts
        self._lock = lock

    def ran(self, images: int, seconds: float) -> None:
        """Count a run of the model over so many images."""
        counts, bucket = self._counts, bisect_left(TIMES, seconds)
        with self._lock:
            counts.runs[images] += 1
            counts.run_total[images] += seconds
            counts.run_times[bucket] += 1
            counts.last = time.time()

    def succeeded(self, images: int, times: Times) -> None:
        """Count a request with so many images that was answered."""
        came, queued, begun, ended, had = times
        counts, waited, took = self._counts, begun - queued, had - came
        wait_bucket, bucket = bisect_left(TIMES, waited), bisect_left(TIMES, took)
        with self._lock:
            counts.success += 1
            counts.images += images
            counts.input += queued - came
            counts.queue += waited
            counts.infer += ended - begun
            counts.output += had - ended
            counts.total += took
            counts.queue_times[wait_bucket] += 1
            counts.total_times[bucket] += 1

    def failed(self, error: CallError, seconds: float) -> None:
        """Count a request that failed after so many seconds."""
        reason = FAILURES.get(type(error), "OTHER")
        with self._lock:
            self._counts.failed[reason] += 1
            self._counts.failed_total += seconds

    def rejected(self, reasons: Iterable[str]) -> None:
        """Count images whose answers should not be trusted, each by its reason."""
        rejected = self._counts.rejected
        with self._lock:
            for reason in reasons:
                rejected[reason] += 1


class Statistics:
    """What a server counts.

    Attributes:
        in_flight: says how many calls are under way.
        pending: says how many requests wait for each model now.
        everywhere: gives what all processes that share the port have done; where there is one, what it has.
    """

    def __init__(self) -> None:
        """Begin at zero."""
        self.in_flight: Callable[[], int] = lambda: 0
        self.pending: Callable[[], Mapping[ModelKey, int]] = dict
        self.everywhere: Callable[[], Snapshot] = self.snapshot
        self._lock = threading.Lock()
        self._counted = Snapshot(workers=1)

    def of(self, name: str, version: str) -> ModelCounter:
        """Give the counter of a model; one that is loaded again goes on where it was."""
        with self._lock:
            return ModelCounter(self._counted.models[name, version], self._lock)

    def reloaded(self, what: What, outcome: Outcome) -> None:
        """Count that something was read again from its files."""
        with self._lock:
            self._counted.reloads[what, outcome] += 1

    def call_failed(self, code: str) -> None:
        """Count that a call failed with a status code, whether it came as far as a model or not."""
        with self._lock:
            self._counted.calls_failed[code] += 1

    def snapshot(self) -> Snapshot:
        """Give what this process has done."""
        with self._lock:
            snapshot = copy.deepcopy(self._counted)
        for model, waiting in self.pending().items():
            snapshot.models[model].pending = waiting
        snapshot.in_flight = self.in_flight()
        return snapshot
