"""Errors as RFC 9457 problem+json: exceptions become HTTP answers here and nowhere else."""

from __future__ import annotations

import errno
import math
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ciphershift.errors import (
    BusyError,
    CiphershiftError,
    MalformedError,
    NotReadyError,
    QuotaExceededError,
    StorageFullError,
    UnauthorizedError,
)
from ciphershift.server import logs

RETRY_AFTER_SECONDS = 2
CLIENT_CLOSED_REQUEST = (
    499  # by nginx' convention: nobody reads it, but metrics and logs do not call it a fault of the server
)
MAX_LOGGED = 200
_log = logs.get("problems")


class Problem(BaseModel):
    """An error, by RFC 9457; `code` is stable."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    error: str  # the detail again, where clients of the Open Inference Protocol look for it


# For the OpenAPI description: every route may answer this.
RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "An error",
        "content": {"application/problem+json": {"schema": Problem.model_json_schema()}},
    }
}


def install(app: FastAPI) -> None:
    """Registers the handlers that answer every error of `app` with problem+json and a stable code."""
    app.add_exception_handler(CiphershiftError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _disconnected)
    app.add_exception_handler(OSError, _storage)
    app.add_exception_handler(OperationalError, _storage)
    app.add_exception_handler(Exception, _unforeseen)


def problem(status: int, code: str, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Returns one problem+json answer."""
    content = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "error": detail,
    }
    return JSONResponse(content, status, headers, media_type="application/problem+json")


def _known(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, CiphershiftError)
    headers = None
    match error:
        case BusyError():
            headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
        case QuotaExceededError(retry_after=seconds) if seconds is not None:
            headers = {"Retry-After": str(math.ceil(seconds))}
        case UnauthorizedError():
            headers = {"WWW-Authenticate": "Bearer"}
    return problem(error.http_status, error.code, error.message, headers)


def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return problem(
        MalformedError.http_status, MalformedError.code, f"{place[:MAX_LOGGED]}: {first['msg'][:MAX_LOGGED]}"
    )


def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = HTTPStatus(error.status_code).name.lower()
    headers = dict(error.headers or {})
    if (
        error.status_code == HTTPStatus.METHOD_NOT_ALLOWED
    ):  # the framework names the methods of one route, a path may have several
        path = getattr(request.scope.get("route"), "path", "")
        headers["Allow"] = ", ".join(sorted(request.app.openapi()["paths"].get(path, {}))).upper() or headers["Allow"]
    return problem(error.status_code, code, str(error.detail), headers)


def _disconnected(_: Request, __: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)


def _storage(request: Request, error: Exception) -> JSONResponse:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or "disk is full" in str(getattr(error, "orig", "")) or "No space left" in str(getattr(error, "orig", "")):
        _log.error("storage_full", path=request.url.path[:MAX_LOGGED])
        detail = "the server has no space left to store this: try again later, or tell its operator"
        return problem(StorageFullError.http_status, StorageFullError.code, detail)
    if isinstance(error, OperationalError):
        _log.error("outage", path=request.url.path[:MAX_LOGGED], error=type(error.orig).__name__)
        return problem(
            NotReadyError.http_status, NotReadyError.code, "the server's database does not answer: try again later"
        )
    return _unforeseen(request, error)


def _unforeseen(request: Request, error: Exception) -> JSONResponse:
    path = request.url.path[:MAX_LOGGED]
    _log.error("failed", method=request.method[:16], path=path, error=type(error).__name__, exc_info=error)
    return problem(CiphershiftError.http_status, CiphershiftError.code, "the server failed; its log has the reason")
