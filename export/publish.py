"""Writing an export's folder: whole at its destination, or not there at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scanline.errors import UsageError
from scanline.manifest import MANIFEST


def refuse_foreign(out: Path) -> None:
    """Check that a destination is free, or holds an earlier export.

    Raises:
        UsageError: something else is there.
    """
    if out.exists() and not (out.is_dir() and ((out / MANIFEST).is_file() or not any(out.iterdir()))):
        raise UsageError(f"--out {out} is there and is no earlier export: give another folder")


@contextmanager
def replacing_folder(out: Path) -> Iterator[Path]:
    """Give an empty folder beside the destination; at the end, if all went well, it takes the destination's name.

    Args:
        out: the destination; an earlier folder of that name is removed.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        new, old = Path(scratch) / "new", Path(scratch) / "old"
        new.mkdir()
        yield new
        # A folder can't be renamed over one that holds files, so for an instant there is none.
        if out.exists():
            out.rename(old)
        new.rename(out)
        shutil.rmtree(old, ignore_errors=True)
