"""What a bearer token is (RFC 6750), for who sends it and for who lets callers in by it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from scanline.errors import InputError

_TOKEN: Final = re.compile(r"[!-~]+")


def is_token(value: object) -> bool:
    """Tell whether it is text of printable ASCII characters without spaces."""
    return isinstance(value, str) and _TOKEN.fullmatch(value) is not None


def read(path: Path) -> list[str]:
    """Read a file with a token on each line; blank lines and the space around a token don't count.

    Raises:
        InputError: it can't be read, there is none in it, or a line is none.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"no tokens from {path}: {error.strerror}") from None
    tokens = {number: line.strip().decode("ascii", "replace") for number, line in enumerate(lines, 1) if line.strip()}
    if not tokens:
        raise InputError(f"no tokens from {path}: it is empty; expected one on each line")
    for number, token in tokens.items():
        if not is_token(token):
            raise InputError(f"no tokens from {path}: line {number} has other than printable ASCII without spaces")
    return list(tokens.values())
