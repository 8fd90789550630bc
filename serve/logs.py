"""Log lines: for people, with colours on a terminal, or JSON for programs; the same for the libraries' own."""

from __future__ import annotations

import logging
import os
import sys
from typing import Final, Literal

import structlog

# Without local variables, as plain_traceback is, too: they would put callers' images into the log.
TRACEBACKS: Final = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)


def configure(level: str, form: Literal["auto", "console", "json"], worker: int | None = None) -> None:
    """Send all log lines of this process to stderr in one form.

    Args:
        level: the least level that is logged: debug, info, warning or error.
        form: ``console`` for people, ``json`` for programs, ``auto`` to go by whether stderr is a terminal.
        worker: the number of this process, which its lines then say, if several write to the same stderr.
    """
    is_terminal = sys.stderr.isatty()
    has_colours = is_terminal and not os.environ.get("NO_COLOR")  # https://no-color.org
    for_people = form == "console" or (form == "auto" and is_terminal)
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if worker is not None:
        shared.append(lambda _logger, _method, event: {**event, "worker": worker})
    render: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=has_colours, exception_formatter=structlog.dev.plain_traceback)]
        if for_people
        else [structlog.processors.ExceptionRenderer(TRACEBACKS), structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    # Our own lines go through it, too: it drops what can't be written, as on a full disk, where structlog's writers
    # would raise in the thread that has something to say.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render]
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
