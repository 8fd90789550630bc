"""Prints .env.example: what docker compose reads, and every SCANLINE_* setting. `make env-example` writes the file."""

from __future__ import annotations

import sys
import textwrap
from importlib import import_module
from typing import Final

from scanline.cli import COMMANDS
from scanline.settings import POSITIONAL, Settings, variable

HEAD: Final = """\
# Copy this to .env beside docker-compose.yml and uncomment what you change. Made by `make env-example`.

# What docker-compose.yml itself reads
# the port on the host; a range such as 50051-50053 for --scale serve=3, 0 for any free one
#PORT=50051
# what a server may use; messages, pictures and crowds are sized by it
#MEMORY=512m
#CPUS=1
# how long `docker compose stop` waits: more than SCANLINE_GRACE and SCANLINE_DRAIN_DELAY together
#STOP_GRACE=40s
# score: the folder that is read, the folder that is written, and the user and group that own the latter
#IMAGES=./images
#RESULTS=./results
#SCORE_USER=1000:1000
# serve-tls: its port, and the files of its certificate and key, which user 10001 must be able to read
#TLS_PORT=50443
#TLS_CERTIFICATE=./deploy/tls/server.crt
#TLS_KEY=./deploy/tls/server.key
# train and export: which build of torch, cuda or cpu, and where else than in the package index pip may look for it
#TORCH=cuda
#PIP_EXTRA_INDEX_URL=
# monitoring: the image, and its port on this host
#PROMETHEUS_IMAGE=prom/prometheus:v2.53.0
#PROMETHEUS_PORT=9090
# building: any Debian with Python 3.11 or later, and what `make image` writes into the image's labels
#BASE_IMAGE=python:3.11-slim-bookworm
#VERSION=unreleased
#REVISION=
#SOURCE=
#MODEL_SHA256=
"""
# Set by docker-compose.yml, to fit its ports.
FIXED: Final = {"SCANLINE_LISTEN", "SCANLINE_METRICS_LISTEN"}
WIDTH: Final = 118


def main() -> None:
    """Write to standard output."""
    sys.stdout.write(HEAD)
    for name, command in COMMANDS.items():
        # `serve.command` and the like need extras, the settings beside them do not
        place = command.module.removesuffix("command") + "settings" if command.extra else command.module
        settings = getattr(import_module(place), "Settings", None)
        lines = [] if settings is None else _lines(settings)
        if lines:
            sys.stdout.write(f"\n# scanline {name}\n" + "\n".join(lines) + "\n")


def _lines(settings: type[Settings]) -> list[str]:
    lines = []
    for field_name, field in settings.model_fields.items():
        name = variable(settings, field_name)
        if name in FIXED or (isinstance(field.json_schema_extra, dict) and POSITIONAL in field.json_schema_extra):
            continue
        default = "" if field.is_required() or field.default_factory or field.default is None else field.default
        note = "required" if field.is_required() else "by this machine unless set" if field.default_factory else ""
        text = "; ".join(filter(None, (field.description, note)))
        lines += [f"# {line}" for line in textwrap.wrap(text, WIDTH)]
        lines.append(f"#{name}={_value(default)}")
    return lines


def _value(default: object) -> str:
    if isinstance(default, tuple):
        return "[" + ",".join(f'"{item}"' for item in default) + "]"  # pydantic-settings reads JSON
    return str(default).lower() if isinstance(default, bool) else str(default)


main()
