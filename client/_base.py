"""What the sync and the async client have in common: all but the waiting."""

from __future__ import annotations

import os
from pathlib import Path

from ciphershift.client._session import Session
from ciphershift.client._transport import Address
from ciphershift.client.keystore import Keystore
from ciphershift.client.timings import Timings, Traffic

API_KEY_VARIABLE = "CIPHERSHIFT_API_KEY"
CA_FILE_VARIABLE = "CIPHERSHIFT_CA_FILE"


class BaseClient:
    """A server's address, and a session with it."""

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        api_key: str | None = None,
        ca_file: Path | str | None = None,
        keystore: Keystore | None = None,
        patience: float = 60.0,
        accept_block_keys: bool = True,
        allow_toy_parameters: bool = False,
        show_progress: bool = True,
    ) -> None:
        """Takes note of a server; keys are made, and the server is asked, when first needed.

        Args:
            url: where the server listens, such as https://he.example.org.
            model: which of its models to use; not needed if it has one only.
            api_key: what opens the server; the default is in CIPHERSHIFT_API_KEY. It is sent over https, or to this machine, alone.
            ca_file: certificates of the authority behind a server of your own; the default is in CIPHERSHIFT_CA_FILE.
            keystore: where keys rest; the default is the user's own folder.
            patience: seconds that one request may be put off while the server is busy, restarts, or cannot be reached.
            accept_block_keys: use parameter sets whose small key is in blocks; SECURITY.md says what they assume.
            allow_toy_parameters: accept insecure parameter sets, for tests.
            show_progress: draw a bar on a terminal's stderr.

        Raises:
            InsecureTransportError: the API key would cross a network in clear.
            UnreachableError, UntrustedServerError, UnauthorizedError: address, certificates or API key cannot be used.
        """
        ca_file = ca_file or os.environ.get(CA_FILE_VARIABLE)
        self._address = Address(
            url, api_key=api_key or os.environ.get(API_KEY_VARIABLE), ca_file=Path(ca_file) if ca_file else None
        )
        self._model = model
        self._session = Session(
            model,
            keystore or Keystore(),
            patience_seconds=patience,
            accept_block_keys=accept_block_keys,
            allow_toy_parameters=allow_toy_parameters,
            show_progress=show_progress,
        )

    def __repr__(self) -> str:
        """Shows no key."""
        return f"{type(self).__name__}({str(self._address)!r}, model={self._model!r})"

    @property
    def timings(self) -> Timings:
        """Seconds of the last prediction by stage."""
        return self._session.timings

    @property
    def traffic(self) -> Traffic:
        """Bytes of the last job's request and of its answer."""
        return self._session.traffic
