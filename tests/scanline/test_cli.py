"""The command line as a person meets it: a process, its exit code, its words."""

from __future__ import annotations

import os
import pty
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pytest

import scanline
from scanline import samples
from scanline.cli import COMMANDS
from scanline.model import SHIPPED
from tests.faults.server import until
from tests.serve.conftest import PATIENCE


def command(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SCANLINE_")} | variables
    return subprocess.run(
        [sys.executable, "-m", "scanline", *arguments], capture_output=True, text=True, env=environment, check=False
    )


def test_no_command_lists_them_all() -> None:
    result = command()
    assert result.returncode == 2
    assert all(f"\n  {name} " in result.stdout for name in COMMANDS)
    assert command("--help").returncode == 0


def test_the_version_is_the_package_s() -> None:
    assert command("--version").stdout == f"scanline {scanline.__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    result = command(name, "--help")
    assert result.returncode == 0, result.stderr
    assert f"usage: scanline {name}" in result.stdout
    assert "Undefined" not in result.stdout
    assert "default: ;" not in " ".join(result.stdout.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_a_command_as_the_command_does(name: str) -> None:
    result, own = command("help", name), command(name, "--help")
    assert (result.returncode, result.stdout, result.stderr) == (0, own.stdout, own.stderr)


def test_help_alone_lists_them_all() -> None:
    result = command("help")
    assert (result.returncode, result.stdout) == (0, command("--help").stdout)


@pytest.mark.parametrize("words", [["clasify"], ["help", "clasify"]], ids=" ".join)
def test_an_unknown_command_is_wrong_use(words: list[str]) -> None:
    result = command(*words)
    assert result.returncode == 2
    assert result.stderr.startswith("error: no such command: clasify; there are ")


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["score", "scans"], "--output"),
        (["train"], "--out"),
        (["export", "run"], "--out"),
        (["preprocess", "seven.png"], "--out"),
    ],
    ids=["score", "train", "export", "preprocess"],
)
def test_a_missing_option_says_where_the_options_are_listed(words: list[str], option: str) -> None:
    result = command(*words)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"error: {option} is missing; see `scanline {words[0]} --help`\n"


