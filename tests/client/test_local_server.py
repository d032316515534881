"""A server of one's own on this machine: what it is told, whom it serves, and that it does not stay behind."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from ciphershift.client.local_server import SECRETS, local_server
from ciphershift.errors import UnauthorizedError


def test_the_clients_secrets_are_not_in_the_servers_environment(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, "geheim")
    with local_server(models=zoo, allow_toy_parameters=True) as server:
        environment = Path(f"/proc/{server.pid}/environ").read_bytes()
    assert b"CIPHERSHIFT_STORAGE=" in environment
    assert b"geheim" not in environment


def test_a_server_with_a_tenant_answers_its_key_only(zoo: Path) -> None:
    with local_server(models=zoo, allow_toy_parameters=True, tenant="page") as server:
        assert server.api_key is not None
        assert server.api_key not in repr(server)
        for headers, status in (
            ({}, UnauthorizedError.http_status),
            ({"Authorization": f"Bearer {server.api_key}"}, 200),
        ):
            assert httpx.get(f"{server.url}/v2/jobs", headers=headers).status_code == status


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot ask for it")
def test_a_killed_parent_takes_its_server_along(zoo: Path) -> None:
    code = (
        "import sys; from ciphershift.client.local_server import local_server\n"
        "with local_server(models=sys.argv[1], allow_toy_parameters=True) as server:\n"
        "    print(server.pid, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(zoo)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        server = int(parent.stdout.readline())
        descriptor = os.pidfd_open(server)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        select.select([descriptor], [], [])  # until the server has ended; the limit is that of every test
        os.close(descriptor)
