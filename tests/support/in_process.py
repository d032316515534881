"""An application and an HTTP client of it in one event loop: the service's own code, without the seconds that a process takes to start."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

import httpx
from fastapi import FastAPI


class InProcess:
    """Sends requests to an application whose lifespan runs; `with InProcess(app) as http`."""

    def __init__(self, app: FastAPI, base_url: str = "http://127.0.0.1:8000") -> None:
        self._app = app
        self._base_url = base_url
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        self._lifespan = self._app.router.lifespan_context(self._app)
        self.run(self._lifespan.__aenter__())
        transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
        self._http = httpx.AsyncClient(transport=transport, base_url=self._base_url)
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.run(self._http.aclose())
        self.run(self._lifespan.__aexit__(None, None, None))
        self._runner.close()

    def run(self, awaitable: Any) -> Any:
        """Runs a coroutine in the application's event loop."""

        async def wait() -> Any:
            return await awaitable

        return self._runner.run(wait())

    async def send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Sends a request, beside others in the application's event loop."""
        return await self._http.request(method, path, **arguments)

    def request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Sends a request."""
        answer: httpx.Response = self.run(self.send(method, path, **arguments))
        return answer

    def get(self, path: str, **arguments: Any) -> httpx.Response:
        """Sends GET."""
        return self.request("GET", path, **arguments)

    def post(self, path: str, **arguments: Any) -> httpx.Response:
        """Sends POST."""
        return self.request("POST", path, **arguments)

    def put(self, path: str, **arguments: Any) -> httpx.Response:
        """Sends PUT."""
        return self.request("PUT", path, **arguments)

    def head(self, path: str, **arguments: Any) -> httpx.Response:
        """Sends HEAD."""
        return self.request("HEAD", path, **arguments)
