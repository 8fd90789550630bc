"""Reading on a Ray cluster of two nodes in this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from scanline import Reader, samples
from scanline.errors import ModelError
from scanline.model import SHIPPED

FILES = samples.files()
# Ray takes its time to start where other tests run at the same time.
pytestmark = pytest.mark.timeout(900)


def environment(**variables: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SCANLINE_", "RAY_"))}
    return clean | {"RAY_USAGE_STATS_ENABLED": "0"} | variables


class TwoNodes:
    """The cluster's process, and what of it /proc shows."""

    def __init__(self) -> None:
        line = [sys.executable, "-m", "tests.scanline.scoring.two_nodes"]
        self.process = subprocess.Popen(
            line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment()
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        assert self.address

    def reading(self) -> dict[int, int]:
        """Give the processes that read for us at this moment, and their nodes' processes."""
        workers = ((worker, node) for node in children(self.process.pid) for worker in children(node))
        return {worker: node for worker, node in workers if title(worker).startswith("ray::Map(_Read)")}


def children(pid: int) -> list[int]:
    with suppress(FileNotFoundError, ProcessLookupError):
        texts = (file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/children"))
        return [int(child) for text in texts for child in text.split()]
    return []


def title(pid: int) -> str:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    return ""


def two_nodes() -> Iterator[TwoNodes]:
    pytest.importorskip("ray", reason="needs the extra ray")
    nodes = TwoNodes()
    yield nodes
    nodes.process.communicate()


@pytest.fixture(scope="module")
def cluster() -> Iterator[TwoNodes]:
    yield from two_nodes()


@pytest.fixture
def doomed() -> Iterator[TwoNodes]:
    yield from two_nodes()


def score(*arguments: str | Path, **variables: str) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "scanline", "score", *map(str, arguments)]
    return subprocess.Popen(
        line, stderr=subprocess.PIPE, stdin=subprocess.PIPE, text=True, env=environment(**variables)
    )


def test_the_same_rows_as_the_local_engine(cluster: TwoNodes, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(FILES[0], "in/0.png")
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(b"broken")
    paths = [tmp_path, tmp_path / "a.zip", FILES[0].parent, tmp_path / "a.zip"]
    for name, engine in (("local.csv", "local"), ("ray.csv", "ray")):
        run = score(
            *paths, "--probabilities", "--output", tmp_path / name, "--engine", engine, RAY_ADDRESS=cluster.address
        )
        _, said = run.communicate()
        assert run.returncode == 1, said
        assert "1 of 15 files could not be read" in said
        assert "Warning" not in said
    assert (tmp_path / "ray.csv").read_bytes() == (tmp_path / "local.csv").read_bytes()


def test_what_is_wrong_with_a_node_s_model_is_said_in_its_own_words(cluster: TwoNodes, tmp_path: Path) -> None:
    model = tmp_path / "gone.onnx"
    shutil.copy(SHIPPED / "digits.int8.onnx", model)
    code = (
        "import sys; from functools import partial; from pathlib import Path; from scanline.scoring.cluster import *; "
        "from scanline.scoring.engine import batched, open_reader; from scanline.scoring.entry import Entry\n"
        "engine = Cluster(partial(open_reader, sys.argv[1], None), probabilities=False)\n"
        "Path(sys.argv[1]).unlink()\n"
        "try: list(engine.run(batched([Entry(sys.argv[2])])))\n"
        "except ModelError as error: print(error)"
    )
    line = [sys.executable, "-c", code, str(model), str(FILES[0])]
    result = subprocess.run(
        line, capture_output=True, text=True, env=environment(RAY_ADDRESS=cluster.address), check=False
    )
    with pytest.raises(ModelError) as here:
        Reader(model)
    assert result.stdout == f"{here.value}\n", result.stderr


def read_both_ways(cluster: TwoNodes, folder: Path, look: Callable[[], None]) -> None:
    """Read many files here and on the cluster, which is looked at all the while; the tables must be the same."""
    listed = "\n".join(map(str, FILES * 43))
    with score("-", "--output", folder / "local.csv") as local:
        local.communicate(listed)
    with score("-", "--output", folder / "ray.csv", "--engine", "ray", RAY_ADDRESS=cluster.address) as run:
        assert run.stdin is not None
        run.stdin.write(listed)
        run.stdin.close()
        while run.poll() is None:
            look()
            with suppress(subprocess.TimeoutExpired):
                run.wait(0.05)
        assert run.stderr is not None
        assert run.returncode == local.returncode == 0, run.stderr.read()
    assert (folder / "ray.csv").read_bytes() == (folder / "local.csv").read_bytes()


def test_killed_workers_cost_nothing(cluster: TwoNodes, tmp_path: Path) -> None:
    nodes: set[int] = set()

    def kill_the_first_of_each_node() -> None:
        for worker, node in cluster.reading().items():
            if node not in nodes:
                nodes.add(node)
                os.kill(worker, signal.SIGKILL)

    read_both_ways(cluster, tmp_path, kill_the_first_of_each_node)
    assert len(nodes) == 2


def test_a_killed_node_costs_nothing(doomed: TwoNodes, tmp_path: Path) -> None:
    killed = False

    def kill_a_reading_node() -> None:
        nonlocal killed
        for node in doomed.reading().values():
            if not killed and "--head" not in title(node):  # our own process is at the head
                for process in (node, *children(node)):
                    os.kill(process, signal.SIGKILL)
                killed = True

    read_both_ways(doomed, tmp_path, kill_a_reading_node)
    assert killed


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['ray'] = None; from scanline.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["score", str(FILES[0]), "--output", str(tmp_path / "o.csv"), "--engine", "ray"]
    line = [sys.executable, "-c", code, *arguments]
    result = subprocess.run(line, capture_output=True, text=True, env=environment(), check=False)
    assert result.returncode == 2
    assert (
        result.stderr
        == "error: --engine ray needs ray, which is not installed: in a checkout of Scanline, pip install '.[ray]'\n"
    )
