"""Request bodies, streamed under a size limit that is known before the first byte arrives."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import Request

from ciphershift.errors import TooLargeError

# For the OpenAPI description: the route reads the bytes itself.
BINARY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


async def stream(request: Request, limit: int) -> AsyncIterator[bytes]:
    """Yields the body's chunks while they stay under `limit` bytes in all.

    The rest of a body that is too large is read and discarded, up to `limit` bytes more, so that the client finishes sending and reads
    the answer.

    Raises:
        TooLargeError: more than `limit` bytes arrive, or are announced.
    """
    if (announced(request) or 0) > 2 * limit:
        raise _too_large(limit)
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received <= limit:
            yield chunk
        elif received > 2 * limit:
            break
    if received > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(f"the body has more than {limit} bytes, the most that this request can need")


def announced(request: Request) -> int | None:
    """Returns the body's Content-Length, None if it comes in chunks."""
    given = request.headers.get("Content-Length", "")
    return int(given) if given.isdecimal() else None


async def read(request: Request, limit: int) -> bytes:
    """Returns the whole body of at most `limit` bytes."""
    return b"".join([chunk async for chunk in stream(request, limit)])
