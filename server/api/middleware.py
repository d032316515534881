"""Middleware around every request: request id, trace, log line and metrics."""

from __future__ import annotations

import re
import time
import uuid

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ciphershift.server import logs
from ciphershift.server.api.problems import problem
from ciphershift.server.connection import METHODS
from ciphershift.server.metrics import Metrics
from ciphershift.server.tracing import TRACEPARENT, Tracing

REQUEST_ID = "X-Request-Id"
_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS = frozenset(method.decode() for method in METHODS)
_QUIET = ("/v2/health/live", "/v2/health/ready", "/metrics")  # requested every few seconds by machines
_log = logs.get("requests")


class RequestLogMiddleware:
    """ASGI middleware. A starlette BaseHTTPMiddleware would hide from the route that its client has disconnected."""

    def __init__(self, app: ASGIApp, metrics: Metrics, tracing: Tracing) -> None:
        self._app = app
        self._metrics = metrics
        self._tracing = tracing
        self._silent = Tracing(False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] not in _METHODS:  # connection.py refuses them before; labels of metrics must be a fixed set
            refusal = problem(501, "not_implemented", "no resource here has this method")
            await refusal(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = given if _SAFE_ID.fullmatch(given) else uuid.uuid4().hex
        started, status, received, sent = time.perf_counter(), 500, 0, 0

        async def counted_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def counted_send(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            sent += len(message.get("body", b""))
            await send(message)

        structlog.contextvars.clear_contextvars()
        quiet = scope["path"] in _QUIET
        trace = self._silent if quiet else self._tracing
        parent = Headers(scope=scope).get(TRACEPARENT)
        with (
            structlog.contextvars.bound_contextvars(request_id=request_id),
            trace.span(scope["method"], parent, {"http.request.method": scope["method"]}, request=True) as span,
        ):
            try:
                await self._app(scope, counted_receive, counted_send)
            finally:
                seconds = time.perf_counter() - started
                route = getattr(scope.get("route"), "path", "none")
                self._metrics.requests.labels(scope["method"], route, status).inc()
                self._metrics.request_seconds.labels(route).observe(seconds)
                if span is not None:
                    span.update_name(f"{scope['method']} {route}")
                    span.set_attributes({"http.route": route, "http.response.status_code": status})
                write = _log.debug if quiet else _log.info
                write(
                    "request",
                    method=scope["method"],
                    route=route,
                    status=status,
                    seconds=round(seconds, 4),
                    received=received,
                    sent=sent,
                    tenant=scope.get("state", {}).get("tenant"),
                )
