"""The engine of a Ray cluster: Ray Data has the batches read on any node."""

from __future__ import annotations

import logging
import os
import pickle
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Final

from scanline.errors import MissingExtraError, ModelError, ScanlineError
from scanline.prediction import Prediction
from scanline.reader import Reader
from scanline.scoring.engine import Batch, in_flight

# A dataset holds at most this many batches, and this many bytes of what was read from archives. Ray's tasks get a few
# batches each, since a task costs some milliseconds; the next dataset is read while the rows of one are written.
WINDOW_BATCHES: Final = 512
WINDOW_BYTES: Final = 128 * 2**20
BATCHES_A_TASK: Final = 4
AHEAD: Final = 2
# How often a task whose process died is done again. Ray Data would go on for ever with a file that kills its reader.
RETRIES: Final = 5

Window = list[Batch]


class Cluster:
    """Reads on the nodes of a Ray cluster, all of which see the files under the same paths and have Scanline installed.

    A process or a node that dies costs nothing: Ray has its tasks done again.

    Attributes:
        version: the first 12 hexadecimal digits of the model file's SHA-256.
    """

    def __init__(self, load: Callable[[], Reader], *, probabilities: bool) -> None:
        """Join the cluster that RAY_ADDRESS names or that runs on this machine; start one here where there is none.

        Args:
            load: gives a reader; it is called here and in each process of the cluster.
            probabilities: whether to give those of all ten digits.

        Raises:
            MissingExtraError: Ray is not installed.
            ModelError: the model can't be used.
            ScanlineError: the cluster can't be reached.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it reports to its maker otherwise
        try:
            import ray
            import ray.data
        except ModuleNotFoundError as error:
            raise MissingExtraError("--engine ray", "ray", error.name or "") from None
        self.version = load().model().file
        self._read = _Read(pickle.dumps(load), self.version, probabilities)
        # Ray 2.60 warns of max_retries and has nothing in its place; pyproject.toml keeps out 2.64, which won't take it
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated", DeprecationWarning)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        try:
            ray.init(ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError) as error:
            raise ScanlineError(f"can't join the Ray cluster: {error}") from None

    def run(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, list[Prediction]]]:
        """Give each batch with its predictions, in order.

        Raises:
            ModelError: a node can't use the model, or has another one.
            ScanlineError: the cluster can't go on.
        """
        pool = ThreadPoolExecutor(AHEAD)
        try:
            for window, future in in_flight(_windows(batches), lambda window: pool.submit(self._gather, window), AHEAD):
                yield from zip(window, future.result(), strict=True)
        finally:
            pool.shutdown(cancel_futures=True)

    def _gather(self, window: Window) -> list[list[Prediction]]:
        import ray

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        # pickled: Arrow's columns hold neither predictions nor names that are no UTF-8
        rows = [{"images": pickle.dumps(batch.images)} for batch in window]
        given = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // BATCHES_A_TASK))
        answers: list[list[Prediction]] = []
        try:
            for row in given.map(self._read, max_retries=RETRIES).iter_rows():
                answer = pickle.loads(row["answer"])
                if isinstance(answer, ScanlineError):
                    raise answer
                answers.append(answer)
        except ray.exceptions.RayError as error:
            raise ScanlineError(f"the Ray cluster gave up: {error}") from None
        return answers


class _Read:
    """What a task of Ray's does with a row."""

    def __init__(self, load: bytes, version: str, probabilities: bool) -> None:
        self._load, self._version, self._probabilities = load, version, probabilities

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        answer: list[Prediction] | ScanlineError
        try:
            reader = _reader(self._load)
            if reader.model().file != self._version:
                raise ModelError(f"a node has version {reader.model().file} of the model, not {self._version}")
            answer = reader.classify(pickle.loads(row["images"]), probabilities=self._probabilities)
        except ScanlineError as error:  # raised here, its words would come out as the end of Ray's traceback
            answer = error
        return {"answer": pickle.dumps(answer)}


@lru_cache(maxsize=1)
def _reader(load: bytes) -> Reader:
    """Load the model once in each process, which Ray uses for many tasks."""
    reader: Reader = pickle.loads(load)()
    return reader


def _windows(batches: Iterable[Batch]) -> Iterator[Window]:
    window, size = Window(), 0
    for batch in batches:
        window.append(batch)
        size += sum(len(image) for image in batch.images if isinstance(image, bytes))
        if len(window) == WINDOW_BATCHES or size >= WINDOW_BYTES:
            yield window
            window, size = Window(), 0
    if window:
        yield window
