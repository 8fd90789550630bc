"""TLS with certificates from secrets, and a real Prometheus that scrapes what compose serves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import trustme

from scanline import Client, samples
from scanline.client import Tls
from tests.compose.conftest import ON_AN_ENGINE, ROOT, Projects, free_port, inspect
from tests.faults.server import until

pytestmark = ON_AN_ENGINE

MONITORING = ROOT / "deploy" / "monitoring"
needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")), reason="prometheus is not installed"
)


def test_tls_with_a_certificate_from_secrets(project_of: Projects, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    certificate, key, roots = tmp_path / "server.crt", tmp_path / "server.key", tmp_path / "roots.crt"
    certificate.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    roots.write_bytes(authority.cert_pem.bytes())
    tmp_path.chmod(0o755)
    os.chown(key, 10001, 10001)  # the container's user
    key.chmod(0o400)

    port = free_port()
    project = project_of("tls", TLS_PORT=str(port), TLS_CERTIFICATE=str(certificate), TLS_KEY=str(key))
    project.up("serve-tls")  # healthy, so its health check gets through
    with Client(f"127.0.0.1:{port}", tls=Tls(roots=roots)) as client:
        assert [answer.digit for answer in client.classify(samples.files())] == list(
            map(samples.label, samples.files())
        )


@needs_prometheus
def test_promtool_accepts_the_rules() -> None:
    subprocess.run(["promtool", "check", "rules", MONITORING / "rules.yml"], capture_output=True, check=True)
    subprocess.run(
        ["promtool", "check", "config", "--syntax-only", MONITORING / "prometheus.yml"], capture_output=True, check=True
    )


@needs_prometheus
def test_prometheus_scrapes_the_server_and_its_rules_hold(project_of: Projects, tmp_path: Path) -> None:
    project = project_of("monitoring")
    project.up()
    networks = inspect(project.containers()[0])["NetworkSettings"]["Networks"]
    address = next(iter(networks.values()))["IPAddress"]  # the host is on the containers' bridge
    shutil.copy(MONITORING / "rules.yml", tmp_path)
    configuration = (MONITORING / "prometheus.yml").read_text()
    by_name = "    dns_sd_configs:\n      - {names: [serve], type: A, port: 8002, refresh_interval: 10s}\n"
    assert by_name in configuration  # compose's DNS answers containers alone, so the host is told the address
    by_address = f'    static_configs: [{{targets: ["{address}:8002"]}}]\n'
    configuration = configuration.replace(by_name, by_address).replace("interval: 15s", "interval: 1s")
    (tmp_path / "prometheus.yml").write_text(configuration)

    port = free_port()
    command = [
        "prometheus", f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    with Client(f"127.0.0.1:{project.port}") as client:
        client.classify(samples.files())
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as prometheus:
        try:
            until(lambda: value(port, "up") == 1, "the server has been scraped")
            until(lambda: (value(port, "sum(nv_inference_count)") or 0) >= len(samples.files()), "its images count")
            until(lambda: value(port, "scanline:images:rate5m") is not None, "the recording rules are computed")
            assert value(port, 'count(ALERTS{alertstate="firing"})') is None
        finally:
            prometheus.terminate()


def value(port: int, query: str) -> float | None:
    """Ask Prometheus for a number; None where there is none."""
    address = f"http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:
            result = json.load(answer)["data"]["result"]
    except OSError:  # it is starting
        return None
    return float(result[0]["value"][1]) if result else None
