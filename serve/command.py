"""`scanline serve`."""

from __future__ import annotations

import os
import sys

from scanline.console import out
from serve import logs
from serve.lifecycle import Server, stop_on_signals
from serve.machine import share_memory_pools
from serve.settings import ServeSettings as Settings


def run(settings: Settings) -> int:
    """Serve until a signal says stop."""
    if settings.print_settings:
        for name, value in settings.model_dump(exclude={"print_settings"}).items():
            out.print(f"SCANLINE_{name.upper()}={'' if value is None else value}", markup=False)
        return 0
    share_memory_pools()
    logs.configure(settings.log_level, settings.log_format)
    server = Server(settings)
    restore = stop_on_signals(server)
    try:
        server.start()
        closed = server.run_until_stopped()
    finally:
        restore()
    if not closed:
        sys.stderr.flush()
        os._exit(0)  # Python itself would wait for the threads that never end
    return 0
