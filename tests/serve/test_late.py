"""What becomes of requests whose deadline passes in the batcher."""

from __future__ import annotations

import gc
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from serve.batcher import Batcher
from serve.errors import CancelledError, ExpiredError
from tests.serve.test_batcher import Callers, HeldRun, rows


def test_their_rows_are_forgotten_with_them() -> None:
    batcher = Batcher(max_batch_size=4, max_queue_images=10)
    kept = []
    gc.disable()  # whose visits could come late, where images wait by the hundred
    try:
        for _ in range(5):
            given = rows(1, 2)
            kept.append(weakref.ref(given))
            with pytest.raises(ExpiredError):
                batcher.result(batcher.submit(lambda batch: batch, given, time.monotonic()))
            del given
        assert [rows_of() for rows_of in kept] == [None] * 5
    finally:
        gc.enable()
    batcher.close()


@pytest.mark.parametrize(("left", "error"), [(0.001, ExpiredError), (5.0, CancelledError)])
def test_who_goes_as_the_deadline_passes_is_late(left: float, error: type[Exception]) -> None:
    now, run = 100.0, HeldRun()
    batcher = Batcher(max_batch_size=4, max_queue_images=10, clock=lambda: now)
    with ThreadPoolExecutor(2) as pool:
        callers = Callers(batcher, run, pool)
        first = callers.ask(1)
        run.wait_for_start()
        waiting = callers.ask(2, deadline=110.0)
        now = 110.0 - left  # a caller's own clock is a little ahead of what gRPC says
        waiting.cancel()
        with pytest.raises(error):
            waiting.answer()
        run.let_go()
        assert first.answer() == [2]
    batcher.close()
