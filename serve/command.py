"""`scanline serve`."""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import Final

from scanline import streams
from scanline.console import out
from scanline.signals import handled_aside_by
from serve import logs
from serve.machine import share_memory_pools
from serve.settings import ServeSettings as Settings

# The grpcio whose core can leave its sockets to us. One that has lost the name would complain on stderr.
LEAVES_SOCKETS: Final = "1.85."


def run(settings: Settings) -> int:
    """Serve until a signal says stop."""
    if settings.print_settings:
        for name, value in settings.model_dump(exclude={"print_settings"}).items():
            out.print(f"SCANLINE_{name.upper()}={'' if value is None else value}")
        return 0
    logs.configure(settings.log_level, settings.log_format)
    _read_sockets_ourselves()
    server: Server | Supervisor
    if settings.workers > 1:
        from serve.supervisor import Supervisor  # which does without what a server brings: gRPC and onnxruntime

        server = Supervisor(settings)
    else:
        from serve.lifecycle import Server

        share_memory_pools()
        server = Server(settings)
    restore = handled_aside_by(server.ask_to_stop)
    try:
        server.start()
        closed = server.run_until_stopped()
    finally:
        restore()
    if not closed:
        streams.settle_errors()
        os._exit(0)  # Python itself would wait for the threads that never end
    return 0


def _read_sockets_ourselves() -> None:
    """Have gRPC's core read its sockets in the threads that ask it for events. Call it before grpc is imported.

    By itself it has threads of its own for that, each of which wakes the next: a call of 32 images takes six switches
    between threads like that, and less than one so (docs/decisions/0002).
    """
    if version("grpcio").startswith(LEAVES_SOCKETS):
        os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")
