"""The configuration of a proxy before the server, with the proxy itself."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift.benchmarks.harness.server_process import ServerProcess
from ciphershift.client import Client, Keystore
from ciphershift.client.jobs import JobStatus

PROXIES = Path(__file__).resolve().parents[2] / "deploy" / "proxies"
EVALUATION_KEYS = 13 << 20


def test_nginx_passes_large_uploads_and_each_event_at_once(
    server: ServerProcess, keystore: Keystore, tiny_images: NDArray[np.uint8], tmp_path: Path
) -> None:
    """But for TLS, the file as it is; a server that refuses a body itself says so in its own words."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("no nginx: install it")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    site = (PROXIES / "nginx.conf").read_text()
    for line in ("ssl_certificate ", "ssl_certificate_key "):
        site = "\n".join(each for each in site.splitlines() if line not in each)
    for before, after in (("listen 443 ssl", f"listen 127.0.0.1:{port}"), ("http://127.0.0.1:8000", server.url)):
        assert site.count(before) == 1
        site = site.replace(before, after)
    temporary = "".join(
        f"{name}_temp_path {tmp_path}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    whole = f"daemon off; pid {tmp_path}/pid; events {{}} http {{ access_log off; {temporary}\n{site}\n}}"
    (tmp_path / "nginx.conf").write_text(whole)
    command = [program, "-c", str(tmp_path / "nginx.conf"), "-e", str(tmp_path / "errors"), "-p", str(tmp_path)]
    nginx = subprocess.Popen(command)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 30
        while nginx.poll() is None and time.monotonic() < deadline:
            try:
                if httpx.get(f"{url}/v2/health/live").is_success:
                    break
            except httpx.TransportError:
                time.sleep(0.05)
        large = httpx.put(f"{url}/v2/keys/{'ab' * 32}", content=bytes(EVALUATION_KEYS))
        assert large.headers["Content-Type"] == "application/problem+json", large.text
        statuses: list[JobStatus] = []
        with Client(url, model="tiny", keystore=keystore, allow_toy_parameters=True) as client:
            job = client.submit(tiny_images)
            job.wait(on_progress=statuses.append)
            assert job.result().shape == (len(tiny_images), 3)
        assert statuses
        assert statuses[-1].state == "completed"
    finally:
        nginx.terminate()
        assert nginx.wait(timeout=30) == 0
