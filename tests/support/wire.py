"""The client's requests as they go out, and its answers changed on their way in."""

from collections.abc import Callable, Sequence
from typing import Any

import httpx

from ciphershift.client._requests import Request, Step
from ciphershift.client._transport import Address, SyncTransport
from ciphershift.protocol import tensors

OnTheWay = Callable[[httpx.Response], httpx.Response]


class WatchedTransport(SyncTransport):
    """Notes every request that is sent, and passes the results of jobs through a function."""

    def __init__(self, url: str, on_the_way: OnTheWay = lambda response: response) -> None:
        super().__init__(Address(url))
        self.sent: list[Request] = []
        self._on_the_way = on_the_way

    @property
    def paths(self) -> list[str]:
        """Where the requests went."""
        return [request.path for request in self.sent]

    def _take(self, step: Step) -> httpx.Response | None:
        response = super()._take(step)
        if isinstance(step, Request):
            self.sent.append(step)
            if step.path.endswith("/result") and response is not None:
                return self._on_the_way(response)
        return response


def split_answer(response: httpx.Response) -> tuple[bytes, list[bytes]]:
    """The JSON header of an answer, and its containers."""
    text, tensor = tensors.split_body(response.headers[tensors.HEADER_LENGTH], response.content)
    return text, tensors.split_elements(tensor)


def answer(header: dict[str, Any], rows: Sequence[bytes], request: httpx.Request) -> httpx.Response:
    """An answer of this header and these containers."""
    content, headers = tensors.join_body(header, tensors.join_elements(rows))
    return httpx.Response(200, content=content, headers=headers, request=request)
