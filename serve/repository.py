"""The versions of the model that are served: loaded, proved, replaced while calls go on.

`--model` is a file or an exported folder, which has one version; or a folder MODELS of exported folders MODELS/1,
MODELS/2 and so on, which is looked at again and again. A version that comes is served once its files are those of its
manifest, its card fits and its golden vectors come out right on this machine; one that fails is refused, and what was
served before goes on. Looking is done by asking, not by the kernel's notices (inotify), which do not come from network
file systems and mounted volumes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import structlog

from scanline import verify
from scanline.contract import COLUMNS, ROWS
from scanline.errors import ModelError
from scanline.model import STEP_FILE, Model, StepModel, find
from serve.errors import CallError, NotAvailableError, NotFoundError, NotReadyError
from serve.folder import ONLY, Found, Policy, Stamp, found_in, holds_versions, stamp_of
from serve.statistics import FILES_MODEL, ROWS_MODEL, Statistics
from serve.version import Version

CURRENT: Final = ""  # what a request says that names no version

log = structlog.get_logger("scanline.model")


@dataclass(frozen=True, slots=True)
class Entry:
    """A version in the list of all that are known.

    Attributes:
        name: its number.
        reason: why it is not served; empty where it is.
    """

    name: str
    reason: str


class Repository:
    """The versions of the model. All methods may be called from any thread.

    What is served is replaced whole and never changed, so that `get` takes no lock; a request keeps what it was given.

    Attributes:
        when_changed: called when it begins or ceases to serve anything, in the thread that has made it so.
    """

    def __init__(
        self, source: Path | None, policy: Policy, statistics: Statistics, *, threads: int, max_batch_size: int
    ) -> None:
        """Load what is to be served.

        Args:
            source: a model file, an exported folder, or a folder of versions; None for the model that ships.
            policy: which versions of a folder of versions are served.
            statistics: where what the versions do is counted, and what became of those that came.
            threads: how many threads one run may use.
            max_batch_size: the most images in one run, with which a version is warmed up.

        Raises:
            ModelError: nothing can be served.
        """
        self._source = source
        self._policy = policy
        self._statistics = statistics
        self._threads = threads
        self._max_batch_size = max_batch_size
        self.when_changed: Callable[[], None] = lambda: None
        self._changing = threading.Lock()
        self._answering: Mapping[str, Version] = {}  # by what a request may call it; the highest first
        self._present: Mapping[int, Found] = {}
        self._refused: dict[int, tuple[Stamp, str]] = {}  # with what was wrong, in words
        self._missed: set[int] = set()  # those whose folders have gone, as the log has said
        self._unloaded = False
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None
        self._is_watched = holds_versions(source)
        self._serve(present := self._found(), [*present])
        if not self._answering:
            reasons = "; ".join(reason for _, reason in self._refused.values())
            raise ModelError(reasons or f"no version in {source} is one of {policy}")
        for number, (_, reason) in self._refused.items():
            self._report_refusal(number, reason)

    def get(self, name: str = CURRENT) -> Version:
        """Give a version that is served; without a name the highest.

        Raises:
            NotFoundError: there is no such version.
            NotReadyError: there is, but it is not served.
        """
        version = self._answering.get(name)
        if version is None:
            raise self._absence(name)
        return version

    def served(self) -> list[Version]:
        """Give all versions that are served, the highest first."""
        return [version for name, version in self._answering.items() if name != CURRENT]

    def index(self) -> list[Entry]:
        """List all versions that are known, the highest first."""
        with self._changing:
            numbers = {*self._present, *self._refused, *map(int, self._answering.keys() - {CURRENT})}
            return [Entry(str(number), self._reason(number)) for number in sorted(numbers, reverse=True)]

    def refresh(self) -> None:
        """Look at the folder of versions, and serve what it holds now.

        A version whose folder has gone is served as before: a mount that fails must not take the service with it.
        """
        with self._changing:
            if self._unloaded:
                return
            try:
                present = self._found()
            except OSError:
                present = {}
            missing = {int(version.name) for version in self.served()} - present.keys()
            if missing - self._missed:
                log.warning("gone, and served as before", versions=sorted(missing), folder=str(self._source))
            self._missed = missing
            self._serve(present, [*present, *missing])

    def load(self) -> None:
        """Serve what is on disk now, what was refused or unloaded before included, and nothing that has gone.

        Raises:
            NotAvailableError: the folder can't be read, or a version in it is refused; what was served stays, and what
                was unloaded does so where nothing in the folder can be served.
        """
        with self._changing:
            try:
                present = self._found()
            except OSError as error:
                raise NotAvailableError(f"the model can't be read: {error.strerror}") from None
            self._refused.clear()
            self._serve(present, [*present])
            self._unloaded = not self._answering
            if self._refused:
                raise NotAvailableError("; ".join(self._told(reason) for _, reason in self._refused.values()))

    def unload(self) -> None:
        """Serve nothing until `load`; what is under way is finished."""
        with self._changing:
            self._unloaded = True
            before, self._answering = self._answering, {}
            log.info("model unloaded")
            if before:
                self.when_changed()

    def watch(self, interval: float) -> None:
        """Look at a folder of versions every so many seconds, until `close`."""
        if self._is_watched:
            self._watcher = threading.Thread(target=self._watch, args=(interval,), name="watch", daemon=True)
            self._watcher.start()

    def close(self) -> None:
        """Stop watching."""
        self._stopping.set()
        if self._watcher is not None:
            self._watcher.join()

    def _watch(self, interval: float) -> None:
        while not self._stopping.wait(interval):
            self.refresh()

    def _found(self) -> dict[int, Found]:
        if self._is_watched:
            assert self._source is not None
            return found_in(self._source)
        path = find(self._source)
        return {ONLY: Found(path, stamp_of(path))}

    def _serve(self, present: Mapping[int, Found], numbers: list[int]) -> None:
        """Serve those of the numbers that the policy wants and that can be used. With the lock held."""
        self._present = present
        self._refused = {number: refusal for number, refusal in self._refused.items() if number in present}
        chosen: dict[str, Version] = {}
        for number in sorted(numbers, reverse=True):
            if self._policy.wants(number, len(chosen)):
                version = self._usable(number, present.get(number))
                if version is not None:
                    chosen[version.name] = version
        if not chosen:  # better what was served than nothing
            return
        for name in self._answering.keys() - chosen.keys() - {CURRENT}:
            log.info("version dropped", version=name)
        before = self._answering
        self._answering = {CURRENT: next(iter(chosen.values())), **chosen}
        if not before:
            self.when_changed()
        for version in chosen.values():
            if before and version not in before.values():  # else this is the start
                self._statistics.reloaded("model", "done")
                file, accuracy = version.model.version, version.card.accuracy
                log.info("version loaded", version=version.name, file=file, accuracy=accuracy)

    def _usable(self, number: int, found: Found | None) -> Version | None:
        """Give a version as it lies on disk, or, where that can't be used, as it is served; None for neither."""
        served = self._answering.get(str(number))
        if found is None or (served is not None and served.stamp == found.stamp):
            return served
        if number in self._refused and self._refused[number][0] == found.stamp:
            return served
        try:
            version = self._open(number, found)
        except Exception as error:  # noqa: BLE001 - whatever a bad file does to a library, what is served goes on
            self._refused[number] = (found.stamp, str(error))
            if self._answering:  # else this is the start
                self._report_refusal(number, str(error))
            return served
        self._refused.pop(number, None)
        return version

    def _report_refusal(self, number: int, reason: str) -> None:
        self._statistics.reloaded("model", "refused")
        log.warning("version refused", version=str(number), reason=reason)

    def _open(self, number: int, found: Found) -> Version:
        """Open a version, prove it if it came from a folder of versions, and warm it up.

        Raises:
            ModelError: it can't be used.
            GateError: its numbers come out wrong on this machine.
        """
        model = Model(found.path, threads=self._threads)
        step_file = model.path.with_name(STEP_FILE)
        steps = StepModel(step_file) if step_file.is_file() else None
        if self._is_watched:
            verify.golden_check(model.path, model.card, model.run)
        model.run(np.zeros((self._max_batch_size, ROWS, COLUMNS), np.float32))
        counters = {name: self._statistics.of(name, str(number)) for name in (ROWS_MODEL, FILES_MODEL)}
        return Version(str(number), model, steps, found.stamp, counters, runs=counters[ROWS_MODEL])

    def _absence(self, name: str) -> CallError:
        if self._unloaded:
            return NotReadyError("the model is unloaded")
        known = {str(number) for number in {*self._present, *self._refused}}
        if name in known:
            return NotReadyError(f"model version {name} is not served: {self._reason(int(name))}")
        # cut, since it comes from outside and goes into a header and the log
        return NotFoundError(
            f"model version {name[:64]!r} is not loaded; {', '.join(version.name for version in self.served())} is"
        )

    def _reason(self, number: int) -> str:
        if str(number) in self._answering:
            return ""
        refusal = self._refused.get(number)  # once: the watcher may take it away
        if refusal is not None:
            return self._told(refusal[1])
        return "unloaded" if self._unloaded else "the policy leaves it out"

    def _told(self, reason: str) -> str:
        """Give a reason as callers may read it, whom it does not concern where the folder lies."""
        return reason.replace(f"{self._source}/", "")
