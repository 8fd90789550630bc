""".env.example and docker-compose.yml: every setting is one, and every one is documented."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from scanline.cli import COMMANDS

ROOT = Path(__file__).parents[2]
EXAMPLE = (ROOT / ".env.example").read_text()
COMPOSE = "".join(file.read_text() for file in [ROOT / "docker-compose.yml", *(ROOT / "deploy").glob("*.yml")])
DOCUMENTED = set(re.findall(r"^#([A-Z][A-Z0-9_]*)=", EXAMPLE, re.MULTILINE))


def settings() -> set[str]:
    names: set[str] = set()
    for command in COMMANDS.values():
        module = import_module(command.module)
        names |= module.Settings.variables() if hasattr(module, "Settings") else set()
    return names


def test_it_is_what_the_settings_make_of_it() -> None:
    made = subprocess.run(
        [sys.executable, ROOT / "deploy" / "env_example.py"], capture_output=True, text=True, check=True
    )
    assert made.stdout == EXAMPLE, "run `make env-example`"


def test_every_variable_is_a_setting_and_every_setting_a_variable() -> None:
    set_by_compose = {"SCANLINE_LISTEN", "SCANLINE_METRICS_LISTEN"}
    assert {name for name in DOCUMENTED if name.startswith("SCANLINE_")} == settings() - set_by_compose


def test_every_variable_in_the_compose_files_is_a_setting() -> None:
    used = set(re.findall(r"\bSCANLINE_[A-Z_]+", re.sub(r"#.*", "", COMPOSE)))
    assert {"SCANLINE_LISTEN", "SCANLINE_METRICS_LISTEN"} <= used <= settings()


def test_what_the_compose_files_read_is_documented() -> None:
    read = set(re.findall(r"\$\{([A-Z0-9_]+)", COMPOSE))
    assert read == {name for name in DOCUMENTED if not name.startswith("SCANLINE_")}


def test_what_compose_builds_is_of_this_checkout_and_says_so() -> None:
    compose = (ROOT / "docker-compose.yml").read_text()
    builds = re.findall(r"\n    pull_policy: build.*\n(?:    profiles: .*\n)?    build:\n((?:      .*\n)+)", compose)
    assert len(builds) == compose.count("\n    build:\n") == 2
    for build in builds:
        assert "<<: *build\n" in build
        assert "args:" not in build or "<<: *args" in build  # else there is no VERSION, REVISION, SOURCE, MODEL_SHA256


def test_the_dockerfile_s_variables_are_settings() -> None:
    assert set(re.findall(r"\bSCANLINE_[A-Z_]+", (ROOT / "Dockerfile").read_text())) <= settings()
