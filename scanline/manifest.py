"""The manifest: what an export wrote into a folder, so that a file can be told from a damaged or exchanged one.

`manifest.json` beside the model files holds `{"name": ..., "files": {NAME: {"bytes": ..., "sha256": ...}}}`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from scanline.errors import ModelError

MANIFEST: Final = "manifest.json"


def write(folder: Path, name: str, files: Sequence[str]) -> None:
    """Write the manifest of these files of a folder that is still in the making."""
    entries = {file: _entry((folder / file).read_bytes()) for file in sorted(files)}
    text = json.dumps({"name": name, "files": entries}, indent=2) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def check(path: Path) -> str:
    """Compare a file with the manifest beside it.

    Returns:
        What was found, in words.

    Raises:
        ModelError: there is no manifest, it doesn't name the file, or the file is another.
        OSError: there is no such file.
    """
    place = path.parent / MANIFEST
    try:
        expected = json.loads(place.read_text(encoding="utf-8"))["files"][path.name]
    except FileNotFoundError:
        raise ModelError(f"no {MANIFEST} beside {path}: `scanline export` writes it, copy it along") from None
    except (ValueError, KeyError, TypeError):
        raise ModelError(f"{place} does not name {path.name}; expected its bytes and sha256") from None
    given = _entry(path.read_bytes())
    if given != expected:
        raise ModelError(f"{path} is {given}, but {MANIFEST} beside it says {expected}: copy or export it again")
    return f"sha256 {given['sha256']}"


def _entry(content: bytes) -> dict[str, int | str]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
