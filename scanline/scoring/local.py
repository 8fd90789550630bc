"""The engine of this machine: processes that decode and run the model, each for itself."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Final

from scanline.errors import ScanlineError
from scanline.images import Image
from scanline.prediction import Prediction
from scanline.reader import Reader
from scanline.scoring.engine import Batch, in_flight

# Batches on their way for each process: one that it reads and two that wait, so that a slow one delays no other.
AHEAD: Final = 3


class Local:
    """Reads with a model in processes of this machine.

    A process that dies, whoever killed it, costs nothing: its files are read again, in the end one by one. A file that
    kills the process that reads it is an error on its own row.

    Attributes:
        version: the first 12 hexadecimal digits of the model file's SHA-256.
    """

    def __init__(self, load: Callable[[], Reader], *, processes: int, probabilities: bool) -> None:
        """Check the model; the processes start with the first batch.

        Args:
            load: gives a reader; it is called here and in each process.
            processes: how many.
            probabilities: whether to give those of all ten digits.

        Raises:
            ModelError: the model can't be used.
        """
        self.version = load().model.version
        self._load = load
        self._processes = processes
        self._probabilities = probabilities

    def run(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, list[Prediction]]]:
        """Give each batch with its predictions, in order."""
        self._pool = self._start()
        try:
            for batch, future in in_flight(batches, lambda batch: self._submit(batch.images), AHEAD * self._processes):
                yield batch, self._result(batch.images, future)
        finally:
            self._pool.shutdown(cancel_futures=True)

    def _start(self) -> ProcessPoolExecutor:
        # spawn, not fork: onnxruntime and gRPC hold threads that a fork would tear
        return ProcessPoolExecutor(
            self._processes, multiprocessing.get_context("spawn"), initializer=_prepare, initargs=(self._load,)
        )

    def _submit(self, images: list[Image]) -> Future[list[Prediction]]:
        try:
            return self._pool.submit(_classify, images, probabilities=self._probabilities)
        except BrokenProcessPool:
            self._pool = self._start()
            return self._pool.submit(_classify, images, probabilities=self._probabilities)

    def _result(self, images: list[Image], future: Future[list[Prediction]]) -> list[Prediction]:
        try:
            return future.result()
        except BrokenProcessPool:
            pass
        try:
            return self._submit(images).result()
        except BrokenProcessPool:
            return [self._alone(image) for image in images]

    def _alone(self, image: Image) -> Prediction:
        try:
            return self._submit([image]).result()[0]
        except BrokenProcessPool:
            self._check_start()
            return Prediction(error="the process that read it died: out of memory, or by a fault in a decoder")

    def _check_start(self) -> None:
        try:
            self._submit([]).result()
        except BrokenProcessPool:
            raise ScanlineError("the processes that read files die at their start; is there memory for them?") from None


def _prepare(load: Callable[[], Reader]) -> None:
    """Make a process ready: a model of its own, Ctrl-C left to the parent, and an end with the parent."""
    global _reader  # noqa: PLW0603 - a pool's processes have no other place for what they keep
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_the_parent, daemon=True).start()
    _reader = load()


_reader: Reader


def _leave_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a child
    parent.join()
    os._exit(1)


def _classify(images: list[Image], *, probabilities: bool) -> list[Prediction]:
    return _reader.classify(images, probabilities=probabilities)
