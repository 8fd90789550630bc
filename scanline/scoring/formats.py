"""The files that hold a table: CSV (RFC 4180, UTF-8), JSON lines (an object a line) and Parquet.

A table is made in parts, and the parts are joined at its end.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, Protocol

from scanline.errors import MissingExtraError
from scanline.scoring.rows import SHARES, Row


class Format(Protocol):
    """A kind of file, made for the columns of a table."""

    def write(self, path: Path, rows: Sequence[Row]) -> None:
        """Make a part of rows; there is at least one."""

    def join(self, path: Path, parts: Iterable[Path]) -> None:
        """Make the table of its parts."""


def format_of(output: Path, columns: Sequence[str]) -> Format:
    """Give the format that a file's suffix, one of FORMATS, names.

    Raises:
        MissingExtraError: its extra is not installed.
    """
    return FORMATS[output.suffix](columns)


class Csv:
    """RFC 4180, UTF-8, with a line of the columns' names."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns

    def write(self, path: Path, rows: Sequence[Row]) -> None:
        """Make a part of rows."""
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)

    def join(self, path: Path, parts: Iterable[Path]) -> None:
        """Make the table of its parts."""
        self.write(path, [tuple(self._columns)])
        _append(path, parts)


class JsonLines:
    """An object a line, whose keys are the columns' names."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns

    def write(self, path: Path, rows: Sequence[Row]) -> None:
        """Make a part of rows."""
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(dict(zip(self._columns, row, strict=True))) + "\n" for row in rows)

    def join(self, path: Path, parts: Iterable[Path]) -> None:
        """Make the table of its parts."""
        self.write(path, [])
        _append(path, parts)


def _append(path: Path, parts: Iterable[Path]) -> None:
    with path.open("ab") as table:
        for part in parts:
            with part.open("rb") as file:
                shutil.copyfileobj(file, table)


class Parquet:
    """Text and numbers as such, a row group a part."""

    def __init__(self, columns: Sequence[str]) -> None:
        """Prepare the schema.

        Raises:
            MissingExtraError: pyarrow is not installed.
        """
        try:
            import pyarrow as pa
        except ModuleNotFoundError:
            raise MissingExtraError("a .parquet table", "parquet", "pyarrow") from None
        kinds = {"label": pa.int8(), "digit": pa.int8(), **dict.fromkeys(("confidence", *SHARES), pa.float64())}
        self._schema = pa.schema([(name, kinds.get(name, pa.string())) for name in columns])

    def write(self, path: Path, rows: Sequence[Row]) -> None:
        """Make a part of rows."""
        import pyarrow as pa
        from pyarrow import parquet

        values = map(list, zip(*rows, strict=True))
        arrays = [pa.array(column, field.type) for column, field in zip(values, self._schema, strict=True)]
        parquet.write_table(pa.table(arrays, schema=self._schema), path)

    def join(self, path: Path, parts: Iterable[Path]) -> None:
        """Make the table of its parts."""
        from pyarrow import parquet

        with parquet.ParquetWriter(path, self._schema) as table:
            for part in parts:
                table.write_table(parquet.read_table(part))


FORMATS: Final[dict[str, Callable[[Sequence[str]], Format]]] = {".csv": Csv, ".jsonl": JsonLines, ".parquet": Parquet}
