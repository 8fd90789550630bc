"""Reading in processes: in order, bounded, and through the death of a process."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from scanline import Reader, samples
from scanline.errors import InputError, ScanlineError
from scanline.images import Image, Page
from scanline.prediction import Prediction
from scanline.scoring.engine import BATCH_BYTES, BATCH_FILES, batched
from scanline.scoring.entry import Entry
from scanline.scoring.inputs import find
from scanline.scoring.local import AHEAD, Local
from tests.scanline.test_images import SHEETS, book

FILES = [str(path) for path in samples.files()]
PIXELS = np.zeros((28, 28), np.uint8)


class Deadly(Reader):
    """A reader whose process dies of the file `deadly`, of a TIFF file's second page, and of `deadly-once` once."""

    def classify(self, images: Image | Iterable[Image], *, probabilities: bool = False) -> list[Prediction]:
        assert isinstance(images, list)
        once = next((Path(image) for image in images if str(image).endswith("deadly-once")), None)
        if once is not None:
            with suppress(FileNotFoundError):  # there is one in each batch, and both processes may come to theirs
                once.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        if any(str(image).endswith("deadly") or (isinstance(image, Page) and image.number == 1) for image in images):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().classify(images, probabilities=probabilities)


def unable() -> Reader:
    """Kill the process that is to have a reader."""
    os.kill(os.getpid(), signal.SIGKILL)
    return Reader()


def unable_once(marker: Path) -> Reader:
    """Kill the process that is to have a reader, but no other after it."""
    if marker.exists():
        marker.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return Reader()


def entries(files: list[str], times: int) -> Iterator[Entry]:
    return (Entry(file) for _ in range(times) for file in files)


def answers(engine: Local, found: Iterable[Entry]) -> list[tuple[str, Prediction]]:
    with engine:
        return [
            (entry.name, prediction)
            for batch, predictions in engine.run(batched(found))
            for entry, prediction in zip(batch.entries, predictions, strict=True)
        ]


def test_the_reader_s_answers_in_order() -> None:
    engine = Local(Reader, processes=2, probabilities=True)
    with Reader() as reader:
        expected = reader.classify(FILES, probabilities=True)
        assert engine.version == reader.model().file
    found = answers(engine, entries(FILES, 25))
    assert [name for name, _ in found] == FILES * 25
    assert [prediction.digit for _, prediction in found] == [prediction.digit for prediction in expected] * 25
    assert found[0][1].probabilities is not None


def test_files_are_drawn_a_few_batches_ahead() -> None:
    drawn = 0

    def counted() -> Iterator[Entry]:
        nonlocal drawn
        for number in range(20 * BATCH_FILES):
            drawn += 1
            yield Entry(str(number), lambda: PIXELS)

    with Local(Reader, processes=1, probabilities=False) as engine:
        for number, _ in enumerate(engine.run(batched(counted()))):
            assert drawn <= (number + AHEAD + 1) * BATCH_FILES
    assert drawn == 20 * BATCH_FILES


def test_what_was_read_from_archives_is_bounded_in_bytes() -> None:
    content = bytes(BATCH_BYTES // 4)
    sizes = [len(batch.entries) for batch in batched(Entry(str(number), lambda: content) for number in range(10))]
    assert sizes == [4, 4, 2]


def test_a_killed_process_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "deadly-once").touch()
    files = [*FILES, str(tmp_path / "deadly-once")]
    found = answers(Local(Deadly, processes=2, probabilities=False), entries(files, 25))
    assert [name for name, _ in found] == files * 25
    assert {prediction.status for name, prediction in found if name in FILES} == {"ok"}
    assert not (tmp_path / "deadly-once").exists()


def test_a_process_killed_at_the_very_start_costs_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "first"
    marker.touch()
    engine = Local(partial(unable_once, marker), processes=1, probabilities=False)
    with Reader() as reader:
        assert engine.version == reader.model().file
    assert [prediction.status for _, prediction in answers(engine, entries(FILES[:2], 1))] == ["ok", "ok"]
    assert not marker.exists()


def test_a_file_that_kills_its_reader_is_an_error_of_its_own(tmp_path: Path) -> None:
    files = [FILES[0], str(tmp_path / "deadly"), FILES[1]]
    found = answers(Local(Deadly, processes=2, probabilities=False), entries(files, 1))
    assert [prediction.status for _, prediction in found] == ["ok", "error", "ok"]
    assert found[1][1].error == "the process that read it died: out of memory, or by a fault in a decoder"


def test_processes_that_cannot_start_end_the_run() -> None:
    words = "the processes that read files die at their start"
    with Local(unable, processes=1, probabilities=False) as engine, pytest.raises(ScanlineError, match=words):
        assert engine.version
    with pytest.raises(ScanlineError, match=words):
        answers(Local(unable, processes=1, probabilities=False), entries(FILES, 1))


def test_an_entry_that_cannot_be_loaded_is_an_error_in_its_place() -> None:
    def cut() -> Image:
        raise InputError("cut short")

    found = answers(
        Local(Reader, processes=1, probabilities=False), [Entry(FILES[0]), Entry("b", cut), Entry(FILES[1])]
    )
    assert [prediction.error for _, prediction in found] == [None, "cut short", None]


def test_so_is_a_page_of_a_tiff_file(tmp_path: Path) -> None:
    path = tmp_path / "scan.tif"
    path.write_bytes(book(*SHEETS))
    found = answers(Local(Deadly, processes=1, probabilities=False), find([str(path)]))
    assert [(name, prediction.status) for name, prediction in found] == [
        (f"{path}[1]", "ok"),
        (f"{path}[2]", "error"),
        (f"{path}[3]", "ok"),
    ]
