"""`scanline preprocess`: shows what the network sees of an image file, step by step, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from scanline import files
from scanline.console import out
from scanline.errors import InputError, UsageError
from scanline.prediction import RejectReason
from scanline.preprocess import steps
from scanline.settings import POSITIONAL, OutputFolder
from scanline.settings import Settings as BaseSettings
from scanline.writing import replacing

PANEL: Final = 280
MARGIN: Final = 20
GROUND: Final = (225, 230, 235)
TEXT: Final = (30, 30, 30)
MEANING: Final = {
    RejectReason.BLANK: "nothing in the picture stands out from its paper",
    RejectReason.SEVERAL: "there is more than one digit",
    RejectReason.NOT_A_DIGIT: "there are too many strokes or parts for one, or there is a bare line",
}


class Settings(BaseSettings):
    """Show what the network sees of an image file: the picture as it was decoded, the ink found in it, and the 28x28.

    Writes NAME-steps.png into the folder that --out names. Says when the picture's shape alone has it rejected;
    `scanline classify` says what the network rejects.
    """

    model_config = SettingsConfigDict(env_prefix="SCANLINE_PREPROCESS_")

    file: Path = Field(description="a PNG, JPEG, BMP, TIFF or WebP file", json_schema_extra={POSITIONAL: True})
    out: OutputFolder = Field(description="the folder to write the picture to")


def run(settings: Settings) -> int:
    """Write the picture and say where it is."""
    content = files.read(settings.file)  # whose errors name the file
    try:
        taken = steps(content)
    except InputError as error:
        raise InputError(f"{settings.file}: {error}") from None
    panels = {
        "as it was decoded": taken.picture,
        "the ink on its sheet" if taken.on_sheet else "the digit's ink": taken.ink,
        "what the network sees": taken.rows,
    }
    sheet = Image.new("RGB", (len(panels) * (PANEL + MARGIN) + MARGIN, PANEL + 3 * MARGIN), GROUND)
    for place, (title, pixels) in enumerate(panels.items()):
        left = MARGIN + place * (PANEL + MARGIN)
        height, width = pixels.shape
        ImageDraw.Draw(sheet).text((left, MARGIN // 2), f"{title}, {width}x{height}", fill=TEXT)
        sheet.paste(_panel(pixels), (left, 2 * MARGIN))
    target = settings.out / f"{settings.file.stem}-steps.png"
    if target.is_dir():
        raise UsageError(f"{target} is a folder; the picture would have its name")
    try:
        settings.out.mkdir(parents=True, exist_ok=True)
        with replacing(target) as path:
            sheet.save(path, "PNG")
    except OSError as error:
        raise UsageError(f"can't write to --out {settings.out}: {error.strerror}") from None
    if taken.on_sheet:
        out.print("a sheet of paper was found on something darker, and cut out")
    if taken.reason is not None:
        out.print(f"rejected as {taken.reason}: {MEANING[taken.reason]}")
    out.print(f"written to {target}")
    return 0


def _panel(pixels: NDArray[np.uint8]) -> Image.Image:
    """Scale a picture to a panel's longer side, its pixels seen where it is enlarged."""
    factor = PANEL / max(pixels.shape)
    height, width = (max(1, round(side * factor)) for side in pixels.shape)
    resampling = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.BOX
    return Image.fromarray(pixels).resize((width, height), resampling)
