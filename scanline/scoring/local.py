"""The engine of this machine: processes that decode and run the model, each for itself."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache, partial
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeVar

from scanline.errors import ScanlineError
from scanline.images import Image
from scanline.prediction import Prediction
from scanline.scoring.engine import Batch, in_flight

if TYPE_CHECKING:
    from scanline.reader import Reader

Answer = TypeVar("Answer")

# Batches on their way for each process: one that it reads and two that wait, so that a slow one delays no other.
AHEAD: Final = 3
DEAD_AT_START: Final = "the processes that read files die at their start; is there memory for them?"


class Local:
    """Reads with a model in processes of this machine; a context manager, with which they end.

    A process that dies, whoever killed it, costs nothing: its files are read again, in the end one by one. A file that
    kills the process that reads it is an error on its own row.
    """

    def __init__(self, load: Callable[[], Reader], *, processes: int, probabilities: bool) -> None:
        """Start the first process, which gets ready meanwhile; the others start when there is work for them.

        Args:
            load: gives a reader; it is called in each process.
            processes: how many at most.
            probabilities: whether to give those of all ten digits.
        """
        self._load = load
        self._processes = processes
        self._probabilities = probabilities
        self._pool = self._start()
        self._version = self._submit(_version)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    @property
    def version(self) -> str:
        """The first 12 hexadecimal digits of the model file's SHA-256.

        Raises:
            ModelError: the model can't be used.
            ScanlineError: the process died, and so did another.
        """
        try:
            return self._version.result()
        except BrokenProcessPool:
            self._version = self._submit(_version)
        try:
            return self._version.result()
        except BrokenProcessPool:
            raise ScanlineError(DEAD_AT_START) from None

    def run(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, list[Prediction]]]:
        """Give each batch with its predictions, in order.

        Raises:
            ModelError: the model can't be used.
            ScanlineError: the processes die at their start.
        """
        for batch, future in in_flight(batches, lambda batch: self._read(batch.images), AHEAD * self._processes):
            yield batch, self._result(batch.images, future)

    def _start(self) -> ProcessPoolExecutor:
        # where this process is killed, multiprocessing's helper cleans up after it; it need not say so to the user
        os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")
        # spawn, not fork: onnxruntime and gRPC hold threads that a fork would tear
        return ProcessPoolExecutor(
            self._processes, multiprocessing.get_context("spawn"), initializer=_prepare, initargs=(self._load,)
        )

    def _read(self, images: list[Image]) -> Future[list[Prediction]]:
        return self._submit(partial(_classify, images, probabilities=self._probabilities))

    def _submit(self, work: Callable[[], Answer]) -> Future[Answer]:
        # A process that is started here must be handed its task whole. It keeps the mask, so that Ctrl-C never reaches
        # it: the parent ends it.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            return self._pool.submit(work)
        except BrokenProcessPool:
            self._pool = self._start()
            return self._pool.submit(work)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _result(self, images: list[Image], future: Future[list[Prediction]]) -> list[Prediction]:
        try:
            return future.result()
        except BrokenProcessPool:
            pass
        try:
            return self._read(images).result()
        except BrokenProcessPool:
            return [self._alone(image) for image in images]

    def _alone(self, image: Image) -> Prediction:
        try:
            return self._read([image]).result()[0]
        except BrokenProcessPool:
            self._check_start()
            return Prediction(error="the process that read it died: out of memory, or by a fault in a decoder")

    def _check_start(self) -> None:
        try:
            self._read([]).result()
        except BrokenProcessPool:
            raise ScanlineError(DEAD_AT_START) from None


def _prepare(load: Callable[[], Reader]) -> None:
    """Make a process ready: an end with the parent, and a model of its own."""
    global _reader  # noqa: PLW0603 - a pool hands its processes no state: an initializer can leave a reader for later tasks here only
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # with which a pool ends its processes
    threading.Thread(target=_leave_with_the_parent, daemon=True).start()
    _reader = cache(load)  # loaded by the first task: what is wrong with a model is then that task's error


_reader: Callable[[], Reader]


def _leave_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a child
    parent.join()
    os._exit(1)


def _classify(images: list[Image], *, probabilities: bool) -> list[Prediction]:
    return _reader().classify(images, probabilities=probabilities)


def _version() -> str:
    return _reader().model().file
