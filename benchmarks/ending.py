"""How a benchmark ends where something is wrong: as a command does, with a line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

from scanline import console
from scanline.errors import ScanlineError


def end_with(main: Callable[[], int | None]) -> NoReturn:
    """Run a benchmark and end the process with the exit code that it gives, None being 0, or with its error's."""
    try:
        sys.exit(main())
    except ScanlineError as error:
        console.error(str(error))
        sys.exit(error.exit_code)
