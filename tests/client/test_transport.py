"""The way to the server: where an API key may go, whom the client believes, and what it takes from a server that is odd."""

import asyncio
import gzip
import logging
import socket
import ssl
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Thread

import pytest
import trustme

from ciphershift import errors
from ciphershift.benchmarks.harness.server_process import running_server
from ciphershift.client import AsyncClient, Client, Keystore
from ciphershift.client import _transport as transport
from ciphershift.client._requests import Request, Steps
from ciphershift.client._transport import Address, AsyncTransport, SyncTransport

API_KEY = "csk_0123abcd_" + "s" * 43
OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000",
        "http://127.8.9.10",
        "http://[::1]:8000",
        "http://localhost:8000",
        "http://he.localhost",
        "https://he.example.org",
        "https://192.0.2.1:8443",
    ],
)
def test_an_api_key_goes_over_https_or_stays_on_this_machine(url: str) -> None:
    assert Address(url, api_key=API_KEY).options()["headers"]["Authorization"] == f"Bearer {API_KEY}"


@pytest.mark.parametrize(
    "url",
    [
        "http://he.example.org",
        "http://192.0.2.1:8000",
        "http://0.0.0.0:8000",
        "http://127.0.0.1.example.org",
        "http://localhost.example.org",
        "http://[2001:db8::1]",
        "HTTP://he.example.org",
    ],
)
def test_an_api_key_never_crosses_a_network_in_clear(url: str) -> None:
    with pytest.raises(errors.InsecureTransportError, match="use https://"):
        Client(url, api_key=API_KEY)
    Client(url).close()


def test_the_key_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIPHERSHIFT_API_KEY", f"{API_KEY}\n")
    with pytest.raises(errors.InsecureTransportError):
        Client("http://he.example.org")


@pytest.mark.parametrize(
    "url", ["", "he.example.org", "ftp://he.example.org", "http://", "https://me:pw@he.example.org", "http://a\x00b"]
)
def test_an_address_that_is_none_is_said_so(url: str) -> None:
    with pytest.raises(errors.UnreachableError, match="address") as raised:
        Client(url)
    assert "pw" not in raised.value.message


@pytest.mark.parametrize("key", ["csk_a\r\nX-Other: 1", "csk_é", "csk_\x00"])
def test_a_key_that_cannot_be_one_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(errors.UnauthorizedError) as raised:
        Client("http://127.0.0.1", api_key=key)
    assert "csk" not in raised.value.message


def test_the_key_is_in_no_log_and_no_representation(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with odd_server(lambda connection, _: connection.sendall(OK + b"Content-Length: 2\r\n\r\n{}")) as url:
        with Client(url, model="m", api_key=API_KEY) as client, pytest.raises(errors.MalformedError) as raised:
            client.profile()
        shown = f"{client!r} {vars(client)!r} {client._address} {raised.value!r}"
    assert caplog.text
    assert API_KEY not in caplog.text + shown
    assert "s" * 43 not in caplog.text + shown


def test_a_proxy_of_the_environment_does_not_see_what_stays_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    with odd_server(lambda connection, _: connection.sendall(OK + b"Content-Length: 2\r\n\r\nhi")) as url:
        assert get(url) == b"hi"


# Certificates


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Files of the authority, of the server's certificate and of its key."""
    folder = tmp_path_factory.mktemp("tls")
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "key.pem").chmod(0o600)
    for blob in issued.cert_chain_pems:
        blob.write_to_path(folder / "certificate.pem", append=True)
    return folder / "ca.pem", folder / "certificate.pem", folder / "key.pem"


def test_a_real_server_is_believed_by_its_certificate(
    tls: tuple[Path, Path, Path], zoo: Path, keystore: Keystore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca_file, certificate, key = tls
    settings = {"models": zoo, "allow_toy_parameters": True, "tls_certificate": certificate, "tls_key": key}
    with running_server(wait_until_ready=False, **settings) as server:
        assert server.url.startswith("https://")
        wait_until_listening(int(server.url.rpartition(":")[2]))
        with Client(server.url, model="tiny", ca_file=ca_file, allow_toy_parameters=True) as client:
            assert client.profile().model == "tiny"
        with Client(server.url) as client, pytest.raises(errors.UntrustedServerError, match="CIPHERSHIFT_CA_FILE"):
            client.profile()
        monkeypatch.setenv("CIPHERSHIFT_CA_FILE", str(ca_file))

        async def profile() -> str:
            async with AsyncClient(server.url, model="tiny", allow_toy_parameters=True) as client:
                return (await client.profile()).model

        assert asyncio.run(profile()) == "tiny"


def wait_until_listening(port: int) -> None:
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.1)


