"""What the client keeps on disk of the jobs that it submitted, to read their answers later."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ciphershift.client._wire import Digest, Message, ModelProfile, read
from ciphershift.client.jobs import JobId, job_path
from ciphershift.errors import UnknownJobError

KEPT_SECONDS = 30 * 86400.0  # longer than any server keeps an answer


class Receipt(Message):
    """What is needed to read the answer of one job. Not secret: it is useless without the secret keys."""

    job_id: JobId
    request_id: str
    key_id: Digest
    profile: ModelProfile
    requests: tuple[Digest, ...]  # what the answer to each image is bound to


class Receipts:
    """Receipts in one folder, a file each, so that a later process can fetch what an earlier one submitted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, receipt: Receipt) -> None:
        """Writes a receipt, and deletes those older than KEPT_SECONDS."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for old in self._folder.iterdir():
            if time.time() - old.stat().st_mtime > KEPT_SECONDS:
                old.unlink(missing_ok=True)
        path = self._path(receipt.job_id)
        temporary = path.with_suffix(f".{os.getpid()}.part")
        temporary.write_text(receipt.model_dump_json())
        temporary.replace(path)

    def find(self, job_id: str) -> Receipt:
        """Returns the receipt of a job.

        Raises:
            UnknownJobError: the job was submitted by another user, or from another machine.
            MalformedError: its file is damaged.
        """
        job_path(job_id)  # an id with other characters is no file name either
        try:
            return read(Receipt, self._path(job_id).read_bytes())
        except FileNotFoundError:
            raise UnknownJobError(
                f"job {job_id} was not submitted from {self._folder.parent}: only its submitter can read its answer"
            ) from None

    def _path(self, job_id: str) -> Path:
        return self._folder / f"{job_id}.json"
