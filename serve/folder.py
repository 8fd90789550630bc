"""Which versions of the model a place holds, and which of them are to be served."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

# What a folder's files looked like: name, inode, size and time of change of each. Another stamp, other files.
Stamp = tuple[tuple[str, int, int, int], ...]

ONLY: Final = 1  # the version of a model that is a file or an exported folder
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,17}")
_LATEST: Final = re.compile(r"latest:([1-9][0-9]{0,3})")


@dataclass(frozen=True, slots=True)
class Policy:
    """Which versions are served; where both are unset, all.

    Attributes:
        latest: so many of the highest ones.
        listed: these, and no others.
    """

    latest: int | None = None
    listed: frozenset[int] = frozenset()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``latest:N``, ``all``, or numbers with commas between them.

        Raises:
            ValueError: it is none of these.
        """
        if text == "all":
            return cls()
        if match := _LATEST.fullmatch(text):
            return cls(latest=int(match[1]))
        numbers = text.split(",")
        if not all(_NUMBER.fullmatch(number) for number in numbers):
            raise ValueError("should be latest:N, all, or versions with commas between them, such as 3,5")
        return cls(listed=frozenset(map(int, numbers)))

    def wants(self, number: int, served: int) -> bool:
        """Say whether a version is to be served beside so many higher ones."""
        if self.listed:
            return number in self.listed
        return self.latest is None or served < self.latest


def holds_versions(source: Path) -> bool:
    """Say whether a place is a folder of versions, rather than a model file or an exported folder."""
    from scanline.model import MODEL_FILES  # brings onnxruntime, which the settings and a supervisor do without

    if not source.is_dir() or any((source / name).is_file() for name in MODEL_FILES):
        return False
    return any(_NUMBER.fullmatch(entry.name) for entry in source.iterdir())


def versions_in(folder: Path) -> dict[int, Stamp]:
    """Give the versions in a folder: its folders whose names are whole numbers. Other names are not looked at.

    A version that can't be read has the stamp of nothing, so that it alone is refused, by whoever opens it.

    Raises:
        OSError: the folder can't be read.
    """
    entries = [entry for entry in folder.iterdir() if _NUMBER.fullmatch(entry.name) and entry.is_dir()]
    versions: dict[int, Stamp] = {int(entry.name): () for entry in entries}
    for entry in entries:
        with suppress(OSError):
            versions[int(entry.name)] = stamp_of(entry)
    return versions


def stamp_of(path: Path) -> Stamp:
    """Give the stamp of a file, or of the files of a folder.

    Raises:
        OSError: it can't be read.
    """
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    states = [(file.name, file.stat()) for file in files]
    return tuple((name, state.st_ino, state.st_size, state.st_mtime_ns) for name, state in states)
