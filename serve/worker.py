"""One of the processes that share a port: `python -m serve.worker`, as serve/supervisor.py starts it."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Final

from scanline.errors import ScanlineError
from scanline.signals import handled_aside_by
from serve import logs
from serve.errors import NoAnswerError
from serve.lifecycle import Server
from serve.machine import share_memory_pools
from serve.pipes import Asker, answer

STATISTICS_PATIENCE: Final = 5.0
ADMIN_PATIENCE: Final = 120.0  # every worker loads a model


def main() -> int:
    """Serve until a signal says stop, or the supervisor is gone.

    The two arguments are file descriptors: the pipe on which the supervisor asks, and the one on which it is asked. The
    first thing that comes on the first is this worker's number and its settings.
    """
    orders, requests = (Connection(int(descriptor)) for descriptor in sys.argv[1:3])
    number, settings = orders.recv()
    supervisor = Asker(requests)
    share_memory_pools()
    logs.configure(settings.log_level, settings.log_format, worker=number)
    try:
        server = Server(settings, worker=number)
        server.statistics.everywhere = partial(supervisor.ask, "statistics", patience=STATISTICS_PATIENCE)
        server.inference.load = partial(supervisor.ask, "administer", "load", patience=ADMIN_PATIENCE)
        server.inference.unload = partial(supervisor.ask, "administer", "unload", patience=ADMIN_PATIENCE)
        handled_aside_by(server.ask_to_stop)
        server.start()
    except ScanlineError as error:
        supervisor.ask("failed", str(error), patience=STATISTICS_PATIENCE)
        return error.exit_code

    def obey() -> None:
        repository = server.repository
        answer(
            orders,
            {
                "statistics": server.statistics.snapshot,
                "load": repository.load,
                "unload": repository.unload,
                "has_model": lambda: bool(repository.served()),
            },
        )
        server.ask_to_stop()

    with suppress(NoAnswerError):  # the supervisor is gone, which `obey` sees, or halted
        if supervisor.ask("started", patience=STATISTICS_PATIENCE):  # the model is unloaded
            server.repository.unload()
    threading.Thread(target=obey, name="orders", daemon=True).start()  # not before: a load since then would be undone
    if not server.run_until_stopped():
        sys.stderr.flush()
        os._exit(0)  # Python itself would wait for the threads that never end
    return 0


if __name__ == "__main__":
    sys.exit(main())
