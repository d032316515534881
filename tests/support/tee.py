"""A relay between a client and a server that keeps every byte that the client sends."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Relay:
    """A relay's address, and what went through it to the server."""

    url: str
    sent: bytearray = field(default_factory=bytearray)


@contextmanager
def relay(url: str) -> Iterator[Relay]:
    """Stands before the server at `url` on a port of its own."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        relayed = Relay(f"http://127.0.0.1:{listener.getsockname()[1]}")

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:  # shut down: the end
                    return
                connections.append(threading.Thread(target=_connect, args=(client, (host, int(port)), relayed.sent)))
                connections[-1].start()

        connections: list[threading.Thread] = []
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield relayed
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for each in (thread, *connections):
                each.join()


def _connect(client: socket.socket, address: tuple[str, int], kept: bytearray) -> None:
    with client, socket.create_connection(address) as server:
        back = threading.Thread(target=_copy, args=(server, client, None))
        back.start()
        _copy(client, server, kept)
        back.join()


def _copy(source: socket.socket, target: socket.socket, kept: bytearray | None) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            if kept is not None:
                kept += data
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
