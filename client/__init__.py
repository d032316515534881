"""The client: makes keys, encrypts images, sends them to a server and decrypts the answer.

Errors are in `ciphershift.errors`; all of them are a `CiphershiftError`.
"""

from ciphershift.client._wire import LayerProfile, ModelProfile
from ciphershift.client.async_client import AsyncClient, AsyncJob
from ciphershift.client.client import Client, Job
from ciphershift.client.jobs import JobError, JobProgress, JobStatus
from ciphershift.client.keystore import KeyPair, Keystore
from ciphershift.client.timings import Timings, Traffic

__all__ = [
    "AsyncClient",
    "AsyncJob",
    "Client",
    "Job",
    "JobError",
    "JobProgress",
    "JobStatus",
    "KeyPair",
    "Keystore",
    "LayerProfile",
    "ModelProfile",
    "Timings",
    "Traffic",
]