def test_the_demo_s_server_has_nothing_of_the_user_s_settings(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = command(
            "demo",
            SCANLINE_LOG_LEVEL="warning",
            SCANLINE_TOKEN_FILE=str(tmp_path / "token"),
            SCANLINE_TLS_CERTIFICATE=str(tmp_path / "none.crt"),
            SCANLINE_TLS_KEY=str(tmp_path / "none.key"),
            SCANLINE_METRICS_LISTEN=f"127.0.0.1:{taken.getsockname()[1]}",
        )
    assert result.returncode == 0, result.stderr
    assert "12 of 12 image files read right" in result.stdout


@pytest.mark.parametrize("runs", [False, True])
def test_the_demo_that_is_asked_to_end_takes_its_server_with_it(runs: bool) -> None:
    line = [sys.executable, "-m", "scanline", "demo"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as demo:
        children = Path(f"/proc/{demo.pid}/task/{demo.pid}/children")
        while not children.read_text():
            assert demo.poll() is None  # each turn is a whole look: the server's start takes a millisecond
        server = int(children.read_text())
        process = Path(f"/proc/{server}")
        if runs:  # its own program, and no longer the demo's
            until(lambda: b"serve" in (process / "cmdline").read_bytes(), "the server's program starts")
            until(lambda: "cygrpc" in (process / "maps").read_text(), "the server starts")
        try:
            demo.terminate()
            assert demo.wait(PATIENCE) == 143
            assert not process.exists()
        finally:
            with suppress(ProcessLookupError):
                os.kill(server, signal.SIGKILL)


SCANLINE = shlex.join([sys.executable, "-m", "scanline"])
SAMPLE = samples.files()[0]


def shell(script: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    # output is kept back until there is enough of it, as it is for everyone who has not set this
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"} | variables
    return subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env=environment, cwd=folder, check=False
    )


@pytest.mark.parametrize("words", ["--version", "classify seven.png", "classify seven.png --json", "serve --help"])
def test_what_can_t_be_printed_fails_in_one_line(tmp_path: Path, words: str) -> None:
    shutil.copy(SAMPLE, tmp_path / "seven.png")
    full = shell(f"{SCANLINE} {words} > /dev/full", tmp_path)
    assert (full.returncode, full.stderr) == (1, "error: No space left on device\n")
    gone = shell(f"{SCANLINE} {words} | true; exit ${{PIPESTATUS[0]}}", tmp_path)
    assert (gone.returncode, gone.stderr) == (1, "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    "words", ["--version", "classify seven.png --json", "score seven.png --output table.csv", "health 127.0.0.1:1"]
)
def test_closed_streams_change_no_exit_code(tmp_path: Path, words: str, closed: str) -> None:
    shutil.copy(SAMPLE, tmp_path / "seven.png")
    result = shell(f"{SCANLINE} {words} {closed}", tmp_path)
    assert result.returncode == (1 if words.startswith("health") else 0), result.stderr
    assert "Traceback" not in result.stderr
    assert words.startswith("score") == (tmp_path / "table.csv").exists()


def test_a_list_on_closed_standard_input_is_empty(tmp_path: Path) -> None:
    closed, empty = (shell(f"{SCANLINE} score - --output table.csv {end}", tmp_path) for end in ["<&-", "< /dev/null"])
    assert (closed.returncode, closed.stderr) == (empty.returncode, empty.stderr)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_names_that_a_terminal_can_t_show_are_escaped(tmp_path: Path, encoding: str) -> None:
    shutil.copy(SAMPLE, tmp_path / "\N{SNOWMAN}.png")
    result = shell(f"{SCANLINE} classify ?.png", tmp_path, PYTHONIOENCODING=encoding)
    assert (result.returncode, result.stderr) == (0, "")
    assert r"\u2603.png" in result.stdout


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("classify *.png", 1),
        ("score . --output table.csv", 1),
        ('score seven --output "$(echo *.png)"/table.csv', 0),
        ("preprocess seven --out *.png", 0),
        ("preprocess *.png --out pictures", 1),
        ("info models/*", 0),
        ("verify models/*", 0),
        ("serve --print-settings --model *.png", 0),
    ],
)
def test_a_name_reaches_a_terminal_as_it_is_but_for_control_characters(tmp_path: Path, words: str, code: int) -> None:
    name = "[b]:eye:\x1b[2J\x1b]0;mine\x07\n\x9b1m"
    if words.startswith(("classify", "score .")):
        (tmp_path / f"{name}.png").write_text("no image")
    else:
        (tmp_path / f"{name}.png").mkdir()
    shutil.copytree(SHIPPED, tmp_path / "models" / f"{name}.png")
    shutil.copy(SAMPLE, tmp_path / "seven")
    result = shell(f"{SCANLINE} {words}", tmp_path, COLUMNS="200")
    assert result.returncode == code, result.stderr
    shown = result.stdout + result.stderr
    assert r"[b]:eye:\x1b[2J\x1b]0;mine\x07\n\x9b1m" in shown
    assert not set(shown) & {"\x1b", "\x07", "\x9b"}


def test_a_progress_bar_shows_a_name_as_it_is() -> None:
    work = "from scanline import console\nwith console.progress('files') as bar: bar.add_task('[b]/\x1b[2J', total=1)"
    ours, theirs = pty.openpty()
    try:
        subprocess.run([sys.executable, "-c", work], stderr=theirs, check=True, env=os.environ | {"COLUMNS": "80"})
        assert r"[b]/\x1b[2J" in os.read(ours, 4096).decode()
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("words", ["serve --print-settings", "train --help", "export --help"])
def test_modules_in_the_working_folder_are_not_taken_for_ours(tmp_path: Path, words: str) -> None:
    for name in ("serve", "train", "export"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not this one')")
    result = shell(f"{SCANLINE} {words}", tmp_path)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("words", ["score a.png --output table.csv", "preprocess a.png --out pictures"])
def test_a_working_folder_that_is_gone_is_named(tmp_path: Path, words: str) -> None:
    (tmp_path / "gone").mkdir()
    result = shell(f"cd gone && rmdir ../gone && {SCANLINE} {words}", tmp_path)
    assert (result.returncode, result.stderr) == (1, "error: the working folder: No such file or directory\n")


def test_a_misspelt_variable_stops_the_start() -> None:
    result = command("serve", "--print-settings", SCANLINE_LISTNE="0.0.0.0:1")
    assert result.returncode == 2
    assert "no such setting: SCANLINE_LISTNE" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("words", [["info"], ["verify"], ["serve", "--model"]], ids=lambda words: words[0])
def test_a_model_that_the_system_does_not_give_is_named(words: list[str]) -> None:
    path = "x" * 300  # stands for all that the system may refuse: root, which tests may be, has the right to any file
    result = command(*words, path)
    assert result.returncode in {1, 3}
    assert path in result.stderr.replace("\n", "")
    assert "File name too long" in result.stderr.replace("\n", " ")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "given",
    [
        "",
        "foo",
        "foo:",
        ":x",
        "50052",
        ":50052",
        "http://foo",
        "127.0.0.1:0",
        "127.0.0.1:99999",
        "http://a:65536",
        "http://a..b:8002",
    ],
)
def test_health_of_what_is_no_address_is_wrong_use(given: str) -> None:
    result = command("health", given)
    assert result.returncode == 2
    assert f"no address: {given}; it is HOST:PORT" in result.stderr


