"""`scanline score` killed, interrupted and ended, and what the next run makes of what is left."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from scanline import samples
from scanline.scoring.inputs import find
from tests.scanline.scoring.running import environment, line, table


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 small pictures in folders, two of them broken."""
    folder = tmp_path_factory.mktemp("many")
    small = [Image.open(file).convert("L").resize((28, 28)) for file in samples.files()]
    for number in range(400):
        path = folder / f"{number % 7}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        small[number % len(small)].save(path, compress_level=1)
        if number % 200 == 3:
            path.write_bytes(b"broken")
    return folder


def start(what: Path, output: Path, *options: str, given: int | None = None) -> subprocess.Popen[bytes]:
    """Run the command in batches and parts of a few rows, so that a kill finds it everywhere."""
    code = (
        "import sys; from scanline.cli import main; from scanline.scoring import engine, journal; "
        "engine.BATCH_FILES = 16; journal.PART_ROWS = 1; sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["score", str(what), "--output", str(output), "--resume", "--processes", "2", *options]
    with output.with_name("log").open("a") as log:
        line = [sys.executable, "-c", code, *arguments]
        return subprocess.Popen(line, env=environment(), stdin=given, stdout=log, stderr=log)


def workers(process: subprocess.Popen[Any]) -> list[int]:
    with suppress(FileNotFoundError):
        return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    return []


def alive(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_kills_at_random_moments_lose_no_row_and_write_none_twice(many: Path, tmp_path: Path, suffix: str) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow", reason="needs the extra parquet")
    whole, output, chance = tmp_path / f"whole.{suffix}", tmp_path / f"out.{suffix}", random.Random(8)
    assert start(many, whole).wait() == 1
    kept, kills, seen = 0, 0, []
    while True:
        process = start(many, output)
        state = output.with_name(f"{output.name}.partial") / "state.json"
        goal = kept + chance.randrange(1, 300)
        while process.poll() is None and (kept := _rows(state, kept)) < goal:
            with suppress(subprocess.TimeoutExpired):  # a look every few milliseconds, at no fixed moment
                process.wait(chance.random() / 50)
        seen += workers(process)
        process.send_signal(signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:
            break
        kills += 1
    assert process.returncode == 1
    assert kills
    assert _content(output) == _content(whole)
    while any(map(alive, seen)):  # they leave with their parents; the test's own time limit bounds the wait
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", output.name, whole.name]
    assert "semaphore" not in (tmp_path / "log").read_text()


def _rows(state: Path, before: int) -> int:
    with suppress(FileNotFoundError):
        return int(json.loads(state.read_text())["rows"])
    return before


def _content(path: Path) -> Any:
    if path.suffix == ".csv":
        return path.read_bytes()

    from pyarrow import parquet

    return parquet.read_table(path)


def test_an_interrupted_run_says_how_to_go_on(many: Path, tmp_path: Path) -> None:
    folder, output = tmp_path / "longer", tmp_path / "out.csv"
    for copy in range(25):  # seconds of work, so that the signal comes before the end
        shutil.copytree(many, folder / f"{copy:02}", symlinks=True)
    process = start(folder, output)
    state = tmp_path / "out.csv.partial" / "state.json"
    while process.poll() is None and not _rows(state, 0):
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    entries = list(find([str(folder)]))
    assert 0 < (kept := _rows(state, 0)) < len(entries)
    assert start(folder, output).wait() == 1
    log = (tmp_path / "log").read_text()
    assert "the same command with --resume goes on\ninterrupted\n" in log
    assert f"{len(entries) - kept:,} files in " in log
    assert f"after {kept:,} of earlier runs" in log
    assert [row["path"] for row in table(output)] == [entry.name for entry in entries]


def test_a_pattern_passes_over_a_table_in_the_making(many: Path, tmp_path: Path) -> None:
    folder = tmp_path / "lists"
    folder.mkdir()
    listed = [entry.name for entry in find([str(many)])]
    (folder / "all.csv").write_text("path\n" + "\n".join(listed))
    process = start(folder / "**/*.csv", folder / "out.csv", "-", given=subprocess.PIPE)  # the list that never ends it
    state = folder / "out.csv.partial" / "state.json"
    while process.poll() is None and not _rows(state, 0):
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.01)
    process.kill()
    process.communicate()
    assert (folder / "out.csv.partial" / "000000.csv").exists()
    assert start(folder / "**/*.csv", folder / "out.csv", "-", given=subprocess.DEVNULL).wait() == 1
    assert [row["path"] for row in table(folder / "out.csv")] == listed


@pytest.mark.parametrize("pause", [0.002, 0.1, 0.3])
def test_who_interrupts_again_and_again_is_not_kept_waiting(many: Path, tmp_path: Path, pause: float) -> None:
    process = start(many, tmp_path / "out.csv")
    state = tmp_path / "out.csv.partial" / "state.json"
    while process.poll() is None and not _rows(state, 0):
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.01)
    while process.poll() is None:  # the test's own time limit ends what hangs
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(pause)
    assert process.returncode in {130, -signal.SIGINT}
    assert "Traceback" not in (tmp_path / "log").read_text()
    start(many, tmp_path / "out.csv").wait()
    assert [row["path"] for row in table(tmp_path / "out.csv")] == [entry.name for entry in find([str(many)])]


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [(signal.SIGINT, 130, "no row is kept yet\ninterrupted\n"), (signal.SIGTERM, 143, "no row is kept yet\n")],
)
def test_an_end_at_the_start_is_said(tmp_path: Path, number: signal.Signals, code: int, words: str) -> None:
    process = subprocess.Popen(
        line("-", "--output", tmp_path / "out.csv"),
        env=environment(),
        stdin=subprocess.PIPE,  # the list that never comes
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while len(workers(process)) < 2 and process.poll() is None:  # the pool's own helper, and the first reader
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.01)
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)  # as a terminal does
    out, err = process.communicate()  # to the end of all that write there
    assert (process.returncode, out, err) == (code, "", words)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_run_has_left_without_rows_is_not_called_rows(tmp_path: Path) -> None:
    (tmp_path / "out.csv.partial").mkdir()
    (tmp_path / "out.csv.partial" / "lock").touch()
    arguments = ("x.png", "--output", tmp_path / "out.csv", "--server", "127.0.0.1:1", "--tls-roots", "none.pem")
    result = subprocess.run(line(*arguments), env=environment(), capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "error: can't use none.pem for TLS: No such file or directory\n"
