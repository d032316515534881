"""The client: makes keys, encrypts images, asks a server and decrypts the answer."""

from client.client import AsyncClient, Client
from client.keystore import Keystore
from client.session import Timings

__all__ = ["AsyncClient", "Client", "Keystore", "Timings"]
