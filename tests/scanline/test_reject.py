"""Answers that should not be trusted, in the library, through a server and in the commands."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from scanline import AsyncClient, Client, InputError, Prediction, Reader, RejectReason, samples
from scanline.contract import METADATA_PREFIX
from scanline.model import find
from tests.serve.conftest import serving

NEVER = 1e6  # no energy is as large
SAMPLE = samples.files()[0]


def model_with(folder: Path, **reject: float) -> Path:
    """Copy the shipped float32 model with other thresholds in its card."""
    model = onnx.load(find(None).with_name("digits.onnx"))
    (entry,) = (entry for entry in model.metadata_props if entry.key == f"{METADATA_PREFIX}reject")
    entry.value = json.dumps(reject)
    onnx.save(model, folder / "digits.onnx")
    return folder / "digits.onnx"


@pytest.fixture(scope="module")
def lenient(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_with(tmp_path_factory.mktemp("lenient"))


@pytest.fixture(scope="module", params=["Reader", "Client"])
def lenient_engine(request: pytest.FixtureRequest, lenient: Path) -> Iterator[Reader | Client]:
    """A model without thresholds, in this process and behind a server."""
    if request.param == "Reader":
        yield Reader(lenient)
    else:
        with serving(model=lenient) as server, Client(server.address) as client:
            yield client


def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.png"
    Image.new("L", (200, 100), 255).save(path)
    return path


def test_a_page_without_ink_is_blank(lenient_engine: Reader | Client, tmp_path: Path) -> None:
    file, pixels, digit = lenient_engine.classify([page(tmp_path), np.zeros((28, 28), np.uint8), SAMPLE])
    for blank in (file, pixels):
        assert (blank.status, blank.rejected, blank.reason) == ("rejected", True, RejectReason.BLANK)
        assert blank.digit is not None
        assert blank.error is None
    assert (digit.status, digit.rejected, digit.reason) == ("ok", False, None)


def test_a_card_s_thresholds_reject(tmp_path: Path, lenient: Path) -> None:
    answer = Reader(lenient).classify(SAMPLE)[0]
    assert answer.confidence is not None
    for thresholds, reason in (
        ({"energy": NEVER}, RejectReason.NOT_A_DIGIT),
        ({"confidence": float(np.nextafter(answer.confidence, 1))}, RejectReason.LOW_CONFIDENCE),
        ({"energy": NEVER, "confidence": 1.0}, RejectReason.NOT_A_DIGIT),
        ({"energy": -NEVER, "confidence": answer.confidence - 1e-6}, None),
        ({"of another release": NEVER}, None),
    ):
        model = model_with(tmp_path, **thresholds)
        with serving(model=model) as server, Client(server.address) as client:
            for engine in (Reader(model), client):
                found, blank = engine.classify([SAMPLE, page(tmp_path)])
                assert (found.digit, found.reason, found.rejected) == (answer.digit, reason, reason is not None)
                assert blank.reason is RejectReason.BLANK


@pytest.mark.parametrize("bound", [98, -0.1, math.nan, "0.9"])
def test_a_min_confidence_that_is_none_is_refused(bound: Any) -> None:
    for engine in (Reader, partial(Client, "127.0.0.1:1"), partial(AsyncClient, "127.0.0.1:1")):
        with pytest.raises(InputError, match=r"min_confidence is from 0 to 1, .* not "):
            engine(min_confidence=bound)


def test_min_confidence_takes_the_place_of_the_card_s(tmp_path: Path) -> None:
    model = model_with(tmp_path, confidence=1.0)
    given: list[Any] = [SAMPLE, page(tmp_path), b"broken"]
    with serving(model=model) as server:
        for bound, expected in ((None, "low_confidence"), (0.5, None), (0.0, None), (1.0, "low_confidence")):
            with Client(server.address, min_confidence=bound) as client:
                for engine in (Reader(model, min_confidence=bound), client):
                    found, blank, broken = engine.classify(given)
                    assert (found.reason, found.rejected) == (expected, expected is not None)
                    assert blank.reason == "blank"
                    assert broken.status == "error"


@pytest.mark.parametrize("reason", [RejectReason.NOT_A_DIGIT, None], ids=["not a digit", "a later release's"])
def test_what_is_no_digit_stays_so_at_any_confidence(reason: RejectReason | None) -> None:
    answer = Prediction(digit=3, confidence=0.9, rejected=True, reason=reason)
    assert answer.held_to(0.5) == answer


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "scanline", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def test_the_commands_say_why(tmp_path: Path) -> None:
    blank = page(tmp_path)
    shown = command("classify", blank, SAMPLE, "--min-confidence", "1")
    assert shown.returncode == 0, shown.stderr
    words = " ".join(shown.stdout.split())
    assert "rejected: blank" in words
    assert "rejected: low_confidence" in words
    listed = [json.loads(line) for line in command("classify", blank, "--json").stdout.splitlines()]
    assert [(line["rejected"], line["reason"], line["status"]) for line in listed] == [(True, "blank", "rejected")]
    output = tmp_path / "out.csv"
    scored = command("score", blank, SAMPLE, "--output", output, "--min-confidence", "1")
    assert scored.returncode == 0, scored.stderr
    with output.open(encoding="utf-8", newline="") as file:
        rows = [(row["status"], row["reason"]) for row in csv.DictReader(file)]
    assert rows == [("rejected", "blank"), ("rejected", "low_confidence")]
    wrong = command("classify", blank, "--min-confidence", "1.5")
    assert wrong.returncode == 2
    assert "--min-confidence should be less than or equal to 1, not '1.5'" in wrong.stderr
