"""Reading with servers: in order, whatever happens to them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from scanline import Client, InputError, Reader, ServiceError, samples
from scanline.images import Image
from scanline.prediction import Prediction
from scanline.scoring.engine import BATCH_FILES, batched
from scanline.scoring.entry import Entry
from scanline.scoring.journal import Kind, journal, place
from scanline.scoring.remote import Remote
from scanline.scoring.rows import Columns
from scanline.scoring.score import score
from tests.faults.server import BesetServer

FILES = [str(path) for path in samples.files()]
NOISE = np.random.default_rng(8).integers(0, 256, (100, 28, 28), dtype=np.uint8)


def entries(times: int) -> Iterator[Entry]:
    return (
        Entry(f"{number}", partial(NOISE.__getitem__, number)) for _ in range(times) for number in range(len(NOISE))
    )


@pytest.fixture
def start() -> Iterator[Callable[..., BesetServer]]:
    """Start server processes; all are killed at the end."""
    with ExitStack() as ends:

        def begin(*arguments: str) -> BesetServer:
            server = BesetServer(*arguments)
            ends.callback(server.kill)
            return server

        yield begin


def rows(engine: Remote, output: Path, found: Iterable[Entry], advance: Callable[[int], object]) -> list[str]:
    with place(output, Columns()), journal(output, Kind(engine.version, None, Columns()), resume=False) as kept:
        score(iter(found), engine, kept, advance)
    return output.read_text().splitlines()


@pytest.mark.parametrize("end", [BesetServer.kill, BesetServer.stop])
def test_a_server_restarted_in_the_middle_costs_nothing(
    start: Callable[..., BesetServer], end: Callable[[BesetServer], None], tmp_path: Path
) -> None:
    server, done = start(), 0
    with Client(server.address, timeout=120) as client:
        engine = Remote(client, probabilities=False)
        whole = rows(engine, tmp_path / "whole.csv", entries(30), int)

        def restart_after_a_third(files: int) -> None:
            nonlocal done
            if done < 1000 <= done + files:
                end(server)
                threading.Thread(target=start, args=("--listen", server.address)).start()
            done += files

        assert rows(engine, tmp_path / "out.csv", entries(30), restart_after_a_third) == whole
    assert len(whole) == 3001
    assert done == 3000


def test_a_server_that_stays_away_ends_the_run_and_keeps_its_rows(
    start: Callable[..., BesetServer], tmp_path: Path
) -> None:
    server = start()
    with Client(server.address, timeout=1) as client:
        engine = Remote(client, probabilities=False)
        with pytest.raises(ServiceError):
            rows(engine, tmp_path / "out.csv", entries(30), lambda _: server.kill())
    assert (tmp_path / "out.csv.partial" / "000000.csv").read_text().startswith("0,")
    assert not (tmp_path / "out.csv").exists()


def test_errors_and_files_keep_their_places(start: Callable[..., BesetServer]) -> None:
    def cut() -> Image:
        raise InputError("cut short")

    def mixed() -> Iterator[Entry]:
        for _ in range(40):
            yield from [Entry("a", cut), *map(Entry, FILES), Entry("b", cut)]
        yield from (Entry("c", cut) for _ in range(3 * BATCH_FILES))

    with Reader() as reader:
        digits = [prediction.digit for prediction in reader.classify(FILES)]
    expected = [None, *digits, None] * 40 + [None] * 3 * BATCH_FILES
    with Client(start().address) as client:
        found: list[Prediction] = []
        for batch, predictions in Remote(client, probabilities=True).run(batched(mixed())):
            assert len(batch.entries) == len(predictions)
            found += predictions
    assert [prediction.digit for prediction in found] == expected
    assert {prediction.error for prediction in found} == {None, "cut short"}
    assert found[1].probabilities is not None