@pytest.mark.parametrize(
    "words", [["train"], ["export", "run"], ["preprocess", "seven.png"]], ids=lambda words: words[0]
)
@pytest.mark.parametrize("place", ["file", "file/sub", "file/sub/more"])
def test_a_folder_to_write_is_no_file(tmp_path: Path, words: list[str], place: str) -> None:
    (tmp_path / "file").touch()
    result = command(*words, "--out", str(tmp_path / place))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (f"error: --out is a file or lies in one; expected a folder, not '{tmp_path / place}'\n")


@pytest.mark.parametrize(
    ("words", "name", "meant"),
    [
        (["classify", "seven.png"], "SCANLINE_MODLE", "SCANLINE_CLASSIFY_MODEL"),
        (["classify", "seven.png"], "SCANLINE_SERVER", "SCANLINE_CLASSIFY_SERVER"),
        (["score", "scans"], "SCANLINE_SERVER", "SCANLINE_SCORE_SERVER"),
        (["score", "scans"], "SCANLINE_CLASSIFY_MODLE", "SCANLINE_CLASSIFY_MODEL"),
        (["serve"], "SCANLINE_MODLE", "SCANLINE_MODEL"),
        (["info", "edge"], "SCANLINE_LISTNE", "SCANLINE_LISTEN"),
    ],
)
def test_a_wrong_variable_is_told_the_one_that_the_command_reads(words: list[str], name: str, meant: str) -> None:
    result = command(*words, **{name: "x"})
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        f"error: no such setting: {name}; did you mean {meant}? `scanline COMMAND --help` lists them\n"
    )


def test_a_variable_like_no_other_gets_no_guess() -> None:
    result = command("classify", "seven.png", SCANLINE_FOO="x")
    assert result.stderr == "error: no such setting: SCANLINE_FOO; `scanline COMMAND --help` lists them\n"


def test_another_command_s_variable_is_no_mistake() -> None:
    result = command("serve", "--print-settings", SCANLINE_TRAIN_PRESET="edge")
    assert result.returncode == 0, result.stderr


def test_no_two_commands_read_the_same_variable() -> None:
    shared = {"SCANLINE_DATA"}  # where MNIST lies: training and exporting both want it
    seen: set[str] = set()
    for command_ in COMMANDS.values():
        module = import_module(command_.module)
        variables = module.Settings.variables() if hasattr(module, "Settings") else set()
        assert seen & variables <= shared, command_.module
        seen |= variables
    assert {"SCANLINE_DATA", "SCANLINE_LISTEN", "SCANLINE_TRAIN_PRESET"} <= seen


def without_torch(*arguments: str) -> subprocess.CompletedProcess[str]:
    # A None in sys.modules is how Python itself marks a module as not importable.
    code = "import sys; sys.modules['torch'] = None; from scanline.cli import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [("train", "--out", "run"), ("export", "run", "--out", "artifacts")])
def test_a_missing_extra_says_what_to_install(arguments: tuple[str, ...]) -> None:
    result = without_torch(*arguments)
    assert result.returncode == 2
    assert result.stderr == (
        f"error: `scanline {arguments[0]}` needs torch, which is not installed: "
        f"in a checkout of Scanline, pip install '.[{arguments[0]}]'\n"
    )


@pytest.mark.parametrize("name", ["train", "export"])
def test_a_command_explains_itself_without_its_extra(name: str) -> None:
    result = without_torch(name, "--help")
    assert result.returncode == 0, result.stderr
    assert "--out PATH" in result.stdout


def test_the_public_names_are_there() -> None:
    for name in scanline.__all__:
        assert getattr(scanline, name) is not None
        assert name in dir(scanline)  # what a prompt completes
    with pytest.raises(AttributeError, match="no attribute 'Raeder'"):
        _ = scanline.Raeder
