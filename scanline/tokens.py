"""Bearer tokens (RFC 6750): what a caller sends and a server looks for."""

from __future__ import annotations

import re
from typing import Final

FORM: Final = "printable ASCII without spaces"
_TOKEN: Final = re.compile(r"[!-~]+")


def is_token(value: object) -> bool:
    """Say whether a value can be a token, which is text of one or more of those characters."""
    return isinstance(value, str) and _TOKEN.fullmatch(value) is not None
