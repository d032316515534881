"""Carries out a session's steps over HTTP, blocking or in an event loop.

An answer is read under a limit of bytes and of time, and never decompressed: a server that sends without end, or a small body that
unpacks to a large one, is refused before it fills the memory.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import httpx

from ciphershift.client._requests import Request, Sleep, Step, Steps, Upload
from ciphershift.errors import (
    CiphershiftError,
    ClosedError,
    ConfigurationError,
    InsecureTransportError,
    TooLargeError,
    UnauthorizedError,
    UnreachableError,
    UntrustedServerError,
)

T = TypeVar("T")

CONNECT_SECONDS = 10.0
WRITE_SECONDS = 120.0
ANSWER_SECONDS = 600.0  # for the whole of one answer that is not a stream


class Address:
    """The server's URL, the API key for it, and the certificates to trust."""

    def __init__(self, url: str, *, api_key: str | None = None, ca_file: Path | None = None) -> None:
        """Checks that the key can be sent there.

        Raises:
            UnreachableError: the address is not that of a web server.
            InsecureTransportError: the key would cross a network unencrypted.
            UntrustedServerError: there are no certificates in `ca_file`.
        """
        try:
            self.url = httpx.URL(url.rstrip("/"))
        except httpx.InvalidURL as error:
            raise UnreachableError(f"the server's address cannot be read: {error}") from None
        if self.url.scheme not in ("http", "https") or not self.url.host or self.url.userinfo:
            raise UnreachableError(
                "the server's address must be like https://he.example.org or http://127.0.0.1:8000, without user or password"
            )
        self._api_key = api_key.strip() if api_key else None
        if self._api_key and not (self._api_key.isascii() and self._api_key.isprintable()):
            raise UnauthorizedError("the API key holds characters that no key has: copy it again")  # without showing it
        self._local = self.url.scheme == "http" and _is_loopback(self.url.host)
        if api_key and self.url.scheme == "http" and not self._local:
            raise InsecureTransportError(
                f"an API key would cross the network unencrypted on its way to {self}: use https://{self.url.netloc.decode()}"
            )
        self._context = ssl.create_default_context()
        if ca_file is not None:
            try:
                self._context.load_verify_locations(ca_file)
            except (OSError, ssl.SSLError) as error:
                raise UntrustedServerError(f"no certificates could be read from {ca_file} ({error})") from error

    def __str__(self) -> str:
        """The address."""
        return str(self.url)

    def options(self) -> dict[str, Any]:
        """Returns the arguments of an httpx client."""
        headers = {"Accept-Encoding": "identity"}
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        # A proxy named by the environment must not see what may travel unencrypted only because it stays on this machine.
        return {"base_url": self.url, "headers": headers, "verify": self._context, "trust_env": not self._local}

    def error(self, error: httpx.TransportError) -> CiphershiftError:
        """Returns the typed error of a transport failure."""
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return UntrustedServerError(
                    f"the certificate of {self} is not trusted ({cause.verify_message}): "
                    "pass the file of its authority as ca_file, or set CIPHERSHIFT_CA_FILE"
                )
            cause = cause.__cause__ or cause.__context__
        return UnreachableError(f"no answer from {self} ({error or type(error).__name__}): is a server running there?")


class SyncTransport:
    """Carries out steps, blocking."""

    def __init__(self, address: Address) -> None:
        self._address = address
        with _proxy_errors():
            self._http = httpx.Client(**address.options())

    def run(self, steps: Steps[T]) -> T:
        """Returns the result of the steps."""
        with closing(steps):
            _require_open(self._http)
            resume: Callable[[], Step] = partial(next, steps)
            while True:
                step = _advance(resume)
                if isinstance(step, _End):
                    return cast(T, step.unwrap())
                resume = self._taken(steps, step)

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def _taken(self, steps: Steps[T], step: Step) -> Callable[[], Step]:
        try:
            return partial(steps.send, cast(httpx.Response, self._take(step)))
        except httpx.TransportError as error:
            return partial(steps.throw, self._address.error(error))
        except BaseException as error:  # an interrupt, too, so that a session can cancel its jobs
            return partial(steps.throw, error)

    def _take(self, step: Step) -> httpx.Response | None:
        if isinstance(step, Sleep):
            time.sleep(step.seconds)
            return None
        content = step.content.chunks() if isinstance(step.content, Upload) else step.content
        with self._http.stream(**_arguments(step), content=content) as response:
            body = _Body(step, response)
            for chunk in response.iter_raw():
                if not body.take(chunk):
                    break
            return body.response()


