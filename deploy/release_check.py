"""`make release-check`: is this checkout fit to be released? It is built, installed elsewhere and tried.

Each step prints what it found; the first that fails ends it with exit code 1.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Final, NoReturn

ROOT: Final = Path(__file__).parents[1]
VERSION_FILE: Final = ROOT / "scanline" / "__init__.py"
DIST: Final = ROOT / "dist"
# Asked in the clean environment, so that it is what ships.
LICENCES: Final = """
import importlib.metadata as m, json
def licence(d):
    told = d.metadata
    names = [c.split(" :: ")[-1] for c in told.get_all("Classifier") or [] if c.startswith("License :: OSI")]
    return told["License-Expression"] or ", ".join(names) or (told["License"] or "").partition("\\n")[0]
ships = [d for d in m.distributions() if d.name not in ("pip", "setuptools")]
print(json.dumps(sorted((d.name, d.version, licence(d)) for d in ships)))
"""


def main() -> None:
    """Run the steps."""
    version = _version()
    _changelog(version)
    wheel = _build(version)
    with tempfile.TemporaryDirectory() as elsewhere:
        python = _install(wheel, Path(elsewhere))
        _try(python, version, Path(elsewhere))
        _licences(python)
    _image(version)
    _say("fit to be released", version)


def _version() -> str:
    version = re.findall(r'^__version__ = "(.+)"$', VERSION_FILE.read_text(), re.MULTILINE)[0]
    said = rf"version(__)?\s*[:=]\s*[\"']?{re.escape(version)}\b"
    tracked = _run("git", "grep", "-lE", said)
    if tracked.split() != [str(VERSION_FILE.relative_to(ROOT))]:
        _fail(f"the version {version} is in more than one place: {', '.join(tracked.split())}")
    _say("version", f"{version}, in {VERSION_FILE.relative_to(ROOT)} alone")
    return version


def _changelog(version: str) -> None:
    entries = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    entry = next((entry for entry in entries if entry.split()[:1] == [version]), "")
    if "\n- " not in entry:
        _fail(f"CHANGELOG.md has no entry for {version}")
    _say("changelog", entry.splitlines()[0])


def _build(version: str) -> Path:
    shutil.rmtree(DIST / "release", ignore_errors=True)
    _run(sys.executable, "-m", "build", "--outdir", str(DIST / "release"))
    wheel, source = (next((DIST / "release").glob(pattern)) for pattern in ("*.whl", "*.tar.gz"))
    with zipfile.ZipFile(wheel) as archive:
        inside = archive.namelist()
    strange = {name.split("/")[0] for name in inside} - {
        "scanline",
        "train",
        "export",
        "serve",
        f"scanline-{version}.dist-info",
    }
    if strange:
        _fail(f"the wheel holds {', '.join(sorted(strange))}")
    with tarfile.open(source) as archive:
        if not any(name.endswith("/pyproject.toml") for name in archive.getnames()):
            _fail("the sdist holds no pyproject.toml")
    _say(
        "built",
        f"{wheel.name} ({wheel.stat().st_size / 1e6:.2f} MB), {source.name} ({source.stat().st_size / 1e6:.2f} MB)",
    )
    return wheel


def _install(wheel: Path, elsewhere: Path) -> str:
    python = str(elsewhere / "venv" / "bin" / "python")
    _run(sys.executable, "-m", "venv", str(elsewhere / "venv"))
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    _run(
        *pip, "--only-binary", ":all:", "--require-hashes", "--requirement", str(ROOT / "deploy" / "lock" / "base.txt")
    )
    _run(*pip, "--no-deps", "--no-index", str(wheel))
    _run(python, "-m", "pip", "check")
    return python


def _try(python: str, version: str, elsewhere: Path) -> None:
    scanline = str(Path(python).with_name("scanline"))
    if _run(scanline, "--version", folder=elsewhere) != f"scanline {version}\n":
        _fail("the installed command has another version")
    place = _run(python, "-c", "import scanline; print(scanline.__file__)", folder=elsewhere)
    if not place.startswith(str(elsewhere)):
        _fail(f"the installed package is not the one that is used: {place}")
    for name in ("edge", "accurate"):
        _run(scanline, "verify", name, folder=elsewhere)
    _say("models in the wheel", "edge and accurate compute their golden vectors")
    shown = _run(scanline, "demo", folder=elsewhere).splitlines()
    _say("demo from the wheel", next(line for line in shown if "read right" in line).strip())


def _licences(python: str) -> None:
    packages = json.loads(_run(python, "-c", LICENCES))
    unknown = [name for name, _, licence in packages if not licence]
    _say("licences of what ships", "")
    for name, version, licence in packages:
        sys.stdout.write(f"    {name} {version}: {licence}\n")
    if unknown:
        _fail(f"no licence is given for {', '.join(unknown)}")


def _image(version: str) -> None:
    if not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        _say("image", "not built: no Docker Engine answers here")
        return
    _run("make", "image")
    image = json.loads(_run("docker", "inspect", "scanline"))[0]
    if image["Config"]["Labels"]["org.opencontainers.image.version"] != version:
        _fail("the image's label has another version")
    _say("image", f"{image['Size'] / 1e6:.0f} MB with its base")


def _run(*command: str, folder: Path = ROOT) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SCANLINE_", "PYTHON"))}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        _fail(f"`{' '.join(command)}` gave {result.returncode}:\n{result.stdout}{result.stderr}")
    return result.stdout


def _say(what: str, found: str) -> None:
    sys.stdout.write(f"{what}: {found}\n")
    sys.stdout.flush()


def _fail(reason: str) -> NoReturn:
    sys.exit(f"not fit to be released: {reason}")


main()
