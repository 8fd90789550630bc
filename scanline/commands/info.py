"""`scanline info`: what a model file says of itself, and whether it is the file that was exported."""

from __future__ import annotations

from dataclasses import fields
from hashlib import sha256
from pathlib import Path

from pydantic import Field
from rich.table import Column, Table
from rich.text import Text

from scanline import console, manifest
from scanline.model import find, open_session, read_card
from scanline.settings import POSITIONAL
from scanline.settings import Settings as BaseSettings


class Settings(BaseSettings):
    """Show a model's card, and check the file against the manifest beside it."""

    model: str | Path = Field(  # text from outside: a Path would make the name accurate of ./accurate
        description="a model file, a folder of exported files, or edge or accurate, which ship",
        json_schema_extra={POSITIONAL: True},
    )


def run(settings: Settings) -> int:
    """Print the card.

    Returns:
        0.

    Raises:
        ModelError: there is no such model, it has no card, or it is not the file that the manifest beside it names.
    """
    path = find(settings.model)
    content = manifest.read(path)
    card = read_card(open_session(content, path, threads=1), path)
    beside = path.parent / manifest.MANIFEST
    origin = f"sha256 {sha256(content).hexdigest()}" if beside.is_file() else f"there is no {beside}"
    table = Table("", Column(overflow="fold"), show_header=False)
    table.add_row("file", str(path))
    table.add_row("bytes", f"{len(content):,}")
    for field in fields(card):
        table.add_row(field.name.replace("_", " "), _show(getattr(card, field.name)))
    table.add_row("manifest", origin)
    console.out.print(table)
    return 0


def _show(value: object) -> Text | str:
    if isinstance(value, dict):
        lines = [console.visible(f"{name.replace('_', ' ')}: {_show(part)}") for name, part in value.items()]
        return Text("\n".join(lines) or "none")
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
