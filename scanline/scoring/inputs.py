"""What is to be read: folders, files, patterns, a list, manifests, archives and IDX files become one stream of entries.

The entries come in the order of the paths that were given; within a folder first its files, then its folders, each
sorted by the bytes of their names. The stream is the same each time it is made, as long as the files are.
"""

from __future__ import annotations

import codecs
import csv
import errno
import glob
import os
import sqlite3
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Final

from scanline.contract import LABELS
from scanline.errors import ScanlineError, UsageError
from scanline.images import Page, is_image, page_names
from scanline.scoring import containers
from scanline.scoring.entry import Entry
from scanline.scoring.journal import is_partial

MANIFEST_SUFFIX: Final = ".csv"
STANDARD_INPUT: Final = "-"
UNCLOSED: Final = "unexpected end of data"  # what csv says where a quote is open at the end
UTF16: Final = ("\udcff\udcfe", "\udcfe\udcff")  # how its first bytes come out as UTF-8


@dataclass(slots=True)
class Others:
    """The files that are passed over in folders and among the matches of patterns.

    Attributes:
        number: how many there are.
    """

    number: int = 0


def find(paths: Iterable[str], others: Others | None = None) -> Iterator[Entry]:
    """Give what the arguments of `scanline score` mean, lazily.

    Args:
        paths: files, folders, archives, IDX files, manifests, ``-`` for a list on standard input, and patterns such as
            ``scans/*/page-[0-9].png`` or ``scans/**``. A file that is named is taken as it is, whatever its suffix.
        others: counts what is passed over.

    Raises:
        UsageError: there is nothing of that name, it is a pipe or a device, or a manifest or a list is malformed.
        ScanlineError: there is no disk to sort the names of a large folder on.
    """
    others = others or Others()
    for path in paths:
        if path == STANDARD_INPUT:
            yield from _list(others)
        elif not path:
            raise UsageError("expected a file, a folder or a pattern, not ''")  # a Path of it is the working folder
        elif _kind(path) not in {None, stat.S_IFREG, stat.S_IFDIR}:
            raise UsageError(f"{path} is a pipe, a socket or a device; expected a file, a folder, or - for a list")
        elif os.path.lexists(path):
            yield from _manifest(path) if is_manifest(path) else _named(path, others)
        elif glob.has_magic(path):
            yield from _matched(path, others)
        else:
            with suppress(FileNotFoundError, NotADirectoryError):
                Path(path).lstat()  # raises where it may not be looked at
            raise UsageError(f"there is no file or folder {path!r}")


def count(paths: Sequence[str]) -> int | None:
    """Count the entries, and so check the arguments; None where they come on standard input, which is read once.

    Going through the files twice is cheap beside reading them, and keeps no list of them in memory.

    Raises:
        UsageError, ScanlineError: as `find` does.
    """
    number = sum(1 for _ in find(path for path in paths if path != STANDARD_INPUT))
    return None if STANDARD_INPUT in paths else number


def is_manifest(path: str) -> bool:
    """Tell whether an argument is a CSV file of paths and labels."""
    return path.lower().endswith(MANIFEST_SUFFIX) and _kind(path) != stat.S_IFDIR


def manifests(paths: Iterable[str]) -> Iterator[str]:
    """Give the manifests among the arguments, and among the matches of patterns."""
    for path in paths:
        found = [path] if os.path.lexists(path) or not glob.has_magic(path) else _matches(path, set())
        if path.lower().endswith(MANIFEST_SUFFIX):
            yield from filter(is_manifest, found)


def _matched(pattern: str, others: Others) -> Iterator[Entry]:
    """Give what matches, as if it were named; but no file of another kind.

    A CSV file is a manifest where the pattern ends like one; that scans/* matches is another kind of file there. A
    folder is not gone through where ** does that itself.
    """
    closed: set[str] = set()
    for match in sorted({*_matches(pattern, closed), *closed}):
        if match in closed:
            yield from _file(match)  # a row with its error, as where a folder is named
        elif _kind(match) == stat.S_IFDIR:
            if "**" not in pattern.split("/"):
                yield from _named(match, others)
        elif is_manifest(match) and is_manifest(pattern):
            yield from _manifest(match)
        elif is_image(match) or _container(match):
            yield from _named(match, others)
        else:
            others.number += 1


def _list(others: Others) -> Iterator[Entry]:
    """Give what standard input names, a line each."""
    for number, line in enumerate(sys.stdin.buffer):
        if b"\0" in line:
            raise UsageError(
                "the list on standard input has null characters; expected a path a line, "
                "as `find` prints them without -print0"
            )
        path = line if number else line.removeprefix(codecs.BOM_UTF8)  # which Windows' programs begin a text with
        if name := os.fsdecode(path.rstrip(b"\r\n")):
            yield from _named(name, others)


def _matches(pattern: str, closed: set[str], top: str = "") -> Iterator[str]:
    """Give what matches below a folder, in any order, what several ** find more than once.

    The module glob says nothing of what may not be looked at, and its ** follows links to folders, which may lead back.

    Args:
        pattern: a path from there.
        closed: takes what may not be looked at, or into.
        top: the folder, with / at its end; "" is the working folder.
    """
    part, slash, rest = pattern.partition("/")
    if part == "**":
        for folder in _folders(top, closed):
            yield from _matches(rest if slash else "*", closed, folder)
    elif glob.has_magic(part):
        with _looking_at(top, closed), os.scandir(top or ".") as entries:
            for name in (entry.name for entry in entries if not is_partial(entry.name)):
                if fnmatchcase(name, part) and (part.startswith(".") or not name.startswith(".")):
                    yield from _matches(rest, closed, f"{top}{name}/") if slash else (top + name,)
    elif slash:
        yield from _matches(rest, closed, f"{top}{part}/")
    else:
        with _looking_at(top + part, closed):
            os.lstat(top + part)  # a Path would drop a / at its end
            yield top + part


