"""`scanline verify`: proves that this machine computes the right numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from rich.table import Column, Table
from rich.text import Text

from scanline import console
from scanline.errors import GateError
from scanline.model import find
from scanline.settings import POSITIONAL
from scanline.settings import Settings as BaseSettings
from scanline.verify import instruction_set, verify

PASSED: Final = Text("passed", "green")
FAILED: Final = Text("failed", "red")


class Settings(BaseSettings):
    """Compute a model's golden vectors on this machine, at every batch size, thread count and optimisation level."""

    model_config = SettingsConfigDict(env_prefix="SCANLINE_VERIFY_")

    model: str | Path = Field(  # text from outside: a Path would make the name accurate of ./accurate
        description="a model file, a folder of exported files, or edge or accurate, which ship",
        json_schema_extra={POSITIONAL: True},
    )
    data: Path | None = Field(
        None, description="also read a folder of one's own digits, FOLDER/0 to FOLDER/9 of image files"
    )


def run(settings: Settings) -> int:
    """Run the checks and print them.

    Returns:
        0, or 1 where one failed.

    Raises:
        ModelError: the model can't be loaded, or has no golden vectors.
        UsageError, InputError: the digits of one's own can't be read.
    """
    path = find(settings.model)
    checks = verify(path, settings.data)
    table = Table("check", "", Column("what was found", overflow="fold"), title=f"{path} on {instruction_set()}")
    for check in checks:
        table.add_row(check.name, PASSED if check.passed else FAILED, check.detail)
    console.out.print(table)
    failed = [check.name for check in checks if not check.passed]
    if failed:
        raise GateError(f"{path} gives wrong numbers on this machine: {', '.join(failed)} failed")
    return 0
