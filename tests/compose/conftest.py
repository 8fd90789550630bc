"""docker compose on a real engine: a project of containers for the tests of a module, and what they ask of it."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PORTS = (20_000, 32_000)


def _engine_is_missing() -> str:
    for command in (["docker", "compose", "version"], ["docker", "info"]):
        try:
            result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        except FileNotFoundError:
            return "docker is not installed"
        if result.returncode:
            return f"`{' '.join(command)}` fails: no Docker Engine with Compose 2 answers here"
    return ""


MISSING = _engine_is_missing()
ON_AN_ENGINE = [
    pytest.mark.skipif(bool(MISSING), reason=MISSING or "an engine answers"),
    pytest.mark.timeout(900),  # the first build downloads the base install
]


def free_port(count: int = 1) -> int:
    """Give a free port, the first of so many in a row.

    They lie below those that the kernel hands out, which the other tests' servers may get before a container is up.
    """
    while True:
        first = random.randrange(*PORTS)
        with ExitStack() as probes, suppress(OSError):
            for port in range(first, first + count):
                probes.enter_context(socket.create_server(("", port)))
            return first


class Project:
    """A compose project of its own: its containers, network and volumes are nobody else's.

    Attributes:
        port: where its server is on this host.
        command: how compose is called for it.
        environment: with what variables.
    """

    def __init__(self, name: str, settings: dict[str, str], folder: Path, **variables: str) -> None:
        """Name it.

        Args:
            name: tells it, and its images, from the other tests'.
            settings: SCANLINE_* variables of the server.
            folder: for the file that says so.
            variables: what docker-compose.yml reads, such as PORT.
        """
        self.port = free_port()
        self.images = [f"scanline-test-{name}", f"scanline-test-{name}-train"]
        services = {service: {"image": self.images[0]} for service in ("serve", "serve-tls", "score")}
        services |= {service: {"image": self.images[1]} for service in ("train", "export")}
        override = {"services": services | {"serve": {"image": self.images[0], "environment": settings}}}
        (folder / "override.json").write_text(json.dumps(override))
        self.command = [
            "docker", "compose", "--project-name", f"scanline-test-{name}",
            "--file", str(ROOT / "docker-compose.yml"), "--file", str(folder / "override.json"),
        ]  # fmt: skip
        self.environment = os.environ | {"PORT": str(self.port)} | variables

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            [*self.command, *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0 or not check, f"{arguments}: {result.stdout}\n{result.stderr}"
        return result

    def up(self, *arguments: str) -> None:
        self.run("up", "--detach", "--wait", *arguments)

    def inside(self, code: str, service: str = "serve", *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run Python in a container."""
        return self.run("exec", "--no-TTY", service, "/opt/scanline/bin/python", "-c", code, check=check)

    def containers(self, service: str = "serve") -> list[str]:
        return self.run("ps", "--all", "--quiet", service).stdout.split()

    def state(self, service: str = "serve") -> dict[str, Any]:
        return dict(inspect(self.containers(service)[0])["State"])

    def events(self, service: str = "serve") -> list[dict[str, Any]]:
        """Give the log lines of a service's container."""
        logs = subprocess.run(
            ["docker", "logs", self.containers(service)[0]], capture_output=True, text=True, check=True
        )
        return [json.loads(line) for line in logs.stderr.splitlines()]

    def down(self) -> None:
        everything = [f"--profile={name}" for name in ("score", "train", "export", "tls", "monitoring")]
        self.run(*everything, "down", "--volumes", "--remove-orphans", "--timeout", "10")
        subprocess.run(["docker", "image", "rm", "--force", *self.images], capture_output=True, check=False)


def inspect(thing: str) -> dict[str, Any]:
    """Ask the engine about a container or an image."""
    result = subprocess.run(["docker", "inspect", thing], capture_output=True, text=True, check=True)
    return dict(json.loads(result.stdout)[0])


Projects = Callable[..., Project]


@pytest.fixture(scope="module")
def project_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Projects]:
    """Make projects, which are taken down after the module's tests."""
    made: list[Project] = []

    def make(name: str, settings: dict[str, str] | None = None, **variables: str) -> Project:
        project = Project(name, settings or {}, tmp_path_factory.mktemp(name), **variables)
        project.down()  # a run of the tests that was killed has left its containers and volumes
        made.append(project)
        return project

    yield make
    for project in made:
        project.down()
