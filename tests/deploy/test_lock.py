"""What the images install is what is tested: the locked versions are those of constraints.txt, and none is missing."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "deploy" / "lock").glob("*.txt"))
PIN = re.compile(r"^([\w.-]+)==([^\s;]+)", re.MULTILINE)


def pins(file: Path) -> dict[str, str]:
    return {name.lower().replace("_", "-"): version for name, version in PIN.findall(file.read_text())}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_the_versions_are_the_tested_ones(lock: Path) -> None:
    tested = pins(ROOT / "constraints.txt")
    locked = pins(lock)
    assert locked
    wrong = {name: version for name, version in locked.items() if version.split("+")[0] != tested.get(name, version)}
    assert not wrong, "run `make lock`"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_file_is_checked_by_its_hash(lock: Path) -> None:
    for block in re.split(r"\n(?=\S)", lock.read_text().strip()):
        assert "--hash=sha256:" in block, block.splitlines()[0]


@pytest.mark.parametrize(
    ("lock", "extras"), [("base", []), ("train-cpu", ["train", "export"]), ("train-cuda", ["train", "export"])]
)
def test_no_requirement_is_missing(lock: str, extras: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [line for extra in extras for line in project["optional-dependencies"][extra]]
    names = {re.split(r"[<>=\[]", line)[0].lower().replace("_", "-") for line in wanted}
    missing = names - set(pins(ROOT / "deploy" / "lock" / f"{lock}.txt"))
    assert not missing, "run `make lock`"
