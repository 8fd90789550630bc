"""The batcher alone, with a run that the test holds back and lets go."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.batcher import Array, Batcher, Run, Ticket
from serve.errors import CancelledError, ExpiredError, FullError, ModelRunError, StoppingError
from tests.faults.server import until

PATIENCE = 30.0  # for what must happen; only a test that fails waits so long


def rows(*values: float) -> Array:
    return np.array([[value] for value in values], np.float32)


class HeldRun:
    """Doubles its rows, but only when the test lets it; keeps what was in each batch."""

    def __init__(self) -> None:
        self.batches: list[list[float]] = []
        self._started = threading.Semaphore(0)
        self._allowed = threading.Semaphore(0)

    def __call__(self, batch: Array) -> Array:
        self.batches.append(batch[:, 0].tolist())
        self._started.release()
        assert self._allowed.acquire(timeout=PATIENCE)
        if np.isnan(batch).any():
            raise ValueError("a poisoned row")
        return batch * 2

    def wait_for_start(self) -> None:
        assert self._started.acquire(timeout=PATIENCE)

    def let_go(self, runs: int = 1) -> None:
        self._allowed.release(runs)


class Asked:
    """A request whose outputs a thread waits for."""

    def __init__(self, batcher: Batcher, pool: ThreadPoolExecutor, ticket: Ticket) -> None:
        self._batcher = batcher
        self._ticket = ticket
        self._future: Future[Array] = pool.submit(batcher.result, ticket)

    def answer(self) -> list[float]:
        outputs: list[float] = self._future.result(PATIENCE)[:, 0].tolist()
        return outputs

    def cancel(self) -> None:
        self._batcher.cancel(self._ticket)

    def done(self) -> bool:
        return self._future.done()


class Callers:
    """Threads that call the batcher as a transport's threads do."""

    def __init__(self, batcher: Batcher, run: Run, pool: ThreadPoolExecutor) -> None:
        self._batcher = batcher
        self._run = run
        self._pool = pool

    def ask(self, *values: float, deadline: float | None = None) -> Asked:
        """Queue rows now, wait for their outputs in a thread."""
        return Asked(self._batcher, self._pool, self._batcher.submit(self._run, rows(*values), deadline))


@pytest.fixture
def run() -> Iterator[HeldRun]:
    held = HeldRun()
    yield held
    held.let_go(1000)  # whatever a failed test left behind


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(64) as threads:
        yield threads


def test_what_comes_while_the_model_runs_is_the_next_batch(run: HeldRun, pool: ThreadPoolExecutor) -> None:
    batcher = Batcher(max_batch_size=64, max_queue_images=100)
    callers = Callers(batcher, run, pool)
    answers = [callers.ask(1)]
    run.wait_for_start()
    answers += [callers.ask(value) for value in (2, 3, 4)]
    run.let_go(2)
    assert [answer.answer() for answer in answers] == [[2], [4], [6], [8]]
    assert run.batches == [[1], [2, 3, 4]]
    batcher.close()


def test_a_lone_caller_runs_its_batch_itself() -> None:
    threads: list[int] = []

    def run(batch: Array) -> Array:
        threads.append(threading.get_ident())
        return batch

    batcher = Batcher(max_batch_size=4, max_queue_images=10)
    for _ in range(20):
        batcher.result(batcher.submit(run, rows(1)))
    assert set(threads) == {threading.get_ident()}
    batcher.close()


def test_a_request_larger_than_a_batch_is_split_and_joined() -> None:
    sizes: list[int] = []

    def run(batch: Array) -> Array:
        sizes.append(len(batch))
        return batch * 2

    batcher = Batcher(max_batch_size=64, max_queue_images=1000)
    values = np.arange(150, dtype=np.float32)[:, np.newaxis]
    np.testing.assert_array_equal(batcher.result(batcher.submit(run, values)), values * 2)
    assert sorted(sizes) == [22, 64, 64]
    batcher.close()


def test_small_requests_pass_between_the_pieces_of_a_large_one(run: HeldRun, pool: ThreadPoolExecutor) -> None:
    batcher = Batcher(max_batch_size=4, max_queue_images=1000)
    callers = Callers(batcher, run, pool)
    large = callers.ask(*range(100, 140))
    run.wait_for_start()
    small = [callers.ask(value) for value in (1, 2, 3)]
    run.let_go(3)
    assert [answer.answer() for answer in small] == [[2], [4], [6]]
    assert not large.done()
    run.let_go(100)
    assert large.answer() == [value * 2 for value in range(100, 140)]
    batcher.close()


def test_a_batch_holds_requests_for_one_model_and_the_others_keep_their_turn(
    run: HeldRun, pool: ThreadPoolExecutor
) -> None:
    other = HeldRun()
    other.let_go(100)
    batcher = Batcher(max_batch_size=64, max_queue_images=100)
    callers, others = Callers(batcher, run, pool), Callers(batcher, other, pool)
    answers = [callers.ask(1)]
    run.wait_for_start()
    answers += [who.ask(value) for who, value in ((others, 2), (callers, 3), (others, 4), (callers, 5))]
    run.let_go(2)
    assert [answer.answer() for answer in answers] == [[2], [4], [6], [8], [10]]
    assert (run.batches, other.batches) == ([[1], [3, 5]], [[2, 4]])
    batcher.close()


