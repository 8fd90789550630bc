"""The versions of the model that are served: loaded, proved, replaced while calls go on.

`--model` is a file, an exported folder or the name of a model that ships, which has one version; or a folder MODELS of
exported folders MODELS/1, MODELS/2 and so on, which is looked at again and again. A version that comes is served once
its files are those of its manifest, its card fits and its golden vectors come out right on this machine; one that fails
is refused, and what was served before goes on. Looking is done by asking, not by the kernel's notices (inotify), which
do not come from network file systems and mounted volumes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray

from scanline import reject, verify
from scanline.contract import CLASSES, COLUMNS, ROWS, ModelCard
from scanline.errors import ModelError
from scanline.model import STEP_FILE, Model, StepModel, find, place_of
from scanline.prediction import softmax
from serve.errors import CallError, NotAvailableError, NotFoundError, NotReadyError
from serve.folder import ONLY, Policy, Stamp, holds_versions, stamp_of, versions_in
from serve.settings import ServeSettings
from serve.statistics import FILES_MODEL, ROWS_MODEL, ModelCounter, Statistics

CURRENT: Final = ""  # what a request says that names no version
# The columns of what `run` gives: all that the network and the card say of an image is found once a batch, not once a
# call.
LOGITS: Final = slice(0, CLASSES)
PROBABILITIES: Final = slice(CLASSES, 2 * CLASSES)
REASON: Final = 2 * CLASSES  # an index into reject.REASONS
WIDTH: Final = 2 * CLASSES + 1

log = structlog.get_logger("scanline.model")


@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """A version of the model.

    Attributes:
        name: its number, as requests give it.
        model: the whole network.
        steps: the same network one row at a time, or None where there is no such file.
        stamp: what its files looked like.
        counters: what counts its requests, by the model's name in the Open Inference Protocol; the first its runs, too.
    """

    name: str
    model: Model
    steps: StepModel | None
    stamp: Stamp
    counters: dict[str, ModelCounter]

    @property
    def card(self) -> ModelCard:
        """What the model says of itself."""
        return self.model.card

    def run(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Give what there is to say of each image, float32 [n, WIDTH], of rows, float32 [n, 28, 28], 0 to 1."""
        started = time.monotonic()
        logits = self.model.run(rows)
        self.counters[ROWS_MODEL].ran(len(rows), time.monotonic() - started)
        probabilities = softmax(logits, self.card.temperature)
        answers = np.empty((len(rows), WIDTH), np.float32)
        answers[:, LOGITS] = logits
        answers[:, PROBABILITIES] = probabilities
        answers[:, REASON] = reject.codes(rows, logits, probabilities, self.card)
        return answers


