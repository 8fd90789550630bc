"""Several server processes on one port, kept at their number, counted and told as one.

The workers bind the port themselves (SO_REUSEPORT), and the kernel gives each new connection to one of them. The
supervisor holds the port without listening, restarts a worker that has ended, adds up what all have counted, and passes
on what one is asked to have all do. It carries no calls and loads neither gRPC nor a model.
"""

from __future__ import annotations

import copy
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing import Pipe
from typing import Final

import structlog

from scanline.errors import StartError
from serve.errors import CallError, NoAnswerError, NotAvailableError
from serve.listening import bound
from serve.metrics import MetricsServer
from serve.pipes import Asker, answer
from serve.settings import ServeSettings
from serve.statistics import Snapshot

START_PATIENCE: Final = 60.0
STATISTICS_PATIENCE: Final = 1.0
ADMIN_PATIENCE: Final = 30.0
FIRST_PAUSE: Final = 0.1  # before a worker is started again, in seconds; doubled each time up to
LAST_PAUSE: Final = 10.0
HEALTHY_AFTER: Final = 10.0  # a worker that has lived so long is started again after the first pause
STOP_MARGIN: Final = 15.0  # what a worker may need beyond its grace period before it is killed

log = structlog.get_logger("scanline.server")


class Supervisor:
    """Keeps the workers.

    Attributes:
        address: where they listen, ``host:port``.
        is_unloaded: whether the last administration was to unload the model.
        stop_asked: set once it has been asked to stop.
    """

    def __init__(self, settings: ServeSettings) -> None:
        """Bind the ports. Nothing is answered before `start`.

        Raises:
            StartError: a port can't be had.
        """
        self._settings = settings
        self.stop_asked = threading.Event()
        self.is_unloaded = False
        self._administering = threading.Lock()
        # held, so that nobody but our workers can listen on it: they share it, and without SO_REUSEADDR nobody else can
        # have it while none of them listens
        self._reserved = bound(settings.listen)
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        self.address = f"{settings.listen.rpartition(':')[0]}:{self._reserved.getsockname()[1]}"
        self._metrics: MetricsServer | None = None
        if settings.metrics_listen is not None:
            self._metrics = MetricsServer(settings.metrics_listen, self.snapshot, self._is_ready)
        own = settings.model_copy(update={"listen": self.address, "metrics_listen": None})
        self._workers = [_Worker(number, own, self) for number in range(1, settings.workers + 1)]

    def start(self) -> None:
        """Start the workers, and return when all of them serve.

        Raises:
            StartError: one of them can't.
        """
        if self._metrics is not None:
            self._metrics.start()
        for worker in self._workers:
            worker.keep()
        try:
            for worker in self._workers:
                worker.started.result(START_PATIENCE)
        except (StartError, TimeoutError) as error:
            self.ask_to_stop()
            self._end()
            raise StartError(str(error) or f"a worker did not start in {START_PATIENCE:g} s") from None
        if self.stop_asked.is_set():
            return
        metrics = {} if self._metrics is None else {"metrics_address": self._metrics.address}
        log.info("serving", address=self.address, **metrics, workers=len(self._workers))

    def ask_to_stop(self) -> None:
        """Ask for the end: the first time in good order, the second at once. Takes locks: not for signal handlers."""
        self.stop_asked.set()
        for worker in self._workers:
            worker.terminate()

    def run_until_stopped(self) -> bool:
        """Wait to be asked to stop, and for the workers to end; give True, since all threads have ended then."""
        while not self.stop_asked.wait(timeout=1.0):  # short waits: signal handlers run between them
            pass
        self._end()
        log.info("all workers stopped")
        return True

    def snapshot(self) -> Snapshot:
        """Give what all workers have done, those that are gone included."""
        total = Snapshot()
        for worker in self._workers:
            total += worker.snapshot()
        return total

    def administer(self, order: str) -> None:
        """Have all workers load or unload the model; one that is started later does as they did.

        Args:
            order: ``load`` or ``unload``.

        Raises:
            CallError: one of them can't.
        """
        with self._administering:  # two orders at once would reach the workers in different turns
            self.is_unloaded = order == "unload"  # first, for workers that start meanwhile
            errors: list[CallError] = []
            for worker in self._workers:
                try:
                    worker.obey(order)
                except CallError as error:
                    errors.append(error)
            if errors:
                self.is_unloaded = order == "unload" or not any(worker.is_ready() for worker in self._workers)
                raise errors[0]

    def _end(self) -> None:
        end = time.monotonic() + self._settings.drain_delay + self._settings.grace + STOP_MARGIN
        for worker in self._workers:
            worker.wait_until_ended(end)
        if self._metrics is not None:
            self._metrics.close()
        self._reserved.close()

    def _is_ready(self) -> bool:
        return not self.stop_asked.is_set() and any(worker.is_ready() for worker in self._workers)


