"""Request bodies, streamed under a limit that is known before the first byte arrives."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import Request

from ciphershift.errors import TooLargeError

# For the API's description: the route reads the bytes itself.
BINARY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


async def stream(request: Request, limit: int) -> AsyncIterator[bytes]:
    """Yields the body's chunks while they stay under `limit` bytes in all.

    A body that is too large is read on (up to as much again) and thrown away, so that the client has sent all it wants to send
    and is ready to read the answer.

    Raises:
        TooLargeError: more than `limit` bytes arrive, or are announced.
    """
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received <= limit:
            yield chunk
        elif received > 2 * limit:
            break
    if received > limit:
        raise TooLargeError(f"the body has more than the {limit} bytes that this request can need")


async def read(request: Request, limit: int) -> bytes:
    """Returns the whole body of at most `limit` bytes."""
    return b"".join([chunk async for chunk in stream(request, limit)])