class Repository:
    """The versions of the model. All methods may be called from any thread.

    What is served is replaced whole and never changed, so that `get` takes no lock; a request keeps what it was given.

    Attributes:
        when_changed: called when it begins or ceases to serve anything, in the thread that has made it so.
    """

    def __init__(self, settings: ServeSettings, statistics: Statistics) -> None:
        """Load what the settings say.

        Args:
            settings: where the model is, which of its versions are served, and in what runs.
            statistics: where what the versions do is counted, and what became of those that came.

        Raises:
            ModelError: nothing can be served.
        """
        self._settings = settings
        # absolute, so that what a name meant at the start is served to the end
        self._source = place_of(settings.model).absolute()
        self._policy = Policy.parse(settings.model_versions)
        self._statistics = statistics
        self.when_changed: Callable[[], None] = lambda: None
        self._changing = threading.Lock()
        self._served: Mapping[str, Version] = {}  # the highest first
        self._present: Mapping[int, Stamp] = {}
        self._refused: dict[int, tuple[Stamp, str]] = {}  # of those present, with what was wrong, in words
        self._missed: set[int] = set()  # those whose folders have gone, as the log has said
        self._unloaded = False
        self._has_started = False  # the start itself reports what it refuses, when something can be served
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None
        self._is_watched = holds_versions(self._source)
        self._serve(present := self._look(), [*present])
        if not self._served:
            reasons = "; ".join(reason for _, reason in self._refused.values())
            there = f"no version in {self._source} is one of {settings.model_versions}"
            raise ModelError(reasons or f"{there}; there are {', '.join(map(str, sorted(present))) or 'none'}")
        for number, (_, reason) in self._refused.items():
            self._report_refusal(number, reason)
        if missing := self._policy.listed - present.keys():
            log.warning("not there yet", versions=sorted(missing), folder=str(self._source))
        self._has_started = True

    def get(self, name: str = CURRENT) -> Version:
        """Give a version that is served; without a name the highest.

        Raises:
            NotFoundError: there is no such version.
            NotReadyError: there is, but it is not served.
        """
        served = self._served
        version = next(iter(served.values()), None) if name == CURRENT else served.get(name)
        if version is None:
            raise self._absence(name)
        return version

    def served(self) -> list[Version]:
        """Give all versions that are served, the highest first."""
        return [*self._served.values()]

    def index(self) -> dict[str, str]:
        """Say of all versions that are known, the highest first, why they are not served; nothing of those that are."""
        # without the lock, which whoever looks at a hung mount holds
        numbers = sorted({*self._present, *map(int, self._served)}, reverse=True)
        return {str(number): self._reason(number) for number in numbers}

    def refresh(self) -> None:
        """Look at the folder of versions, and serve what it holds now.

        A version whose folder has gone is served as before: a mount that fails must not take the service with it.
        """
        with self._changing:
            if self._unloaded:
                return
            try:
                present = self._look()
            except OSError:
                present = {}
            missing = {*map(int, self._served)} - present.keys()
            if missing - self._missed:
                log.warning("gone, and served as before", versions=sorted(missing), folder=str(self._source))
            self._missed = missing
            self._serve(present, [*present, *missing])

    def load(self) -> None:
        """Serve what is on disk now, what was refused or unloaded before included, and nothing that has gone.

        Raises:
            NotAvailableError: there is nothing that can be read or is to be served, or a version is refused; what was
                served stays, and what was unloaded does so where nothing in the folder can be served.
        """
        with self._changing:
            try:
                present = self._look()
            except OSError as error:
                raise NotAvailableError(f"the model can't be read: {error.strerror}") from None
            except ModelError:
                raise NotAvailableError("there is no model where --model says") from None
            self._refused.clear()
            found = self._serve(present, [*present])
            self._unloaded = not self._served
            if self._refused:
                raise NotAvailableError("; ".join(self._told(reason) for _, reason in self._refused.values()))
            if not found:
                raise NotAvailableError(f"no version in the folder is one of {self._settings.model_versions}")

    def unload(self) -> None:
        """Serve nothing until `load`; what is under way is finished."""
        with self._changing:
            self._unloaded = True
            before, self._served = self._served, {}
            log.info("model unloaded")
            if before:
                self.when_changed()

    def watch(self) -> None:
        """Look at a folder of versions as often as the settings say, until `close`."""

        def look_on() -> None:
            while not self._stopping.wait(self._settings.model_poll):
                self.refresh()

        if self._is_watched:
            self._watcher = threading.Thread(target=look_on, name="watch", daemon=True)
            self._watcher.start()

    def close(self, timeout: float) -> bool:
        """Stop watching, and say whether that is over within so many seconds: a mount that hangs gives no answer."""
        self._stopping.set()
        if self._watcher is None:
            return True
        self._watcher.join(timeout)
        return not self._watcher.is_alive()

    def _look(self) -> dict[int, Stamp]:
        if self._is_watched:
            return versions_in(self._source)
        model = find(self._source)
        files = [file for file in (model, model.with_name(STEP_FILE)) if file.is_file()]
        return {ONLY: tuple(state for file in files for state in stamp_of(file))}

    def _serve(self, present: Mapping[int, Stamp], numbers: list[int]) -> bool:
        """Serve those of the numbers that the policy wants and that can be used, or else what was. With the lock held.

        Returns:
            Whether there are any.
        """
        self._refused = {number: refusal for number, refusal in self._refused.items() if number in present}
        chosen: dict[str, Version] = {}
        for number in sorted(numbers, reverse=True):
            if self._policy.wants(number, len(chosen)):
                version = self._usable(number, present.get(number))
                if version is not None:
                    chosen[version.name] = version
        if not chosen:  # better what was served than nothing
            self._present = present
            return False
        for name in self._served.keys() - chosen.keys():
            log.info("version dropped", version=name)
        before, self._served = self._served, chosen
        self._present = present  # not before: of a version that is being loaded nothing is known yet
        if not before:
            self.when_changed()
        for version in chosen.values():
            if self._has_started and version not in before.values():
                self._statistics.reloaded("model", "done")
                file, accuracy = version.model.version, version.card.accuracy
                log.info("version loaded", version=version.name, file=file, accuracy=accuracy)
        return True

    def _usable(self, number: int, stamp: Stamp | None) -> Version | None:
        """Give a version as it lies on disk, or, where that can't be used, as it is served; None for neither."""
        served = self._served.get(str(number))
        if stamp is None or (served is not None and served.stamp == stamp):
            return served
        if number in self._refused and self._refused[number][0] == stamp:
            return served
        try:
            version = self._open(number, stamp)
        except Exception as error:  # noqa: BLE001 - whatever a bad file does to a library, what is served goes on
            self._refused[number] = (stamp, str(error))
            if self._has_started:
                self._report_refusal(number, str(error))
            return served
        self._refused.pop(number, None)
        return version

    def _report_refusal(self, number: int, reason: str) -> None:
        self._statistics.reloaded("model", "refused")
        log.warning("version refused", version=str(number), reason=reason)

    def _open(self, number: int, stamp: Stamp) -> Version:
        """Open a version, prove it if it came from a folder of versions, and warm it up.

        Raises:
            ModelError: it can't be used.
            GateError: its numbers come out wrong on this machine.
        """
        in_folder = self._source / str(number) if self._is_watched else self._source
        model = Model(in_folder, threads=self._settings.model_threads)
        step_file = model.path.with_name(STEP_FILE)
        steps = StepModel(step_file) if step_file.is_file() else None
        if self._is_watched:
            verify.golden_check(model.path, model.card, model.run)
        model.run(np.zeros((self._settings.max_batch_size, ROWS, COLUMNS), np.float32))
        counters = {name: self._statistics.of(name, str(number)) for name in (ROWS_MODEL, FILES_MODEL)}
        return Version(str(number), model, steps, stamp, counters)

    def _absence(self, name: str) -> CallError:
        if self._unloaded:
            return NotReadyError("the model is unloaded")
        if name in map(str, self._present):
            return NotReadyError(f"model version {name} is not served: {self._reason(int(name))}")
        # cut, since it comes from outside and goes into a header and the log
        return NotFoundError(f"model version {name[:64]!r} is not loaded; {', '.join(self._served)} is")

    def _reason(self, number: int) -> str:
        if str(number) in self._served:
            return ""
        refusal = self._refused.get(number)  # once: the watcher may take it away
        if refusal is not None:
            return self._told(refusal[1])
        return "unloaded" if self._unloaded else "the policy leaves it out"

    def _told(self, reason: str) -> str:
        """Give a reason as callers may read it, whom it does not concern where the folder lies."""
        return reason.replace(f"{self._source}/", "").replace(f"{self._source.parent}/", "")