def test_a_full_queue_says_so_and_takes_work_again_when_it_has_room(run: HeldRun, pool: ThreadPoolExecutor) -> None:
    batcher = Batcher(max_batch_size=4, max_queue_images=3)
    callers = Callers(batcher, run, pool)
    first = callers.ask(1)
    run.wait_for_start()
    second = callers.ask(2, 3)
    with pytest.raises(FullError, match="2 images are waiting and 2 more would pass the limit of 3") as full:
        batcher.submit(run, rows(4, 5))
    assert full.value.retry_after > 0
    run.let_go(2)
    assert first.answer() == [2]
    assert second.answer() == [4, 6]
    run.let_go()
    assert callers.ask(4, 5, 6).answer() == [8, 10, 12]
    batcher.close()


def test_a_cancelled_request_is_never_run_and_its_batch_mates_are_answered(
    run: HeldRun, pool: ThreadPoolExecutor
) -> None:
    batcher = Batcher(max_batch_size=64, max_queue_images=100)
    callers = Callers(batcher, run, pool)
    first = callers.ask(1)
    run.wait_for_start()
    before, cancelled, after = callers.ask(2), callers.ask(3, 4), callers.ask(5)
    cancelled.cancel()
    with pytest.raises(CancelledError):
        cancelled.answer()
    assert batcher._waiting == 2
    run.let_go(2)
    assert [first.answer(), before.answer(), after.answer()] == [[2], [4], [10]]
    assert run.batches == [[1], [2, 5]]
    batcher.close()


def test_a_request_cancelled_in_the_middle_of_a_run_costs_its_batch_mates_nothing(
    run: HeldRun, pool: ThreadPoolExecutor
) -> None:
    batcher = Batcher(max_batch_size=64, max_queue_images=100)
    callers = Callers(batcher, run, pool)
    first = callers.ask(1)
    run.wait_for_start()
    mate, cancelled = callers.ask(2), callers.ask(3)
    run.let_go()
    run.wait_for_start()
    cancelled.cancel()
    with pytest.raises(CancelledError):
        cancelled.answer()
    run.let_go()
    assert first.answer() == [2]
    assert mate.answer() == [4]
    batcher.close()


def test_what_has_expired_in_the_queue_is_dropped_before_it_is_run(run: HeldRun, pool: ThreadPoolExecutor) -> None:
    now = [100.0]
    batcher = Batcher(max_batch_size=64, max_queue_images=100, clock=lambda: now[0])
    callers = Callers(batcher, run, pool)
    first = callers.ask(1)
    run.wait_for_start()
    late, in_time = callers.ask(2, deadline=1_000.0), callers.ask(3, deadline=2_000.0)
    now[0] = 1_500.0
    run.let_go(2)
    with pytest.raises(ExpiredError):
        late.answer()
    assert first.answer() == [2]
    assert in_time.answer() == [6]
    assert run.batches == [[1], [3]]
    batcher.close()


def test_behind_a_stalled_run_callers_are_let_go_at_their_deadlines(run: HeldRun, pool: ThreadPoolExecutor) -> None:
    batcher = Batcher(max_batch_size=64, max_queue_images=100)
    callers = Callers(batcher, run, pool)
    stalled = callers.ask(1)
    run.wait_for_start()
    for _ in range(50):  # what is dropped makes room: the queue does not fill up with the dead
        ticket = batcher.submit(run, rows(*range(60)), time.monotonic() + 0.001)
        with pytest.raises(ExpiredError):
            batcher.result(ticket)
    assert batcher._waiting == 0
    assert not stalled.done()
    run.let_go()
    assert stalled.answer() == [2]
    assert run.batches == [[1]]
    batcher.close()


def test_a_run_that_fails_on_one_request_fails_that_one_alone(run: HeldRun, pool: ThreadPoolExecutor) -> None:
    batcher = Batcher(max_batch_size=64, max_queue_images=100)
    callers = Callers(batcher, run, pool)
    first = callers.ask(1)
    run.wait_for_start()
    mate, poisoned, other = callers.ask(2), callers.ask(float("nan")), callers.ask(4)
    run.let_go(10)
    with pytest.raises(ModelRunError, match="ValueError: a poisoned row"):
        poisoned.answer()
    assert [first.answer(), mate.answer(), other.answer()] == [[2], [4], [8]]
    assert callers.ask(5).answer() == [10]  # and the batcher goes on
    batcher.close()


def test_two_instances_run_at_the_same_time(pool: ThreadPoolExecutor) -> None:
    together = threading.Barrier(2)

    def run(batch: Array) -> Array:
        together.wait(PATIENCE)
        return batch * 2

    batcher = Batcher(max_batch_size=2, max_queue_images=100, instances=2)
    callers = Callers(batcher, run, pool)
    assert callers.ask(1, 2, 3, 4).answer() == [2, 4, 6, 8]  # one caller's pieces
    answers = [callers.ask(1, 2), callers.ask(3, 4)]  # two callers
    assert [answer.answer() for answer in answers] == [[2, 4], [6, 8]]
    batcher.close()


