"""The client's requests as they go out, and its answers changed on their way in."""

from collections.abc import Callable

import httpx

from ciphershift.client._requests import Call, Step
from ciphershift.client._transport import Address, Driver

OnTheWay = Callable[[httpx.Response], httpx.Response]


class WatchedDriver(Driver):
    """Notes every call that is sent, and passes the results of jobs through a function."""

    def __init__(self, url: str, on_the_way: OnTheWay = lambda response: response) -> None:
        super().__init__(Address(url))
        self.sent: list[Call] = []
        self._on_the_way = on_the_way

    @property
    def paths(self) -> list[str]:
        """Where the calls went."""
        return [call.path for call in self.sent]

    def _take(self, step: Step) -> httpx.Response | None:
        response = super()._take(step)
        if isinstance(step, Call):
            self.sent.append(step)
            if step.path.endswith("/result") and response is not None:
                return self._on_the_way(response)
        return response