def _folders(top: str, closed: set[str]) -> Iterator[str]:
    """Give a folder and those below it, but for hidden ones, links and tables in the making."""
    yield top
    below: list[str] = []
    with _looking_at(top, closed), os.scandir(top or ".") as entries:
        below += [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    for name in below:
        if not name.startswith(".") and not is_partial(name):
            yield from _folders(f"{top}{name}/", closed)


@contextmanager
def _looking_at(path: str, closed: set[str]) -> Iterator[None]:
    """Note a path that may not be looked at; one that leads nowhere is no match."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            closed.add(path.rstrip("/") or path or ".")


def _named(path: str, others: Others) -> Iterator[Entry]:
    if _kind(path) == stat.S_IFDIR:
        for file in _walk(path, others):
            yield from _file(file)
    elif read := _container(path):
        yield from read(path)
    else:
        yield from _file(path)


def _kind(path: str) -> int | None:
    """Give what a path leads to, as a type of stat's; None where it leads nowhere, or can't be followed."""
    with suppress(OSError, ValueError):  # ValueError: a null character in the name
        return stat.S_IFMT(Path(path).stat().st_mode)
    return None


def _file(path: str, label: int | None = None) -> Iterator[Entry]:
    names = page_names(path)
    if len(names) == 1:
        yield Entry(path, label=label)
    else:
        yield from (Entry(name, partial(Page, path, number), label) for number, name in enumerate(names))


def _container(path: str) -> Callable[[str], Iterator[Entry]] | None:
    name = path.lower()
    if name.endswith(containers.ZIP_SUFFIX):
        return containers.zipped
    if name.endswith(containers.TAR_SUFFIXES):
        return containers.tarred
    return containers.idx if name.endswith(containers.IDX_SUFFIXES) else None


def _manifest(path: str) -> Iterator[Entry]:
    """Give the files that a CSV file names, with their labels; relative paths start at its own folder."""
    try:
        with Path(path).open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            table = csv.DictReader(file, strict=True)  # else a quote that is not closed takes in the rows after it
            names = table.fieldnames = [name.strip().lower() for name in table.fieldnames or ()]
            if names and names[0].startswith(UTF16):
                raise UsageError(f"the manifest {path} is text in UTF-16; save it as UTF-8")
            if "path" not in names:
                found = f"the columns {', '.join(names)}" if names else "no columns"
                commas = ", with commas between values" if len(names) == 1 else ""
                raise UsageError(f"the manifest {path} has {found}; expected path and label{commas}")
            if twice := {"path", "label"} & {name for name in names if names.count(name) > 1}:
                raise UsageError(f"the manifest {path} has more than one column {' and '.join(sorted(twice))}")
            for row in table:
                if None in row:  # as with a path that has a comma and no quotes
                    raise UsageError(
                        f"line {table.line_num} of the manifest {path} has more fields than the first line has "
                        f"columns, {len(names)}; put a value that has a comma between quotes"
                    )
                name, label = row["path"] or "", (row.get("label") or "").strip()
                if not name.strip() or label not in ("", *LABELS):
                    found = f"the path {name!r}" if name.strip() else "no path"
                    raise UsageError(
                        f"line {table.line_num} of the manifest {path} has {found} and the label {label!r}; "
                        f"expected a path, and 0 to 9 or nothing"
                    )
                yield from _file(_beside(path, name), int(label) if label else None)
    except (OSError, csv.Error) as error:
        hint = "; is a quote not closed?" if str(error) == UNCLOSED else ""
        raise UsageError(f"can't read the manifest {path}: {error}{hint}") from None


def _beside(path: str, name: str) -> str:
    """Give a name as it is from a file's folder; pathlib would drop a ./ and so change names in the table."""
    return name if name.startswith("/") else path[: path.rfind("/") + 1] + name


def _walk(folder: str, others: Others) -> Iterator[str]:
    listed = [_listed(folder, others)]
    while listed:
        for path, is_folder in listed[-1]:
            if is_folder:
                listed.append(_listed(path, others))
                break
            yield path
        else:
            listed.pop()


def _listed(folder: str, others: Others) -> Iterator[tuple[str, bool]]:
    """Give a folder's image files and folders, and whether each is a folder, in order; count its other files.

    SQLite sorts the names: beyond a few thousand it does so on disk, so that a folder of millions takes no memory.
    """
    try:
        with os.scandir(folder) as entries, closing(sqlite3.connect("")) as names:  # "": a temporary file of its own
            names.execute("CREATE TABLE names (is_folder, path)")
            found = ((_is_folder(entry, others), os.fsencode(entry.path)) for entry in entries)
            names.executemany("INSERT INTO names VALUES (?, ?)", (row for row in found if row[0] is not None))
            for is_folder, path in names.execute("SELECT * FROM names ORDER BY is_folder, path"):
                yield os.fsdecode(path), bool(is_folder)
    except OSError:
        yield folder, False  # a row with its error: nobody would miss the folder's files otherwise
    except sqlite3.Error as error:
        raise ScanlineError(f"can't sort the names in {folder} on disk: {error}; is TMPDIR writable?") from None


def _is_folder(entry: os.DirEntry[str], others: Others) -> bool | None:
    if entry.is_dir(follow_symlinks=False):
        return None if is_partial(entry.name) else True
    if is_image(entry.name):  # a link that leads nowhere, or to itself, and a pipe are rows with their errors
        return False
    others.number += not entry.name.startswith(".")  # hidden ones, nobody expects to be read
    return None
