"""Errors as RFC 9457 problem+json: exceptions become HTTP answers here and nowhere else."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from ciphershift.errors import BusyError, CiphershiftError, MalformedError, QuotaExceededError, UnauthorizedError
from ciphershift.server import logs

RETRY_AFTER_SECONDS = 2
_log = logs.get("problems")


class Problem(BaseModel):
    """An error, by RFC 9457; `code` is stable."""

    type: str
    title: str
    status: int
    detail: str
    code: str


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
    app.add_exception_handler(Exception, _unforeseen)


def problem(status: int, code: str, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Returns one problem+json answer."""
    content = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
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
    return problem(MalformedError.http_status, MalformedError.code, f"{place}: {first['msg']}")


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


def _unforeseen(request: Request, error: Exception) -> JSONResponse:
    _log.error("failed", method=request.method, path=request.url.path, error=type(error).__name__, exc_info=error)
    return problem(CiphershiftError.http_status, CiphershiftError.code, "the server failed; its log has the reason")
