"""Several servers: a client in the network finds all of them, and loses nothing when one is killed."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.compose.conftest import ON_AN_ENGINE, Project, Projects, free_port
from tests.faults.server import until

pytestmark = ON_AN_ENGINE

REPLICAS = 3
# A client on compose's network: the name `serve` leads to all replicas. It says how far it is, and what was wrong.
CLIENT = """
import sys
import numpy as np
from scanline import Client, Reader, samples
from scanline.preprocess import to_rows
images = np.stack([to_rows(file) for file in samples.files()])
with Reader() as reader:
    expected = [answer.digit for answer in reader.classify(images)]
wrong = 0
with Client("serve:50051", timeout=60) as client:
    for turn in range(600):
        wrong += [answer.digit for answer in client.classify(images)] != expected
        if turn % 100 == 0:
            print(turn, flush=True)
print("wrong", wrong, flush=True)
"""


@pytest.fixture(scope="module")
def project(project_of: Projects) -> Project:
    ports = REPLICAS + 6
    first = free_port(ports)
    project = project_of("scale", PORT=f"{first}-{first + ports - 1}")
    project.up()  # as docs/compose.md says: several that fill a new volume at once can fail (moby/moby#43068)
    project.up("--scale", f"serve={REPLICAS}")
    return project


def images_of(project: Project, index: int) -> int:
    """Count the images that a replica has read."""
    look = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8002/metrics').read().decode())"
    command = ["exec", "--no-TTY", "--index", str(index), "serve", "/opt/scanline/bin/python", "-c", look]
    metrics = project.run(*command).stdout.splitlines()
    return sum(int(float(line.split()[-1])) for line in metrics if line.startswith("nv_inference_count{"))


def test_all_of_them_have_a_port_on_the_host(project: Project) -> None:
    lines = project.run("ps", "--format", "json", "serve").stdout.splitlines()
    ports = {json.loads(line)["Publishers"][0]["PublishedPort"] for line in lines}
    assert len(ports) == REPLICAS


def test_killing_one_under_load_loses_no_answer(project: Project) -> None:
    before = [images_of(project, index) for index in range(1, REPLICAS + 1)]
    command = ["exec", "--no-TTY", "--index", "1", "serve", "/opt/scanline/bin/python", "-c", CLIENT]
    with subprocess.Popen(
        [*project.command, *command], env=project.environment, stdout=subprocess.PIPE, text=True
    ) as client:  # it runs beside replica 1 and asks all of them
        assert client.stdout is not None
        assert client.stdout.readline() == "0\n"
        until(
            lambda: all(images_of(project, index) > before[index - 1] for index in range(1, REPLICAS + 1)),
            "all replicas have answered",
        )
        victim = project.run("ps", "--format", "json", "serve").stdout.splitlines()
        name = next(n for n in (json.loads(line)["Name"] for line in victim) if n.endswith("-2"))
        subprocess.run(["docker", "kill", "--signal", "KILL", name], capture_output=True, check=True)
        output = client.stdout.read()
    assert client.returncode == 0
    assert output.splitlines()[-1] == "wrong 0"
