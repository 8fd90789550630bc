"""Where a run says that its code came from."""

from __future__ import annotations

import shutil
import subprocess
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from train import origin


def source_revision(path: Path) -> str:
    spec = spec_from_file_location("elsewhere", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    revision: str = module.source_revision()
    return revision


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_another_project_s_checkout_is_not_taken_for_our_own(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        done = subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init")
    git("commit", "--allow-empty", "--message", "another project")
    installed = tmp_path / "venv" / "train" / "origin.py"
    installed.parent.mkdir(parents=True)
    shutil.copy(origin.__file__, installed)
    assert source_revision(installed) == "unknown"
    git("add", ".")
    git("commit", "--message", "its own now")
    assert source_revision(installed) == git("rev-parse", "HEAD")
