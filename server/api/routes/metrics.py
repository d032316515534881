"""Metrics for Prometheus."""

from __future__ import annotations

import hmac
from typing import Annotated

from fastapi import APIRouter, Header, Response
from prometheus_client import CONTENT_TYPE_LATEST

from ciphershift.errors import UnauthorizedError
from ciphershift.server.api.deps import ServiceDep

router = APIRouter(tags=["operations"])


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def read_metrics(service: ServiceDep, authorization: Annotated[str | None, Header()] = None) -> Response:
    """All metrics of this process, in Prometheus' text format; at most a second old."""
    token = service.settings.metrics_token
    if token is not None and not hmac.compare_digest(
        (authorization or "").encode(), f"Bearer {token.get_secret_value()}".encode()
    ):
        raise UnauthorizedError("send the token of CIPHERSHIFT_METRICS_TOKEN: Authorization: Bearer …")
    return Response(await service.metrics_text(), media_type=CONTENT_TYPE_LATEST)