class _Worker:
    """One worker: the process that is there now, and what those before it have counted.

    Attributes:
        started: done once it has started for the first time; a StartError if it can't.
        serves: whether it has started, and not ended.
    """

    def __init__(self, number: int, settings: ServeSettings, supervisor: Supervisor) -> None:
        self._number = number
        self._settings = settings
        self._supervisor = supervisor
        self._thread = threading.Thread(target=self._keep, name=f"worker-{number}", daemon=True)
        self.started: Future[None] = Future()
        self._failure: str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._orders: Asker  # from when it serves
        self._lock = threading.Lock()  # of the three below
        self._past = Snapshot()  # what ended processes have counted
        self._last = Snapshot()  # what the process that is there had counted when it was last asked
        self._obeys = False  # an order that takes its time
        self.serves = False
        self._has_model = False

    def keep(self) -> None:
        """Start it, and start it again whenever it has ended."""
        self._thread.start()

    def wait_until_ended(self, end: float) -> None:
        """Wait for its end until a time of the monotonic clock, then kill it."""
        self._thread.join(max(end - time.monotonic(), 0))
        if self._thread.is_alive() and self._process is not None:
            self._process.kill()
            self._thread.join()

    def terminate(self) -> None:
        """Send it SIGTERM."""
        process = self._process
        if process is not None:
            process.terminate()

    def is_ready(self) -> bool:
        """Say whether it answers calls: it is there, and has a model since it was last told to load or unload."""
        return self.serves and self._has_model

    def snapshot(self) -> Snapshot:
        """Give what it has counted, and those before it; of one that does not answer, what was heard last."""
        with self._lock:
            if self.serves and not self._obeys:  # whose answer would come behind that one
                try:
                    self._last = self._orders.ask("statistics", patience=STATISTICS_PATIENCE)
                    self._has_model = self._orders.ask("has_model", patience=STATISTICS_PATIENCE)
                except NoAnswerError as error:
                    log.warning("no statistics", worker=self._number, reason=str(error))
            total = copy.deepcopy(self._past)
            total += self._last
            return total

    def obey(self, order: str) -> None:
        """Have it load or unload the model, if it is there.

        Raises:
            CallError: it can't.
        """
        if self.serves:
            with self._lock:
                self._obeys = True
            try:
                try:
                    self._orders.ask(order, patience=ADMIN_PATIENCE)
                finally:
                    with suppress(NoAnswerError):  # then the next to ask for statistics hears it
                        self._has_model = self._orders.ask("has_model", patience=STATISTICS_PATIENCE)
            except NoAnswerError as error:
                raise NotAvailableError(f"worker {self._number} does not {order}: {error}") from None
            finally:
                self._obeys = False

    def _keep(self) -> None:
        pause = FIRST_PAUSE
        stop_asked = self._supervisor.stop_asked
        while not stop_asked.is_set():
            began = time.monotonic()
            code: int | None = None
            try:
                code = self._run()
            except OSError as error:
                self._failure = f"no process can be started: {error}"
            if stop_asked.is_set():
                break
            if not self.started.done():
                reason = self._failure or f"a worker ended with exit code {code} while it started"
                self.started.set_exception(StartError(reason))
                return
            pause = FIRST_PAUSE if time.monotonic() - began > HEALTHY_AFTER else min(pause * 2, LAST_PAUSE)
            log.error("worker ended", worker=self._number, exit_code=code, reason=self._failure, restart_in=pause)
            self._failure = None
            with self._lock:
                self._past.restarts += 1
            stop_asked.wait(pause)
        self._settle()

    def _run(self) -> int:
        """Run a process until it ends; give its exit code.

        Raises:
            OSError: there could be none.
        """
        (to_worker, orders), (from_worker, requests) = Pipe(), Pipe()
        with to_worker, from_worker:
            with orders, requests:
                ends = orders.fileno(), requests.fileno()
                self._process = subprocess.Popen(  # noqa: S603 - nothing in it comes from outside
                    # -P: or a file serve.py, or queue.py, in the working folder would be taken for ours
                    [sys.executable, "-P", "-m", "serve.worker", *map(str, ends)],
                    pass_fds=ends,
                    process_group=0,  # Ctrl-C reaches the supervisor alone, which passes it on once
                )
            if self._supervisor.stop_asked.is_set():  # since before the process was there to be told
                self._process.terminate()
            with suppress(BrokenPipeError):  # it has ended already, which `answer` sees
                to_worker.send((self._number, self._settings))
            self._orders = Asker(to_worker)
            answer(
                from_worker,
                {
                    "started": self._on_started,
                    "failed": self._on_failed,
                    "statistics": self._supervisor.snapshot,
                    "administer": self._supervisor.administer,
                },
            )
        with self._lock:
            self.serves = False
            self._last.end()
            self._past += self._last
            self._last = Snapshot()
        return self._process.wait()

    def _on_started(self) -> bool:
        """Have it told what comes from now on; say whether it is to unload the model, as the others were told to."""
        self.serves = True  # first: an order that comes now reaches it in either way
        self._has_model = not self._supervisor.is_unloaded
        self._settle()
        return not self._has_model

    def _on_failed(self, reason: str) -> None:
        self._failure = reason

    def _settle(self) -> None:
        if not self.started.done():
            self.started.set_result(None)
