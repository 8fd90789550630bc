"""Writing an export's folder: whole at its destination, or not there at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from scanline import manifest
from scanline.errors import ModelError, UsageError

REPORT: Final = "validation.html"  # beside what the manifest names


def _refuse_foreign(out: Path) -> None:
    """Check that a destination is free, or holds an earlier export and nothing else: all that it holds is removed.

    Raises:
        UsageError: something else is there, or it is the working folder or a mount point.
    """
    if not out.exists():
        return
    if out.samefile("."):  # whoever calls from there would be left in the folder that is removed
        raise UsageError(f"--out {out} is the working folder, which can't be replaced: give another folder")
    if out.is_mount():  # as in a container, where a folder of the host is given
        raise UsageError(f"--out {out} is a mount point, which can't be replaced: give a folder in it")
    try:
        named = manifest.named(out)
    except ModelError:  # damaged, or another program's: browsers know a manifest.json too
        named = frozenset()
    own = named | {manifest.MANIFEST, REPORT} if named else named
    foreign = sorted(entry.name for entry in out.iterdir() if entry.name not in own or not entry.is_file())
    if foreign:
        raise UsageError(
            f"--out {out} is there and is no earlier export: it holds {foreign[0]}, which no export's "
            f"{manifest.MANIFEST} names; give another folder"
        )


@contextmanager
def replacing_folder(out: Path) -> Iterator[Path]:
    """Give an empty folder beside the destination; at the end, if all went well, it takes the destination's name.

    Args:
        out: the destination; an earlier export of that name is removed, and comes back where the new one can't take
            its name. Of a link it is what the link leads to.

    Raises:
        UsageError: it can't be written, or something that is no export is there, at first or by the end.
        OSError: the disk is full, with the destination's name.
    """
    _refuse_foreign(out)
    given, out = out, Path(os.path.realpath(out))
    if out.is_symlink():
        raise UsageError(f"--out {given}: its links lead in a circle")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        place = tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent)
    except OSError as error:
        raise UsageError(f"--out {given}: it can't be written to: {error.strerror}") from None
    with place as scratch:
        new, old = Path(scratch) / "new", Path(scratch) / "old"
        new.mkdir()
        try:
            yield new
        except OSError as error:
            if error.filename is None:  # of a write, as on a full disk
                error.filename = str(given)
            raise
        _refuse_foreign(out)  # once more: the checks took minutes, in which others may have put something there
        try:
            # A folder can't be renamed over one that holds files, so for an instant there is none.
            if out.exists():
                out.rename(old)
            new.rename(out)
        finally:
            if old.exists() and not out.exists():
                old.rename(out)