def test_a_certificate_for_another_name_is_refused(tls: tuple[Path, Path, Path], authority: trustme.CA) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("he.example.org").configure_cert(context)
    with (
        odd_server(lambda connection, _: None, context) as url,
        pytest.raises(errors.UntrustedServerError, match="127"),
    ):
        get(url, ca_file=tls[0])


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_a_file_without_certificates_is_said_so(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(errors.UntrustedServerError, match=r"ca\.pem"):
        Client("https://he.example.org", ca_file=path)


# Odd servers


@contextmanager
def odd_server(answer: Callable[[socket.socket, bytes], None], context: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server that reads a request's head and does what it likes."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = False

    def serve() -> None:
        while not over:
            connection, _ = listener.accept()
            connection.settimeout(10)
            with connection:
                try:
                    channel = context.wrap_socket(connection, server_side=True) if context else connection
                    head = b""
                    while not over and b"\r\n\r\n" not in head and (data := channel.recv(1 << 16)):
                        head += data
                    if head:
                        answer(channel, head)
                except OSError:
                    pass

    thread = Thread(target=serve)
    thread.start()
    scheme = "https" if context else "http"
    try:
        yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        over = True
        socket.create_connection(listener.getsockname()).close()
        thread.join()
        listener.close()


def fetch(limit: int = 1 << 20, silence: float = 5.0) -> Steps[bytes]:
    response = yield Request(method="GET", path="/", answer_limit=limit, silence_seconds=silence)
    return response.content


def get(url: str, *, ca_file: Path | None = None, limit: int = 1 << 20, silence: float = 5.0) -> bytes:
    with closing(SyncTransport(Address(url, ca_file=ca_file))) as transport:
        return transport.run(fetch(limit, silence))


async def get_async(url: str, limit: int) -> bytes:
    transport = AsyncTransport(Address(url))
    try:
        return await transport.run(fetch(limit))
    finally:
        await transport.close()


def endless(connection: socket.socket, _: bytes) -> None:
    connection.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")


def test_an_endless_answer_ends_at_its_limit() -> None:
    tracemalloc.start()
    with odd_server(endless) as url:
        with pytest.raises(errors.TooLargeError, match="1048576"):
            get(url)
        with pytest.raises(errors.TooLargeError):
            asyncio.run(get_async(url, 1 << 20))
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_a_small_answer_that_unpacks_to_a_large_one_is_not_unpacked() -> None:
    bomb = gzip.compress(bytes(64 << 20))
    head = OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    with odd_server(lambda connection, _: connection.sendall(head + bomb)) as url:
        assert get(url) == bomb


def test_an_answer_in_drops_ends_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "ANSWER_SECONDS", 0.5)

    def drip(connection: socket.socket, _: bytes) -> None:
        connection.sendall(OK + b"Content-Length: 1000\r\n\r\n")
        while True:
            connection.sendall(b"x")
            time.sleep(0.05)

    with odd_server(drip) as url, pytest.raises(errors.UnreachableError, match="not complete"):
        get(url)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x16\x03\x01" * 100, id="no HTTP"),
        pytest.param(OK + b"Content-Length: 100\r\n\r\nabc", id="cut off"),
        pytest.param(OK + b"Content-Length: -1\r\n\r\n", id="a length below zero"),
        pytest.param(OK + b"X: " + b"y" * 200_000 + b"\r\n\r\n", id="an endless header"),
        pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", id="a chunk without a size"),
    ],
)
def test_what_is_no_answer_is_a_typed_error(answer: bytes) -> None:
    with odd_server(lambda connection, _: connection.sendall(answer)) as url, pytest.raises(errors.UnreachableError):
        get(url)


def test_silence_ends() -> None:
    with odd_server(lambda connection, _: time.sleep(1.0)) as url, pytest.raises(errors.UnreachableError):
        get(url, silence=0.2)


def test_a_redirection_is_not_followed() -> None:
    heads = []

    def redirect(connection: socket.socket, head: bytes) -> None:
        heads.append(head)
        connection.sendall(b"HTTP/1.1 307 Go\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n")

    with (
        odd_server(redirect) as url,
        Client(url, model="m", api_key=API_KEY) as client,
        pytest.raises(errors.CiphershiftError, match="is this a ciphershift server"),
    ):
        client.profile()
    assert len(heads) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("ALL_PROXY", "socks5://127.0.0.1:9"), ("https_proxy", "foo://127.0.0.1:9"), ("NO_PROXY", "[::1]")],
)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_proxy_settings_that_cannot_be_used_are_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, kind: type[Client | AsyncClient]
) -> None:
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv(name, value)
    with pytest.raises(errors.ConfigurationError, match=f"{name}.* cannot be used"):
        assert kind("https://he.example.invalid")._transport


def test_a_closed_client_is_said_so(keystore: Keystore) -> None:
    client = Client("http://127.0.0.1:9", model="m", keystore=keystore)
    client.close()
    for use in (client.models, client.prepare, lambda: client.predict([[0.0]]), lambda: client.job("1")):
        with pytest.raises(errors.ClosedError, match="is closed"):
            use()

    async def ask() -> None:
        client = AsyncClient("http://127.0.0.1:9", model="m", keystore=keystore)
        await client.close()
        with pytest.raises(errors.ClosedError):
            await client.models()

    asyncio.run(ask())
