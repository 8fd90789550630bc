"""Gathers what callers ask at the same time into batches.

The batcher is work-conserving: whenever fewer than `instances` runs are under way and something is waiting, a batch of
what is waiting goes out, up to `max_batch_size`, never padded. Nothing waits for company unless `max_queue_delay` asks
for it. Under load, batches form by themselves: what comes while the model runs is the next batch.

Whoever finds a run free and something waiting may run it: a caller that waits in `result`, an event loop that calls
`work` when it has nothing else to do, or one of the batcher's own threads, to which everything is left that nobody else
takes. That a lone caller runs its own batch spares the two thread switches which are most of the cost of its call. (The
leader/followers pattern: Schmidt et al., Pattern-Oriented Software Architecture 2, 2000.)

A request larger than a batch goes through in pieces, each of which goes to the end of the queue after the last, so that
small requests pass between them.

Requests may want different models: a batch holds those of one, the oldest request's.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serve.errors import CallError, CancelledError, ExpiredError, FullError, ModelRunError, StoppingError

Array = NDArray[np.float32]
Run = Callable[[Array], Array]

# How long a caller is told to stay away when the queue is full: a few dozen batches of the shipped model.
RETRY_AFTER: Final = 0.05
# gRPC tells how long a caller waits rounded up by as much as a hundredth, and ends the call by the caller's own clock.
ROUNDING: Final = 0.02
EXPIRED: Final = "the deadline passed before the model came to the images"


class Ticket:
    """A request on its way through the batcher; its fields belong to the batcher's lock.

    Attributes:
        queued_at: when it was queued, on the batcher's clock.
        begun_at: when the first of its rows was taken into a run; with `ended_at`, set once it has outputs.
        ended_at: when the run with its last row ended.
    """

    __slots__ = ("begun_at", "deadline", "done", "ended_at", "error", "listener", "missing", "outputs", "queued_at",
                 "rows", "run", "taken", "wake")  # fmt: skip

    def __init__(self, run: Run, rows: Array, deadline: float | None, queued_at: float) -> None:
        self.run = run
        self.rows = rows
        self.deadline = deadline
        self.queued_at = self.begun_at = self.ended_at = queued_at
        self.taken = 0  # how many rows are in a batch already
        self.missing = len(rows)  # how many rows have no answer yet
        self.outputs: Array | None = None
        self.error: CallError | None = None
        self.done = False
        self.listener: Callable[[], None] | None = None
        self.wake = threading.Lock()  # held until the ticket is done: to wait is to acquire it
        self.wake.acquire()


Piece = tuple[Ticket, int, int]  # rows start to stop of a ticket


class Batcher:
    """Runs callers' rows through models in batches, each caller getting the outputs of its own rows."""

    def __init__(
        self,
        *,
        max_batch_size: int,
        max_queue_images: int,
        max_queue_delay: float = 0.0,
        instances: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the worker threads.

        Args:
            max_batch_size: the most rows in one run.
            max_queue_images: the most rows that wait.
            max_queue_delay: how long a batch that is not full waits for company, in seconds.
            instances: how many runs may be under way at once.
            clock: gives the time that deadlines are measured in, in seconds.
        """
        self._max_batch_size = max_batch_size
        self._max_queue_images = max_queue_images
        self._max_queue_delay = max_queue_delay
        self._instances = instances
        self._clock = clock
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)  # something waits and a run is free, or the end has come
        self._arrival = threading.Condition(self._lock)  # something came while a batch waited for company
        self._queue: deque[Ticket] = deque()
        self._waiting = 0  # rows in the queue, those of dropped tickets excepted
        self._running = 0  # runs under way
        self._finished: deque[Callable[[], None]] = deque()  # the listeners that are still to be called
        self._closed = False
        self._workers = [
            threading.Thread(target=self._work_on, name=f"batch-{i}", daemon=True) for i in range(instances)
        ]
        for worker in self._workers:
            worker.start()

    def pending(self, run: Run) -> int:
        """Count the requests for a model that have rows which wait to be run."""
        with self._lock:
            return sum(ticket.run == run for ticket in self._queue)

    def close(self, timeout: float = threading.TIMEOUT_MAX) -> bool:
        """Refuse what is waiting and what comes, and end the worker threads once their runs are done.

        Args:
            timeout: how long to wait for them, in seconds.

        Returns:
            Whether all runs, in any thread, are over. Where the model never returns, one never is.
        """
        with self._lock:
            self._closed = True
            while self._queue:
                self._finish(self._queue.popleft(), StoppingError("the server is stopping"))
            self._work.notify_all()
            self._arrival.notify_all()
        self._call_listeners()
        with self._lock:
            over = self._work.wait_for(lambda: self._running == 0, timeout)
        if over:
            for worker in self._workers:
                worker.join()
        return over

    def submit(self, run: Run, rows: Array, deadline: float | None = None) -> Ticket:
        """Queue rows, float32 [n, ...] with n at least 1. It is `result` that waits for their outputs.

        Args:
            run: gives an output row for each input row, whatever else is in the batch; called from several threads.
                Requests whose `run` is equal share batches.
            rows: the input.
            deadline: the clock's time after which nobody wants the outputs.

        Raises:
            FullError: more rows are waiting than may.
            StoppingError: the batcher is closed.
        """
        ticket = Ticket(run, rows, deadline, self._clock())
        with self._lock:
            if self._closed:
                raise StoppingError("the server is stopping")
            if self._waiting + len(rows) > self._max_queue_images:
                if self._running < self._instances:  # those whose images wait don't come to run them
                    self._work.notify()
                raise FullError(
                    f"{self._waiting} images are waiting and {len(rows)} more would pass the limit of "
                    f"{self._max_queue_images}; try again in {RETRY_AFTER * 1000:.0f} ms",
                    RETRY_AFTER,
                )
            self._queue.append(ticket)
            self._waiting += len(rows)
            if self._max_queue_delay:
                self._arrival.notify()
        return ticket

    def result(self, ticket: Ticket) -> Array:
        """Wait for a ticket's outputs, one row for each of its rows, and run batches meanwhile if nobody else does.

        Raises:
            ExpiredError: its deadline passed first.
            CancelledError: `cancel` was called first.
            ModelRunError: the model failed on its rows.
            StoppingError: the batcher was closed first.
        """
        while not ticket.done and self.work():
            pass
        with self._lock:  # what is left is not ours to run
            if self._queue and self._running < self._instances:
                self._work.notify()
        patience = -1 if ticket.deadline is None else max(ticket.deadline - self._clock(), 0)
        if not ticket.wake.acquire(timeout=patience):
            self._drop(ticket, ExpiredError(EXPIRED))
        error, ticket.error = ticket.error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # holds its traceback, which holds this frame and the rows: a circle would outlive the call
        assert ticket.outputs is not None
        return ticket.outputs

    def when_done(self, ticket: Ticket, listener: Callable[[], None]) -> None:
        """Call a listener once, in any thread, when `result` need not wait; at once if that is now.

        Somebody must call `work` for that.
        """
        with self._lock:
            if not ticket.done:
                ticket.listener = listener
                return
        listener()

    def work(self) -> bool:
        """Run one batch if something waits and a run is free; say whether more waits, which the caller is to run."""
        with self._lock:
            if self._running >= self._instances or not self._queue:
                return False
            self._running += 1
            batch = self._take()
            if self._queue and self._running < self._instances:
                self._work.notify()
        self._call_listeners()  # of what has expired
        if batch:
            self._answer(batch)
        with self._lock:
            self._running -= 1
            if self._closed:
                self._work.notify_all()
            return bool(self._queue)

    def cancel(self, ticket: Ticket) -> None:
        """Drop a request whose caller has gone, or has been taken away by gRPC as its deadline passed.

        Nothing happens to one that is done, or to its batch-mates.
        """
        if not ticket.done:
            end, begin = ticket.deadline, ticket.queued_at
            is_late = end is not None and end - self._clock() <= ROUNDING * (end - begin)
            self._drop(ticket, ExpiredError(EXPIRED) if is_late else CancelledError("the caller cancelled"))

    def _drop(self, ticket: Ticket, error: CallError) -> None:
        with self._lock:
            if ticket.done:
                return
            if ticket.taken < len(ticket.rows):
                self._queue.remove(ticket)
            self._finish(ticket, error)
        self._call_listeners()

    def _call_listeners(self) -> None:
        """Call the listeners of what is done. Not with the lock held: they may come back to us."""
        while self._finished:
            try:
                listener = self._finished.popleft()
            except IndexError:  # another thread was faster
                return
            listener()

    # A method that says "lock held" is called with the lock held.

    def _finish(self, ticket: Ticket, error: CallError | None) -> None:
        """Wake the owner of a ticket that has left the queue. Lock held."""
        ticket.done = True
        ticket.error = error
        self._waiting -= len(ticket.rows) - ticket.taken
        ticket.wake.release()
        if ticket.listener is not None:
            self._finished.append(ticket.listener)
            ticket.listener = None  # it holds the call, which holds the ticket: a circle would outlive the call

    def _work_on(self) -> None:
        while True:
            with self._lock:
                while not self._queue or self._running >= self._instances:
                    if self._closed:
                        return
                    self._work.wait()
            while self.work():
                pass

    def _take(self) -> list[Piece]:
        """Take the next batch from the queue. Lock held."""
        if self._max_queue_delay:
            self._wait_for_company()
        batch: list[Piece] = []
        others: list[Ticket] = []  # that want another model
        space = self._max_batch_size
        now = self._clock()
        while self._queue and space:
            ticket = self._queue.popleft()
            if ticket.deadline is not None and ticket.deadline <= now:
                self._finish(ticket, ExpiredError(EXPIRED))
                continue
            if batch and ticket.run != batch[0][0].run:
                others.append(ticket)
                continue
            start, stop = ticket.taken, min(len(ticket.rows), ticket.taken + space)
            batch.append((ticket, start, stop))
            if start == 0:
                ticket.begun_at = now
            ticket.taken = stop
            self._waiting -= stop - start
            space -= stop - start
            if stop < len(ticket.rows):
                self._queue.append(ticket)
        self._queue.extendleft(reversed(others))
        return batch

    def _wait_for_company(self) -> None:
        while self._queue and self._waiting < self._max_batch_size and not self._closed:
            patience = self._queue[0].queued_at + self._max_queue_delay - self._clock()
            if patience <= 0:
                return
            self._arrival.wait(patience)

    def _answer(self, batch: list[Piece]) -> None:
        """Run a batch and give each ticket its outputs, or, where the run fails, find out whose rows it fails on."""
        try:
            if len(batch) == 1:
                ticket, start, stop = batch[0]
                outputs = ticket.run(ticket.rows[start:stop])
            else:
                run = batch[0][0].run
                outputs = run(np.concatenate([ticket.rows[start:stop] for ticket, start, stop in batch]))
        except Exception as error:  # noqa: BLE001 - onnxruntime raises what it likes; it is its callers' answer, and this thread must live for the others
            if len(batch) > 1:
                for piece in batch:
                    self._answer([piece])
                return
            failure = ModelRunError(f"{type(error).__name__}: {error}")
            failure.__cause__ = error
            self._drop(batch[0][0], failure)
            return
        ended = self._clock()
        with self._lock:
            offset = 0
            for ticket, start, stop in batch:
                ticket.ended_at = ended
                self._deliver(ticket, start, outputs[offset : offset + stop - start])
                offset += stop - start
        self._call_listeners()

    def _deliver(self, ticket: Ticket, start: int, outputs: Array) -> None:
        """Put a piece's outputs in their place, and finish the ticket with its last piece. Lock held."""
        if ticket.done:  # dropped while its piece was in the run
            return
        if len(outputs) == len(ticket.rows):
            ticket.outputs = outputs
        else:
            if ticket.outputs is None:
                ticket.outputs = np.empty((len(ticket.rows), *outputs.shape[1:]), outputs.dtype)
            ticket.outputs[start : start + len(outputs)] = outputs
        ticket.missing -= len(outputs)
        if ticket.missing == 0:
            self._finish(ticket, None)
