"""Errors as RFC 9457 problem+json: the one place where an exception becomes an HTTP answer."""

from __future__ import annotations

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from he_layers.crypto.errors import BusyError, HEServiceError, MalformedError

RETRY_AFTER_SECONDS = 2
_log = logging.getLogger("ciphershift.server")


def install(app: FastAPI) -> None:
    """Registers the handlers, so that every error of `app` leaves as problem+json with a stable code."""
    app.add_exception_handler(HEServiceError, _known)
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
    assert isinstance(error, HEServiceError)
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if isinstance(error, BusyError) else None
    return problem(error.http_status, error.code, error.message, headers)


def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return problem(MalformedError.http_status, MalformedError.code, f"{place}: {first['msg']}")


def _http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = HTTPStatus(error.status_code).name.lower()
    return problem(error.status_code, code, str(error.detail), dict(error.headers or {}))


def _unforeseen(request: Request, error: Exception) -> JSONResponse:
    _log.error("%s %s failed: %s", request.method, request.url.path, type(error).__name__, exc_info=error)
    return problem(HEServiceError.http_status, HEServiceError.code, "the server failed; its log says why")
