"""The options of `scanline train`. This module imports none of the packages that training needs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from scanline.settings import OutputFolder
from scanline.settings import Settings as BaseSettings


class Settings(BaseSettings):
    """Fit a network to digits; write its checkpoint, figures and report into a folder for `scanline export`."""

    model_config = SettingsConfigDict(env_prefix="SCANLINE_TRAIN_")

    preset: Literal["seed", "edge", "accurate"] = Field(
        "edge",
        description="the network and its recipe: the tutorial's, the small one, or one with convolutions",
    )
    data: tuple[str, ...] = Field(
        ("mnist",),
        min_length=1,
        description="mnist, uci, or folder:PATH for the image files in PATH/0 to PATH/9; give it again to join several",
    )
    data_dir: Path | None = Field(
        None, validation_alias="SCANLINE_DATA", description="the folder of MNIST's four files, else they are downloaded"
    )
    out: OutputFolder = Field(description="the run's folder, such as runs/edge")
    resume: bool = Field(False, description="go on with the interrupted run in --out, with the options it began with")
    trial: bool = Field(False, description="measure on the validation split and leave the test set alone")
    calibrated_by: Path | None = Field(
        None,
        description="train on the validation split too, with temperature and thresholds of this run of the same preset",
    )
    teacher: tuple[Path, ...] = Field(
        (), description="learn from the answers of this finished run beside the labels; give it again for several"
    )
    seed: int = Field(
        0,
        ge=0,
        lt=2**32,
        description="of all random draws; the same seed gives the same network on a CPU with as many threads",
    )
    epochs: int | None = Field(None, ge=1, description="how often every image is shown, else the preset's number")
    learning_rate: float | None = Field(None, gt=0, allow_inf_nan=False, description="else the preset's")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="bfloat16 is faster on a CPU with units for it, slower on others; a GPU's LSTM never takes it",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where to compute; auto takes a GPU if any")
