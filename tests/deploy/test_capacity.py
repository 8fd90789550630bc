"""docs/capacity.md says what deploy/capacity.py computes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "capacity.md").read_text()


def capacity(*arguments: str) -> str:
    command = [sys.executable, str(ROOT / "deploy" / "capacity.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_example_is_what_it_prints() -> None:
    assert "".join(f"    {line}\n" for line in capacity("1000").splitlines()) in DOCUMENT


@pytest.mark.parametrize("images", ["10", "1,000", "100,000"])
def test_the_table_is_what_it_prints(images: str) -> None:
    row = next(line for line in DOCUMENT.splitlines() if line.startswith(f"| {images} |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")][1:]
    for cost, cores, machines in (("220", *cells[:2]), ("43", *cells[2:])):
        printed = capacity(images.replace(",", ""), "--cpu-us", cost)
        assert float(re.findall(r"= ([\d.,e-]+) cores of work", printed)[0]) == pytest.approx(
            float(cores.removesuffix(" cores")), rel=0.06
        )
        assert f"= {machines.split(' + ')[0]}, and 1 to spare" in printed


@pytest.mark.parametrize("wrong", [["0"], ["10", "--busy", "1.5"], ["10", "--cores", "0"], ["10", "--spare", "-1"]])
def test_figures_that_mean_nothing_are_refused(wrong: list[str]) -> None:
    with pytest.raises(subprocess.CalledProcessError) as error:
        capacity(*wrong)
    assert error.value.returncode == 2
