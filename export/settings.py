"""The options of `scanline export`. This module imports none of the packages that the export needs."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from scanline.settings import POSITIONAL, OutputFolder
from scanline.settings import Settings as BaseSettings


class Settings(BaseSettings):
    """Turn a training run into ONNX files that are verified against it."""

    model_config = SettingsConfigDict(env_prefix="SCANLINE_EXPORT_")

    run: Path = Field(description="the run's folder, such as runs/edge", json_schema_extra={POSITIONAL: True})
    out: OutputFolder = Field(
        description="the folder to write, such as artifacts/edge; an earlier export there is replaced"
    )
    data_dir: Path | None = Field(
        default=None,
        validation_alias="SCANLINE_DATA",
        description="the folder of MNIST's four files, for a run that was trained on them",
    )
