"""The manifest: what an export wrote into a folder, so that a file can be told from a damaged or exchanged one.

`manifest.json` beside the model files holds `{"name": ..., "files": {NAME: {"bytes": ..., "sha256": ...}}}`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from scanline.errors import ModelError

MANIFEST: Final = "manifest.json"


def write(folder: Path, name: str, files: Sequence[str]) -> None:
    """Write the manifest of these files of a folder that is still in the making."""
    entries = {}
    for file in sorted(files):
        content = (folder / file).read_bytes()
        entries[file] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    text = json.dumps({"name": name, "files": entries}, indent=2) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def named(folder: Path) -> frozenset[str]:
    """Give the files that a folder's manifest names, whether they are there or not; none where it has no manifest.

    Raises:
        ModelError: the manifest is damaged.
    """
    return frozenset(_entries(folder)) if (folder / MANIFEST).is_file() else frozenset()


def read(path: Path) -> bytes:
    """Give what a file holds, once it has been compared with the manifest beside it; a lone file may have none.

    Raises:
        ModelError: the manifest doesn't name the file, or the file is another.
        OSError: there is no such file.
    """
    content = path.read_bytes()
    if (path.parent / MANIFEST).is_file():
        _compare(path, content)
    return content


def check(path: Path) -> str:
    """Compare a file with the manifest beside it.

    Returns:
        What was found, in words.

    Raises:
        ModelError: there is no manifest, it doesn't name the file, or the file is another.
        OSError: there is no such file.
    """
    return f"sha256 {_compare(path, path.read_bytes())}"


def _compare(path: Path, content: bytes) -> str:
    """Compare what a file holds with the manifest; give its SHA-256."""
    try:
        entry = _entries(path.parent)[path.name]
        expected = entry["bytes"], entry["sha256"]
    except FileNotFoundError:
        raise ModelError(f"no {MANIFEST} beside {path}: `scanline export` writes it, copy it along") from None
    except (KeyError, TypeError):
        place = path.parent / MANIFEST
        raise ModelError(f"{place} does not name {path.name}; expected its bytes and sha256") from None
    given = len(content), hashlib.sha256(content).hexdigest()
    if given != expected:
        raise ModelError(
            f"{path} has {given[0]} bytes and the SHA-256 {given[1]}, but {MANIFEST} beside it says {expected[0]} and "
            f"{expected[1]}: copy or export it again"
        )
    return given[1]


def _entries(folder: Path) -> dict[str, Any]:
    """Give what the manifest of a folder says of each file.

    Raises:
        ModelError: it is damaged.
        FileNotFoundError: there is none.
    """
    place = folder / MANIFEST
    try:
        content = json.loads(place.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{place} is damaged: {error}; copy it again, or export the model again") from None
    match content:
        case {"files": dict(entries)}:
            return entries
    raise ModelError(f"{place} is damaged: it lists no files; copy it again, or export the model again")