class AsyncTransport:
    """Carries out steps in an event loop; what a session computes between two steps runs in a thread."""

    def __init__(self, address: Address) -> None:
        self._address = address
        with _proxy_errors():
            self._http = httpx.AsyncClient(**address.options())

    async def run(self, steps: Steps[T]) -> T:
        """Returns the result of the steps."""
        with closing(steps):
            _require_open(self._http)
            resume: Callable[[], Step] = partial(next, steps)
            while True:
                try:
                    step = await _in_thread(partial(_advance, resume))
                except asyncio.CancelledError as error:
                    resume = partial(steps.throw, error)
                    continue
                if isinstance(step, _End):
                    return cast(T, step.unwrap())
                resume = await self._taken(steps, step)

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def _taken(self, steps: Steps[T], step: Step) -> Callable[[], Step]:
        try:
            return partial(steps.send, cast(httpx.Response, await self._take(step)))
        except httpx.TransportError as error:
            return partial(steps.throw, self._address.error(error))
        except BaseException as error:  # a cancellation, too, so that a session can cancel its jobs
            return partial(steps.throw, error)

    async def _take(self, step: Step) -> httpx.Response | None:
        if isinstance(step, Sleep):
            await asyncio.sleep(step.seconds)
            return None
        content = _asynchronous(step.content.chunks()) if isinstance(step.content, Upload) else step.content
        async with self._http.stream(**_arguments(step), content=content) as response:
            body = _Body(step, response)
            async for chunk in response.aiter_raw():
                if not body.take(chunk):
                    break
            return body.response()


def _require_open(http: httpx.Client | httpx.AsyncClient) -> None:
    if http.is_closed:
        raise ClosedError("the client is closed, and its secret keys are erased from memory: make a new one")


@contextmanager
def _proxy_errors() -> Iterator[None]:
    """Turns what httpx raises for proxy settings of the environment into a typed error that names them."""
    try:
        yield
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        names = (f"{scheme}_PROXY" for scheme in ("ALL", "HTTP", "HTTPS", "NO"))
        given = [name for upper in names for name in (upper, upper.lower()) if os.environ.get(name)]
        raise ConfigurationError(
            f"the proxy settings {', '.join(given) or 'of the system'} cannot be used ({str(error).split('. ')[0]}): "
            "correct them, or unset them for this program"
        ) from error


class _Body:
    """Takes an answer as it arrives: into memory up to a limit, or, if it is successful, to the request's own receiver."""

    def __init__(self, request: Request, response: httpx.Response) -> None:
        self._request = request
        self._response = response
        self._stream = request.receive if response.is_success else None
        self._chunks: list[bytes] = []
        self._size = 0
        self._end = time.monotonic() + ANSWER_SECONDS

    def take(self, chunk: bytes) -> bool:
        """Returns whether to go on."""
        if self._stream:
            return self._stream(chunk)
        self._size += len(chunk)
        if self._size > self._request.answer_limit:
            raise TooLargeError(
                f"{self._response.request.url} answered with more than {self._request.answer_limit} bytes, the most that it can need"
            )
        if time.monotonic() > self._end:
            raise UnreachableError(
                f"the answer of {self._response.request.url} was not complete after {ANSWER_SECONDS:g} s"
            )
        self._chunks.append(chunk)
        return True

    def response(self) -> httpx.Response:
        """Returns the answer, independent of its connection."""
        given = self._response
        kept = [(k, v) for k, v in given.headers.multi_items() if k not in ("content-encoding", "transfer-encoding")]
        return httpx.Response(given.status_code, headers=kept, content=b"".join(self._chunks), request=given.request)


def _arguments(request: Request) -> dict[str, Any]:
    headers = dict(request.headers) | _trace_context()
    if isinstance(request.content, Upload):
        headers["Content-Length"] = str(len(request.content))
    timeout = httpx.Timeout(connect=CONNECT_SECONDS, read=request.silence_seconds, write=WRITE_SECONDS, pool=None)
    return {"method": request.method, "url": request.path, "headers": headers, "timeout": timeout}


def _trace_context() -> dict[str, str]:
    """The trace context (W3C) of the caller's OpenTelemetry span, if the program traces itself and a span is open."""
    if "opentelemetry.trace" not in sys.modules:
        return {}
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier


@dataclass(frozen=True, slots=True)
class _End:
    """How steps ended."""

    result: object = None
    error: BaseException | None = None

    def unwrap(self) -> object:
        if self.error is not None:
            raise self.error
        return self.result


def _advance(resume: Callable[[], Step]) -> Step | _End:
    """Runs the steps up to the next one, or to their end. Their own errors are returned, to tell them from the transport's."""
    try:
        return resume()
    except StopIteration as end:
        return _End(result=end.value)
    except BaseException as error:
        return _End(error=error)


async def _in_thread(function: Callable[[], T]) -> T:
    """Runs a function in a thread. A cancellation waits for it to end, so that nothing it uses is closed under it."""
    task = asyncio.ensure_future(asyncio.to_thread(function))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


async def _asynchronous(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
