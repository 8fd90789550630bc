"""One image that is to be read, on its way to an engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scanline.images import Image


@dataclass(frozen=True, slots=True)
class Entry:
    """One image that is to be read.

    Attributes:
        name: its path; for an image inside a file, that file's path, a slash, and its name or number there.
        load: gives the image, before the next entry is asked for; raises InputError. None: `name` is a file.
        label: the digit that it shows, 0 to 9, where a manifest says so.
    """

    name: str
    load: Callable[[], Image] | None = None
    label: int | None = None
