"""Metrics for Prometheus."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from ciphershift.server.api.deps import ServiceDep

router = APIRouter(tags=["operations"])


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def read_metrics(service: ServiceDep) -> Response:
    """All metrics of this process, in Prometheus' text format."""
    text = service.metrics.text(await asyncio.to_thread(service.jobs.waiting))
    return Response(text, media_type=CONTENT_TYPE_LATEST)
