"""Reads folders of image files into a table, a row a file, in bounded memory.

    path,digit,confidence,status,reason,error
    scans/0001.png,7,0.998541,ok,,
    scans/0002.png,,,error,,the image is damaged or cut short: image file is truncated (3 bytes not processed)

The rows come in the order of the paths that were given; within a folder first its files, then its folders, each sorted
by name. A file that can't be read is a row with its error.
"""

from __future__ import annotations

import csv
import glob
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Final, Protocol, TextIO

from scanline.errors import ScanlineError, UsageError
from scanline.prediction import Prediction

IMAGE_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp"})
OUTPUT_SUFFIXES: Final = (".csv", ".jsonl")
# Paths handed on at once: a client fills several messages with them, and their answers take little memory.
CHUNK: Final = 512
# A spreadsheet takes a cell that begins with one of these for a formula.
FORMULA_STARTS: Final = ("=", "+", "-", "@")


class Classifier(Protocol):
    """What scoring needs of scanline.Reader and scanline.Client."""

    def classify(self, images: Iterable[Path]) -> list[Prediction]:
        """Give a prediction for each image, in order."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table; the fields are its columns.

    Attributes:
        path: the file; one that a spreadsheet would take for a formula begins with ``./``.
        digit: 0 to 9, or None where there is an error.
        confidence: 0 to 1, rounded to 6 places, or None where there is an error.
        status: ``ok``, ``rejected`` or ``error``.
        reason: why the answer is rejected, such as ``blank``, or None.
        error: what is wrong with the file, or None.
    """

    path: str
    digit: int | None
    confidence: float | None
    status: str
    reason: str | None
    error: str | None

    @classmethod
    def of(cls, path: Path, prediction: Prediction) -> Row:
        """Make the row of a file from its prediction."""
        name = printable(path)
        return cls(
            path=f"./{name}" if name.startswith(FORMULA_STARTS) else name,
            digit=prediction.digit,
            confidence=None if prediction.confidence is None else round(prediction.confidence, 6),
            status=prediction.status,
            reason=prediction.reason,
            error=None if prediction.error is None else printable(prediction.error),
        )


COLUMNS: Final = [field.name for field in fields(Row)]
Write = Callable[[Row], object]


def printable(text: str | Path) -> str:
    """Give text that UTF-8 can hold: bytes of a file's name that it can't are written out as Python does."""
    return str(text).encode("utf-8", "backslashreplace").decode("utf-8")


def find(paths: Iterable[str]) -> Iterator[Path]:
    """Give the image files under folders, and those that patterns match; a file that is named is taken as it is.

    Args:
        paths: files, folders, and patterns such as ``scans/*/page-[0-9].png`` or ``scans/**``.

    Raises:
        UsageError: there is nothing of that name.
    """
    for path in paths:
        if os.path.isdir(path):  # noqa: PTH112 - Path("") is the working folder, "" is a mistake
            yield from _walk(path)
        elif os.path.lexists(path):
            yield Path(path)
        elif glob.has_magic(path):
            for match in sorted(glob.glob(path, recursive=True)):  # noqa: PTH207 - Path.glob takes no absolute pattern
                if _is_image(match) and not Path(match).is_dir():
                    yield Path(match)
        else:
            raise UsageError(f"there is no file or folder {path!r}")


def _walk(folder: str) -> Iterator[Path]:
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        try:
            with os.scandir(current) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            yield Path(current)  # a row with its error: nobody would miss the folder's files otherwise
            continue
        for entry in found:
            # a link that leads nowhere is a row with its error; a pipe would be waited for
            if _is_image(entry.name) and (entry.is_file() or entry.is_symlink()):
                yield Path(entry.path)
        waiting += (entry.path for entry in reversed(found) if entry.is_dir(follow_symlinks=False))


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 - many times cheaper than a Path


def score(
    files: Iterable[Path], classifier: Classifier, write: Write, advance: Callable[[int], object]
) -> Counter[str]:
    """Read each file and write its row; give how many there were of each status.

    Args:
        files: the image files, gone through once.
        classifier: reads them.
        write: takes each row, in order.
        advance: is told how many files have been done since the last time.
    """
    statuses: Counter[str] = Counter()
    stream = iter(files)
    while chunk := list(islice(stream, CHUNK)):
        for path, prediction in zip(chunk, classifier.classify(chunk), strict=True):
            write(Row.of(path, prediction))
            statuses[prediction.status] += 1
        advance(len(chunk))
    return statuses


@contextmanager
def writing(output: Path) -> Iterator[Write]:
    """Open a table; it takes its name when the block ends without an error, and leaves nothing behind otherwise.

    Args:
        output: a file whose name ends in .csv (RFC 4180, UTF-8) or .jsonl (an object a line). An old one is replaced.

    Raises:
        UsageError: the name ends in something else, or nothing can be written there.
        ScanlineError: the disk is full or gone.
    """
    if output.suffix not in OUTPUT_SUFFIXES:
        raise UsageError(f"--output ends in {' or '.join(OUTPUT_SUFFIXES)}, not {output.name!r}")
    if output.is_dir():
        raise UsageError(f"--output {output} is a folder; expected a file")
    partial = output.with_name(f"{output.name}.partial")
    try:
        file = partial.open("w", encoding="utf-8", newline="")
    except OSError as error:
        raise UsageError(f"can't write --output {output}: {error.strerror}") from None
    try:
        with file:
            yield _csv(file) if output.suffix == ".csv" else _json_lines(file)
        partial.replace(output)
    except OSError as error:
        raise ScanlineError(f"can't write {output}: {error.strerror or error}") from None
    finally:
        partial.unlink(missing_ok=True)


def _csv(file: TextIO) -> Write:
    table = csv.writer(file)
    table.writerow(COLUMNS)
    return lambda row: table.writerow([getattr(row, name) for name in COLUMNS])


def _json_lines(file: TextIO) -> Write:
    return lambda row: file.write(json.dumps({name: getattr(row, name) for name in COLUMNS}) + "\n")
