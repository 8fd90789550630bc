"""`scanline classify`: reads a few image files, for a person as a table, for a program as JSON lines."""

from __future__ import annotations

import glob
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from rich.table import Column, Table
from rich.text import Text

from scanline.commands.engine import EngineSettings, engine
from scanline.console import out, visible
from scanline.images import Image, Page, pages
from scanline.prediction import Prediction, printable
from scanline.settings import POSITIONAL

STANDARD_INPUT: Final = "-"
STYLES: Final = {"ok": "green", "rejected": "yellow", "error": "red"}


class Settings(EngineSettings):
    """Read the digit in each image file: PNG, JPEG, BMP, TIFF or WebP."""

    model_config = SettingsConfigDict(env_prefix="SCANLINE_CLASSIFY_")

    files: tuple[str, ...] = Field(
        description="image files, and - for one on standard input", json_schema_extra={POSITIONAL: True}
    )
    json_: bool = Field(
        default=False,
        validation_alias="SCANLINE_CLASSIFY_JSON",
        description="print a JSON object a file, with the probabilities of all ten digits",
    )


def run(settings: Settings) -> int:
    """Print an answer for each file; 1 if one of them could not be read."""
    with engine(settings) as reader:
        images = [image for file in settings.files for image in _images(file)]
        given = reader.classify([image for _, image in images], probabilities=settings.json_)
    names = [name for name, _ in images]
    predictions = [_explained(*image, prediction) for image, prediction in zip(images, given, strict=True)]
    if settings.json_:
        for name, prediction in zip(names, predictions, strict=True):
            sys.stdout.write(json.dumps({"path": printable(name), **prediction.to_dict()}) + "\n")
    else:
        out.print(_table(names, predictions))
    return int(any(prediction.error is not None for prediction in predictions))


def _images(file: str) -> list[tuple[str, Image]]:
    """Give each image of a file with its name."""
    if file == STANDARD_INPUT:
        return [(STANDARD_INPUT, sys.stdin.buffer)]
    return [*pages(file)]


def _explained(name: str, image: Image, prediction: Prediction) -> Prediction:
    """Give an error as text that JSON can hold, and where `scanline score` would read what is named, with that."""
    if prediction.error is None:
        return prediction
    hint = ""
    if os.path.isdir(name):  # noqa: PTH112 - Path's own raises for a name that is too long, or may not be looked at
        hint = "; `scanline score` reads folders"
    elif glob.has_magic(name) and not os.path.lexists(name) and not isinstance(image, Page):
        hint = "; `scanline score` reads patterns"
    return replace(prediction, error=printable(prediction.error + hint))


def _table(names: Sequence[str], predictions: Sequence[Prediction]) -> Table:
    table = Table(Column("file", overflow="fold"), "digit", "confidence", Column("status", overflow="fold"))
    for name, prediction in zip(names, predictions, strict=True):
        note = prediction.error or prediction.reason
        status = visible(f"{prediction.status}: {note}") if note else prediction.status
        digit = "" if prediction.digit is None else str(prediction.digit)
        table.add_row(
            name,
            f"- ({digit})" if prediction.rejected else digit,  # a guess is no answer
            "" if prediction.confidence is None else f"{prediction.confidence:.1%}",
            Text(status, STYLES[prediction.status]),
        )
    return table
