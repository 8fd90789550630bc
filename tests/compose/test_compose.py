"""docker compose as a user runs it: build, up, calls from this host, a folder scored, stop."""

from __future__ import annotations

import csv
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scanline import Client, samples
from scanline.reader import Reader

ROOT = Path(__file__).parents[2]


def engine_is_missing() -> str:
    """Say why compose can't be run here; empty where it can."""
    for command in (["docker", "compose", "version"], ["docker", "info"]):
        try:
            result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        except FileNotFoundError:
            return "docker is not installed"
        if result.returncode:
            return f"`{' '.join(command)}` fails: no Docker Engine with Compose 2 answers here"
    return ""


pytestmark = [
    pytest.mark.skipif(bool(engine_is_missing()), reason=engine_is_missing() or "an engine answers"),
    pytest.mark.timeout(600),  # the first build downloads the base install
]

Compose = Callable[..., subprocess.CompletedProcess[str]]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of images, one of them broken, and a folder for results."""
    images, results = tmp_path_factory.mktemp("images"), tmp_path_factory.mktemp("results")
    for file in samples.files():
        shutil.copy(file, images)
    (images / "broken.png").write_bytes(b"not an image")
    return images, results


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def compose(folders: tuple[Path, Path], port: int) -> Iterator[Compose]:
    images, results = folders
    environment = os.environ | {
        "PORT": str(port),
        "IMAGES": str(images),
        "RESULTS": str(results),
        "SCORE_USER": f"{os.getuid()}:{os.getgid()}",
        "COMPOSE_PROJECT_NAME": "scanline-test",
    }

    def run(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            ["docker", "compose", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0 or not check, f"{arguments}: {result.stdout}\n{result.stderr}"
        return result

    run("up", "--build", "--detach", "--wait")
    yield run
    run("--profile", "score", "down", "--volumes", "--timeout", "10")


def test_a_client_outside_the_container_is_answered(compose: Compose, port: int) -> None:
    files = samples.files()
    with Client(f"127.0.0.1:{port}") as client, Reader() as reader:
        assert client.model() == ("1", reader.model.card)
        assert [answer.digit for answer in client.classify(files)] == [
            answer.digit for answer in reader.classify(files)
        ]


def test_a_mounted_folder_is_scored_against_the_server(compose: Compose, folders: tuple[Path, Path]) -> None:
    result = compose("run", "--rm", "--no-TTY", "score", check=False)
    assert result.returncode == 1, result.stderr  # one file is broken, and the exit code says so
    with (folders[1] / "digits.csv").open(newline="") as table:
        rows = {Path(row["path"]).name: row for row in csv.DictReader(table)}
    assert len(rows) == len(samples.files()) + 1
    assert rows["broken.png"]["status"] == "error"
    expected = Reader().classify(samples.files())
    assert [rows[file.name]["digit"] for file in samples.files()] == [str(answer.digit) for answer in expected]


def test_the_server_is_not_root_and_cannot_write(compose: Compose) -> None:
    look = "import os; print(os.getuid()); open('/opt/scanline/x', 'w')"
    result = compose("exec", "--no-TTY", "serve", "/opt/scanline/bin/python", "-c", look, check=False)
    assert result.stdout == "10001\n"
    assert "Read-only file system" in result.stderr


def test_the_image_holds_the_base_install_alone(compose: Compose) -> None:
    look = "import importlib.util as u; print([n for n in ('torch', 'onnx', 'sklearn', 'pip') if u.find_spec(n)])"
    assert compose("exec", "--no-TTY", "serve", "/opt/scanline/bin/python", "-c", look).stdout == "[]\n"


def test_every_variable_in_the_file_is_a_setting(compose: Compose) -> None:
    services = json.loads(compose("--profile", "score", "config", "--format", "json").stdout)["services"]
    for service in services.values():
        known = compose("exec", "--no-TTY", "serve", "scanline", "serve", "--print-settings").stdout
        for name in service.get("environment") or {}:
            assert f"{name}=" in known


def test_stopping_is_in_good_order(compose: Compose) -> None:
    compose("stop", "serve")
    states = [json.loads(line) for line in compose("ps", "--all", "--format", "json").stdout.splitlines()]
    assert [state["ExitCode"] for state in states if state["Service"] == "serve"] == [0]
    container = compose("ps", "--all", "--quiet", "serve").stdout.strip()
    logs = subprocess.run(["docker", "logs", container], capture_output=True, text=True, check=True).stderr.splitlines()
    events = [json.loads(line) for line in logs]
    assert [event["event"] for event in events][-3:] == ["not serving", "draining", "stopped"]
    assert events[-1]["finished"] is True
