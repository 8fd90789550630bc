from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

from scanline.cli import main

HEADINGS = [
    "Training",
    "What is taken for what",
    "The most confident mistakes",
    "Accuracy after each row",
    "Calibration",
    "Under distortions",
    "Rejected as no digit",
    "The run",
]


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.headings: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in {"src", "href"}]

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "h2" and data.strip():
            self.headings.append(data)


def test_the_page_holds_every_part_and_asks_for_nothing(finished: Path) -> None:
    page = _Page()
    text = (finished / "report.html").read_text()
    page.feed(text)
    assert [heading for heading in page.headings if heading in HEADINGS] == HEADINGS
    assert len(page.sources) == 7
    assert all(source.startswith("data:image/svg+xml;base64,") for source in page.sources)
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert re.search(r"95&nbsp;% interval of the accuracy is \d+\.\d+% to \d+\.\d+%", text)


def test_a_run_of_one_epoch_is_a_point_in_each_chart(tmp_path: Path) -> None:
    assert main(["train", "--data", "uci", "--epochs", "1", "--out", str(tmp_path)]) == 0
    page = _Page()
    page.feed((tmp_path / "report.html").read_text())
    charts = base64.b64decode(page.sources[0].partition("base64,")[2]).decode()
    assert len(re.findall(r'<g clip-path="[^"]*">\s*<use ', charts)) == 2  # loss and accuracy; ticks are not clipped


def test_the_run_is_told_in_words(finished: Path) -> None:
    text = (finished / "report.html").read_text()
    assert re.search("<th>data<td>uci<tr>", text)
    assert re.search("<th>calibrated_by<td>-<tr>", text)
    assert re.search("<th>trial<td>(yes|no)<tr>", text)
    assert "In this trial" not in text


def test_the_json_agrees_with_the_other_files(finished: Path) -> None:
    report = json.loads((finished / "report.json").read_text())
    assert report["config"] == json.loads((finished / "config.json").read_text())
    assert report["figures"] == json.loads((finished / "figures.json").read_text())
    assert report["history"] == [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    measured = report["measurements"]
    assert measured["accuracy"] == report["figures"]["accuracy"]
    assert len(measured["rows"]) == 28
    assert measured["rows"][27] > measured["rows"][5]
    assert {entry["distortion"] for entry in measured["distorted"]} >= {"rotate", "blur", "noise"}
