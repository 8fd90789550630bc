"""The defaults that follow the memory: never more than there is, never less than serving takes."""

from __future__ import annotations

import pytest

from scanline.contract import IMAGE_BYTES
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


def test_hundreds_may_call_a_usual_machine_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = sizes(monkeypatch, 16 * 1024 * MIB, 4)
    assert settings.max_message_bytes == 4 * MIB
    assert settings.max_calls > 600


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
