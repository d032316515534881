"""One call, sent until it succeeds, fails for good, or patience ends."""

from __future__ import annotations

import secrets

import httpx

from ciphershift.client._requests import Call, Pause, Steps
from ciphershift.client._wire import error_of
from ciphershift.errors import UnreachableError

RETRIED = (429, 502, 503, 504)
_LONGEST_PAUSE = 8.0


class Exchange:
    """Sends calls; those that can be sent twice are sent again while that may help and patience lasts."""

    def __init__(self, patience_seconds: float) -> None:
        """Takes note.

        Args:
            patience_seconds: the most that the pauses between the attempts of one call come to.
        """
        self._patience_seconds = patience_seconds
        self._reached = False  # a server that never answered is more likely a wrong address than a restart

    def __call__(self, call: Call) -> Steps[httpx.Response]:
        """Returns the answer to a call.

        Raises:
            UnreachableError: the server does not answer, or stopped answering.
            CiphershiftError: what the server says is wrong.
        """
        waited = 0.0
        attempt = 0
        while True:
            try:
                response = yield call
            except UnreachableError:
                pause = _backoff(attempt)
                if not (self._reached and call.repeatable and waited + pause <= self._patience_seconds):
                    raise
            else:
                self._reached = True
                if response.is_success:
                    return response
                pause = max(_asked_pause(response), _backoff(attempt))
                again = response.status_code in RETRIED and call.repeatable
                if not again or waited + pause > self._patience_seconds:
                    raise error_of(response)
            yield Pause(pause)
            waited += pause
            attempt += 1


def _asked_pause(response: httpx.Response) -> float:
    asked = response.headers.get("Retry-After", "")
    return float(asked) if asked.isdecimal() and len(asked) < 10 else 0.0


def _backoff(attempt: int) -> float:
    """Doubles from half a second; a random part keeps clients that failed together from coming back together."""
    longest = min(0.5 * 2.0**attempt, _LONGEST_PAUSE)
    return longest * (0.75 + 0.25 * secrets.randbelow(1000) / 1000)
