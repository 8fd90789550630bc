"""`scanline demo`: starts a server with the shipped model, sends it sample images over gRPC, shows what came back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.columns import Columns
from rich.panel import Panel
from rich.text import Text

from scanline import samples, signals
from scanline.client import Client
from scanline.console import err, out
from scanline.errors import StartError
from scanline.prediction import Prediction
from scanline.preprocess import to_rows
from scanline.settings import ENVIRONMENT_PREFIX
from scanline.settings import Settings as BaseSettings

STOP_TIMEOUT: Final = 30.0
# A cell of a terminal is about twice as high as it is wide: one character shows two rows of pixels.
HALVES: Final = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}
INK: Final = 100
MARGIN: Final = 3
WIDTH: Final = 26
MOST_WIDTH: Final = 4 * (WIDTH + 1)  # of the pictures in a row, the spaces between them included


class Settings(BaseSettings):
    """Serve the model that ships with the package on a free port, send it the sample images, show its answers."""


def run(_: Settings) -> int:
    """Show each sample as the network sees it, with the server's answer."""
    signals.end_in_good_order()  # else SIGTERM would leave the server behind
    files = samples.files()
    with _server() as address, Client(address) as client:
        model = client.model()
        card = model.card
        out.print(
            "serving",
            Text(card.name, "bold"),
            f"({card.architecture}, {card.precision}, {card.parameters:,} weights, "
            f"{card.accuracy:.2%} on MNIST's test set; version {model.version}) on {address}",
            end="\n\n",
        )
        client.classify(files[:1])  # opens the connection, so that the time below is the server's
        started = time.perf_counter()
        answers = client.classify(files)
        took = time.perf_counter() - started
    shown = Columns([_show(file, answer) for file, answer in zip(files, answers, strict=True)])
    out.print(shown, width=min(out.width, MOST_WIDTH))
    right = sum(answer.digit == samples.label(file) for file, answer in zip(files, answers, strict=True))
    out.print()
    out.print(f"{right} of {len(files)} image files read right over gRPC in {took * 1000:.0f} ms, decoding included")
    steps = "next: scanline classify YOUR_FILE.png    scanline serve    scanline score FOLDER --output OUT.csv"
    out.print(Text(steps, "dim"))
    return 0 if right == len(files) else 1


@contextmanager
def _server() -> Iterator[str]:
    """Run `scanline serve` on a free port as a process of its own; give its address."""
    command = [sys.executable, "-m", "scanline", "serve", "--listen", "127.0.0.1:0", "--log-format", "json"]
    # a log level, a token or a certificate of the user's own server would keep the demo from its server
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ENVIRONMENT_PREFIX)}
    with ExitStack() as end:
        with signals.deferred() as asked:  # an end amid its start would leave it behind
            process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)  # noqa: S603 - no shell, and every word of it is written above
            end.callback(_stop, process)
        if asked:
            raise signals.ending(asked[0])
        yield _address(process)


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.communicate(timeout=STOP_TIMEOUT)


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            err.print(line.rstrip())  # a start that failed says why in plain words
            continue
        if event["event"] == "serving":
            return str(event["address"])
    raise StartError("the demo's server did not start")


def _show(file: Path, answer: Prediction) -> Panel:
    if answer.error is not None or answer.confidence is None:
        return Panel(Text(str(answer.error), "red"), title=file.stem, width=WIDTH)
    colour = "green" if answer.digit == samples.label(file) else "red"
    caption = Text.assemble((str(answer.digit), f"bold {colour}"), f" · {answer.confidence:.1%}")
    return Panel(Text(_picture(to_rows(file))), title=file.stem, subtitle=caption, width=WIDTH)


def _picture(rows: NDArray[np.uint8]) -> str:
    """Draw the middle of uint8 [28, 28], where the ink is, as 11 lines of 22 characters."""
    ink = rows[MARGIN:-MARGIN, MARGIN:-MARGIN] > INK
    return "\n".join(
        "".join(HALVES[bool(upper), bool(lower)] for upper, lower in zip(ink[y], ink[y + 1], strict=True))
        for y in range(0, len(ink), 2)
    )
