"""OpenTelemetry traces of requests, jobs and layers (extra `otel`); nothing is recorded unless `CIPHERSHIFT_TRACES` is set.

A request continues the trace that its client names (W3C Trace Context), and a job, which may run in another process, that of its request.
Where spans go to is said by OpenTelemetry's own variables, such as OTEL_EXPORTER_OTLP_ENDPOINT.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from ciphershift.errors import ConfigurationError

TRACEPARENT = "traceparent"


class Tracing:
    """The tracer of one process."""

    def __init__(self, enabled: bool) -> None:
        """Starts the export of spans.

        Raises:
            ConfigurationError: OpenTelemetry is not installed.
        """
        self._provider: Any = _provider() if enabled else None
        self._tracer: Any = None if self._provider is None else self._provider.get_tracer("ciphershift")

    @contextmanager
    def span(
        self, name: str, parent: str | None, attributes: Mapping[str, Any], *, request: bool = False
    ) -> Iterator[Any]:
        """Records a span while it is open, and makes it the current one; yields it, None without tracing.

        Args:
            name: what is done.
            parent: the traceparent of the span around it, if one is known.
            attributes: of the span.
            request: whether it is a request that is served.
        """
        if self._tracer is None:
            yield None
            return
        from opentelemetry import trace

        kind = trace.SpanKind.SERVER if request else trace.SpanKind.INTERNAL
        with self._tracer.start_as_current_span(name, _context(parent), kind, dict(attributes)) as span:
            yield span

    def current(self) -> str | None:
        """Returns the traceparent of the current span; None without one."""
        if self._tracer is None:
            return None
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier)
        return carrier.get(TRACEPARENT)

    def record(self, name: str, parent: str | None, seconds: float, attributes: Mapping[str, Any]) -> None:
        """Records a span that ends now and began `seconds` ago, under `parent`."""
        if self._tracer is not None:
            now = time.time_ns()
            began = now - round(seconds * 1e9)
            self._tracer.start_span(name, _context(parent), attributes=dict(attributes), start_time=began).end(now)

    def close(self) -> None:
        """Sends what has been recorded."""
        if self._provider is not None:
            self._provider.shutdown()


def _context(parent: str | None) -> Any:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({} if parent is None else {TRACEPARENT: parent})


def _provider() -> Any:
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
        raise ConfigurationError(
            "CIPHERSHIFT_TRACES needs OpenTelemetry, which is not installed: pip install 'ciphershift[otel]'"
        )
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": "ciphershift"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
