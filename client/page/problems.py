"""Errors of the page's own process, in the form of the server's: the page reads both alike."""

from __future__ import annotations

from http import HTTPStatus

from starlette.responses import JSONResponse

from ciphershift.errors import CiphershiftError


def problem(error: CiphershiftError, status: int | None = None) -> JSONResponse:
    """Returns an error as problem+json (RFC 9457); `status` is the error's own by default."""
    status = status or error.http_status
    content = {"title": HTTPStatus(status).phrase, "status": status, "code": error.code, "detail": error.message}
    return JSONResponse(content, status_code=status, media_type="application/problem+json")
