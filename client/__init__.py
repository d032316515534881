"""The client: makes keys, encrypts images, asks a server and decrypts the answer."""

from ciphershift.client.async_client import AsyncClient, AsyncJob
from ciphershift.client.client import Client, Job
from ciphershift.client.jobs import JobStatus
from ciphershift.client.keystore import Keystore
from ciphershift.client.timings import Timings

__all__ = ["AsyncClient", "AsyncJob", "Client", "Job", "JobStatus", "Keystore", "Timings"]
