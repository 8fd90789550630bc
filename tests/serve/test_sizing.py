"""The defaults that follow the memory: never more than there is, never less than serving takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from scanline.contract import IMAGE_BYTES
from scanline.decode import WEBP_PIXEL
from serve import sizing
from serve.settings import ServeSettings

MIB = 2**20


def sizes(monkeypatch: pytest.MonkeyPatch, memory: int, cores: int) -> ServeSettings:
    monkeypatch.setattr(sizing, "memory", lambda: memory)
    monkeypatch.setattr(sizing, "cores", lambda: cores)
    return ServeSettings()


@pytest.mark.parametrize("cores", [1, 2, 16])
@pytest.mark.parametrize("memory", [64 * MIB, 160 * MIB, 256 * MIB, 512 * MIB, 1024 * MIB, 8192 * MIB, 2**40])
def test_a_call_of_the_most_images_fits_into_a_message(
    monkeypatch: pytest.MonkeyPatch, memory: int, cores: int
) -> None:
    settings = sizes(monkeypatch, memory, cores)
    assert settings.max_images * IMAGE_BYTES < settings.max_message_bytes


@pytest.mark.parametrize("cores", [1, 2, 4, 16, 64])
@pytest.mark.parametrize("memory", [MIB * size for size in (256, 512, 1024, 4095, 4096, 8192, 2**14, 2**16, 2**20)])
def test_what_callers_may_send_at_once_fits_into_the_memory(
    monkeypatch: pytest.MonkeyPatch, memory: int, cores: int
) -> None:
    settings = sizes(monkeypatch, memory, cores)
    calls = settings.max_calls * settings.max_message_bytes * sizing.BYTES_PER_MESSAGE_BYTE
    streams = settings.max_streams * settings.max_message_bytes * sizing.MESSAGES_PER_STREAM
    pictures = settings.instances * settings.max_pixels * sizing.BYTES_PER_PIXEL
    assert sizing.SERVER + calls + streams + pictures <= memory


# Reads a file, and prints the most bytes a pixel that were resident meanwhile.
DECODING = """
import sys
from pathlib import Path
from scanline.preprocess import to_rows
content, pixels = Path(sys.argv[1]).read_bytes(), int(sys.argv[2])
resident = lambda what: int(Path("/proc/self/status").read_text().partition(what)[2].split()[0]) * 1024
before = resident("VmRSS:")
Path("/proc/self/clear_refs").write_text("5")
to_rows(content)
print((resident("VmHWM:") - before) / pixels)
"""


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
def test_a_picture_takes_no_more_memory_than_is_reckoned(tmp_path: Path, mode: str, form: str) -> None:
    picture = Image.new("RGBA", (2000, 2000), (200, 200, 200, 100))
    picture.paste((0, 0, 0, 255), (600, 300, 900, 1700))
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    picture.convert(mode).save(tmp_path / "picture", form, exif=turned)
    command = [sys.executable, "-c", DECODING, str(tmp_path / "picture"), str(2000 * 2000)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    reckoned = sizing.BYTES_PER_PIXEL * (WEBP_PIXEL if form == "WEBP" else 1)
    assert 1 < float(shown.stdout) < reckoned + 1  # and a little for the code that is loaded meanwhile


def test_hundreds_may_call_a_usual_machine_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = sizes(monkeypatch, 16 * 1024 * MIB, 4)
    assert settings.max_message_bytes == 8 * MIB
    assert settings.max_calls > 300


@pytest.mark.parametrize("memory", [2**17 * MIB, 2**40])
def test_plenty_is_no_limit(monkeypatch: pytest.MonkeyPatch, memory: int) -> None:
    settings = sizes(monkeypatch, memory, 16)
    assert (settings.max_message_bytes, settings.max_calls, settings.max_streams) == (16 * MIB, 1024, 32)
    assert (settings.max_pixels, settings.instances) == (50_000_000, 16)


def test_several_workers_share_the_memory_and_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = sizes(monkeypatch, 512 * MIB, 2)
    monkeypatch.setattr(sizing, "memory", lambda: 4 * 512 * MIB)
    monkeypatch.setattr(sizing, "cores", lambda: 4 * 2)
    assert ServeSettings(workers=4) == alone.model_copy(update={"workers": 4})


def test_fewer_threads_leave_fewer_streams() -> None:
    assert ServeSettings(threads=8).max_streams <= 7