def test_a_batch_waits_for_company_only_if_asked_to(pool: ThreadPoolExecutor) -> None:
    sizes: list[int] = []

    def run(batch: Array) -> Array:
        sizes.append(len(batch))
        return batch

    batcher = Batcher(max_batch_size=2, max_queue_images=100, max_queue_delay=PATIENCE)
    callers = Callers(batcher, run, pool)
    assert [answer.answer() for answer in (callers.ask(1), callers.ask(2))] == [[1], [2]]
    assert sizes == [2]
    batcher.close()


def test_closing_answers_what_waits_and_refuses_what_comes(run: HeldRun, pool: ThreadPoolExecutor) -> None:
    batcher = Batcher(max_batch_size=64, max_queue_images=100)
    callers = Callers(batcher, run, pool)
    running = callers.ask(1)
    run.wait_for_start()
    waiting = callers.ask(2)
    closing = pool.submit(batcher.close)
    with pytest.raises(StoppingError):
        waiting.answer()
    with pytest.raises(StoppingError):
        batcher.submit(run, rows(3))
    run.let_go()
    assert running.answer() == [2]
    closing.result(PATIENCE)


def test_images_that_nobody_comes_for_do_not_keep_the_queue_full() -> None:
    def double(batch: Array) -> Array:
        return batch * 2

    batcher = Batcher(max_batch_size=2, max_queue_images=4)
    left = batcher.submit(double, rows(1, 2, 3, 4))  # as of a stream whose caller reads no answers
    with pytest.raises(FullError):
        batcher.submit(double, rows(5))
    until(lambda: batcher.pending(double) == 0, "they are run")
    assert batcher.result(batcher.submit(double, rows(5))).tolist() == [[10]]
    assert batcher.result(left)[:, 0].tolist() == [2, 4, 6, 8]
    batcher.close()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), instances=st.integers(1, 3), max_batch_size=st.integers(1, 70))
def test_every_caller_gets_its_own_answer(seed: int, instances: int, max_batch_size: int) -> None:
    batcher = Batcher(max_batch_size=max_batch_size, max_queue_images=10**6, instances=instances)

    def twice(batch: Array) -> Array:
        return batch * 2

    def thrice(batch: Array) -> Array:
        return batch * 3

    chance = random.Random(seed)
    plans = [
        (caller, chance.randint(1, 40), chance.choice(["wait", "wait", "cancel", "expire"])) for caller in range(200)
    ]

    def call(plan: tuple[int, int, str]) -> None:
        caller, count, manner = plan
        values = np.arange(caller * 1000, caller * 1000 + count, dtype=np.float32)[:, np.newaxis]
        run, factor = (twice, 2) if caller % 2 else (thrice, 3)
        ticket = batcher.submit(run, values, time.monotonic() + 1e-4 if manner == "expire" else None)
        if manner == "cancel":
            batcher.cancel(ticket)
        try:
            np.testing.assert_array_equal(batcher.result(ticket), values * factor)
        except CancelledError:
            assert manner == "cancel"
        except ExpiredError:
            assert manner == "expire"

    with ThreadPoolExecutor(100) as pool:
        for future in [pool.submit(call, plan) for plan in plans]:
            future.result(PATIENCE)
    assert batcher._waiting == 0
    batcher.close()


def test_a_run_in_a_caller_s_thread_counts_until_it_returns(run: HeldRun, pool: ThreadPoolExecutor) -> None:
    batcher = Batcher(max_batch_size=1, max_queue_images=2)
    asked = Callers(batcher, run, pool).ask(1)
    run.wait_for_start()
    assert not batcher.close(timeout=0.1)
    run.let_go()
    assert asked.answer() == [2]
    assert batcher.close()


def test_who_waits_for_company_does_not_hold_up_the_end(run: HeldRun, pool: ThreadPoolExecutor) -> None:
    batcher = Batcher(max_batch_size=2, max_queue_images=2, max_queue_delay=10 * PATIENCE)
    asked = Callers(batcher, run, pool).ask(1)
    until(lambda: batcher._running == 1, "a thread waits for company")
    assert batcher.close(PATIENCE)
    with pytest.raises(StoppingError):
        asked.answer()


def test_a_run_that_never_returns_does_not_hold_up_the_end() -> None:
    run = HeldRun()
    batcher = Batcher(max_batch_size=1, max_queue_images=2, instances=2)
    with ThreadPoolExecutor(1) as caller:
        asked = [batcher.submit(run, rows(value)) for value in (1, 2)]
        result = caller.submit(batcher.result, asked[0])  # runs the first, and leaves the second to a thread
        for _ in asked:
            run.wait_for_start()
        assert not batcher.close(timeout=0)
        run.let_go(2)
        assert result.result(PATIENCE)[:, 0].tolist() == [2]
    assert batcher.close()
