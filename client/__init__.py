"""The client: makes keys, encrypts images, asks a server and decrypts the answer."""

from client.async_client import AsyncClient, AsyncJob
from client.client import Client, Job
from client.jobs import JobStatus
from client.keystore import Keystore
from client.timings import Timings

__all__ = ["AsyncClient", "AsyncJob", "Client", "Job", "JobStatus", "Keystore", "Timings"]
