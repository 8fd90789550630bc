"""The examples, run as their readers run them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from scanline import samples
from serve.lifecycle import Server
from serve.settings import ServeSettings
from tests.serve.conftest import PATIENCE, serving
from tests.serve.test_credentials import Files

ROOT = Path(__file__).parents[2]
NO_NETWORK = re.compile("ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT|ENETUNREACH")
SAMPLES = samples.files()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def node_example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example for Node with its packages, in a folder of its own."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    root = tmp_path_factory.mktemp("node")
    shutil.copytree(ROOT / "protos", root / "protos")
    folder = Path(shutil.copytree(ROOT / "examples" / "node", root / "examples" / "node"))
    install = ["npm", "ci", "--no-audit", "--no-fund"]
    done = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    if NO_NETWORK.search(done.stderr):
        pytest.skip("npm can't reach its registry")
    assert done.returncode == 0, done.stderr
    return folder / "classify.js"


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


@pytest.mark.parametrize("name", ["classify.py", "tasks.py"])
def test_python(server: Server, name: str) -> None:
    done = run(sys.executable, ROOT / "examples" / "python" / name, "--server", server.address, *SAMPLES, "none.png")
    assert (done.returncode, done.stderr) == (1, "")  # for the file that is not there
    answers = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert answers.pop("none.png").startswith("can't read")
    assert {path: int(answer[0]) for path, answer in answers.items()} == {
        str(file): samples.label(file) for file in SAMPLES
    }


@pytest.mark.parametrize("name", ["classify.py", "tasks.py"])
def test_python_says_what_is_rejected(server: Server, name: str, tmp_path: Path) -> None:
    Image.new("L", (200, 100), 255).save(tmp_path / "page.png")
    done = run(sys.executable, ROOT / "examples" / "python" / name, "--server", server.address, tmp_path / "page.png")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(", but blank\n")


@pytest.mark.parametrize("name", ["classify.py", "tasks.py"])
def test_python_without_arguments_says_what_to_give(name: str) -> None:
    done = run(sys.executable, ROOT / "examples" / "python" / name)
    assert done.returncode == 2
    assert done.stderr == (
        f"usage: {name} [-h] [--server HOST:PORT] FILE [FILE ...]\n"
        f"{name}: error: the following arguments are required: FILE\n"
    )


@pytest.mark.parametrize("name", ["classify.py", "tasks.py", "rows.py"])
def test_python_asks_the_servers_own_default(name: str) -> None:
    done = run(sys.executable, ROOT / "examples" / "python" / name, "--help")
    assert f"default: {ServeSettings().listen}" in " ".join(done.stdout.split())


@pytest.mark.parametrize("name", ["classify.py", "tasks.py"])
def test_python_without_a_server_is_one_line(name: str) -> None:
    done = run(sys.executable, ROOT / "examples" / "python" / name, "--server", "127.0.0.1:1", *SAMPLES[:3])
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("no answer from 127.0.0.1:1: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["classify.py", "tasks.py"])
@pytest.mark.parametrize("address", ["localhost", "localhost:99999"])
def test_python_with_no_address_is_one_line(name: str, address: str) -> None:
    done = run(sys.executable, ROOT / "examples" / "python" / name, "--server", address, SAMPLES[0])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"'{address}' is no address: expected HOST:PORT")
    assert done.stderr.count("\n") == 1


def rows(server: str, file: str | Path, *options: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, ROOT / "examples" / "python" / "rows.py", "--server", server, *options, file)


@pytest.mark.parametrize("file", SAMPLES, ids=lambda file: file.stem)
def test_rows_answer_one_by_one_until_the_digit_is_sure(server: Server, file: Path) -> None:
    every = rows(server.address, file, "--sure", "1.1").stdout.splitlines()
    assert [line[:6] for line in every] == [f"row {row:2}" for row in range(1, 29)]
    assert every[-1].split()[2] == str(samples.label(file))

    few = rows(server.address, file, "--sure", "0.9")
    assert (few.returncode, few.stderr) == (0, "")
    confidences = [float(line.split()[3].rstrip("%")) for line in every]
    sure = next(row for row, confidence in enumerate(confidences) if confidence >= 90)
    assert few.stdout.splitlines() == every[: sure + 1]


@pytest.mark.parametrize(
    ("server_there", "file", "words"),
    [(True, "none.png", "can't read none.png: No such file"), (False, SAMPLES[0], "no answer from 127.0.0.1:1: ")],
)
def test_rows_without_a_file_or_a_server_is_one_line(
    server: Server, server_there: bool, file: str | Path, words: str
) -> None:
    done = rows(server.address if server_there else "127.0.0.1:1", file)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(words)
    assert done.stderr.count("\n") == 1


def test_node(server: Server, node_example: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"broken")
    files = [*SAMPLES * 8, broken]
    done = run("node", node_example, "--server", server.address, *files)
    assert done.returncode == 1, done.stderr
    *answers, last = map(json.loads, done.stdout.splitlines())
    assert [(answer["path"], answer["digit"]) for answer in answers] == [
        (str(file), samples.label(file)) for file in files[:-1]
    ]
    assert last == {"path": str(broken), "error": last["error"]}


def test_node_prints_what_its_readme_shows(server: Server, node_example: Path) -> None:
    for name in ("scanline/samples", "docs"):
        shutil.copytree(ROOT / name, node_example.parents[2] / name)
    session = (node_example.parent / "README.md").read_text(encoding="utf-8").split("    $ node classify.js ")[1]
    files, *lines = session.split("\n\n")[0].splitlines()
    line = ["node", node_example.name, "--server", server.address, *files.split()]
    done = subprocess.run(line, cwd=node_example.parent, capture_output=True, text=True, timeout=PATIENCE, check=False)
    answers, shown = ([json.loads(line) for line in printed] for printed in (done.stdout.splitlines(), lines))
    for answer in answers + shown:
        answer.pop("confidence", None)  # its last digits are the machine's
    assert (done.returncode, answers) == (1, shown)


def test_node_loses_no_file_to_another(server: Server, node_example: Path, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    large.write_bytes(bytes(3 * 2**20))  # several are more than a message may hold
    done = run("node", node_example, "--server", server.address, SAMPLES[0], "none.png", *[large] * 4, SAMPLES[1])
    assert done.returncode == 1, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["path"] for answer in answers if "error" in answer] == ["none.png", *[str(large)] * 4]
    assert [answer["digit"] for answer in answers if "digit" in answer] == [samples.label(file) for file in SAMPLES[:2]]


def test_node_without_arguments_says_what_to_give(node_example: Path) -> None:
    done = run("node", node_example)
    assert (done.returncode, done.stderr[:24]) == (2, "usage: node classify.js ")
    asked = run("node", node_example, "--help")
    assert (asked.returncode, asked.stdout) == (0, done.stderr)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--foo", "x.png"], "Unknown option '--foo'"),
        (["--server"], "argument missing"),
        (["--roots", "none.pem", "x.png"], "can't read --roots none.pem: "),
        (["--token-file", "none", "x.png"], "can't read --token-file none: "),
        (["--token-file", "{token}", "x.png"], "illegal characters"),
    ],
)
def test_node_used_wrongly_is_one_line(node_example: Path, tmp_path: Path, arguments: list[str], words: str) -> None:
    token = tmp_path / "token"
    token.write_text("correct\tho\0rse")
    done = run("node", node_example, *(argument.format(token=token) for argument in arguments))
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_node_with_tls_and_a_token(node_example: Path, tmp_path: Path) -> None:
    files, token = Files(tmp_path), tmp_path / "token"
    token.write_text("correct-horse\n")
    with serving(token_file=token, **files.settings()) as guarded:
        command = ("node", node_example, "--server", guarded.address, "--roots", files.roots)
        admitted = run(*command, "--token-file", token, SAMPLES[0])
        refused = run(*command, SAMPLES[0])
    assert json.loads(admitted.stdout)["digit"] == samples.label(SAMPLES[0])
    assert refused.returncode == 1
    assert "brings no token" in refused.stderr


def test_node_without_a_server(node_example: Path) -> None:
    done = run("node", node_example, "--server", "127.0.0.1:1", SAMPLES[0])
    assert done.returncode == 1
    assert done.stderr.startswith("no answer from 127.0.0.1:1: ")
