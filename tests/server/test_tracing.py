"""Traces go from the client's call to the layer, over processes, as a collector receives them."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift.benchmarks.harness.server_process import running_server
from ciphershift.client import Client, Keystore
from ciphershift.errors import ConfigurationError
from ciphershift.server.tracing import Tracing

pytest.importorskip("opentelemetry.sdk", reason="the extra `otel` is not installed")
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """An OTLP collector on loopback; what it has received."""
    spans: list[Any] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                spans.extend(span for scope in resource.scope_spans for span in scope.spans)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        yield spans
        server.shutdown()


def test_a_trace_goes_from_the_clients_call_to_the_layer(
    collector: list[Any], zoo: Path, keystore: Keystore, tiny_images: NDArray[np.uint8]
) -> None:
    tracer = TracerProvider().get_tracer("application")
    with (
        running_server(models=zoo, allow_toy_parameters=True, traces=True) as server,
        Client(server.url, model="tiny", keystore=keystore, allow_toy_parameters=True) as client,
    ):
        with tracer.start_as_current_span("my work") as work:
            client.predict(tiny_images[:2])
        httpx.get(f"{server.url}/v2/models")  # outside of the application's span: a trace of its own
    trace = work.get_span_context().trace_id.to_bytes(16)
    mine = [span for span in collector if span.trace_id == trace]
    assert len(mine) < len(collector)
    (submitted,) = [span for span in mine if span.name == "POST /v2/models/{name}/jobs"]
    assert submitted.parent_span_id == work.get_span_context().span_id.to_bytes(8)
    attributes = {item.key: item.value for item in submitted.attributes}
    assert attributes["http.response.status_code"].int_value == 202
    jobs = [span for span in mine if span.name == "job"]
    assert jobs
    assert {span.parent_span_id for span in jobs} == {submitted.span_id}
    layers = [span for span in mine if span.parent_span_id in {job.span_id for job in jobs}]
    assert {"relu"} <= {span.name for span in layers}
    lookups = [item.value.int_value for span in layers for item in span.attributes if item.key == "ciphershift.lookups"]
    assert sum(lookups) == 2 * 144
    assert all(span.end_time_unix_nano >= span.start_time_unix_nano for span in collector)
    assert not any("health" in span.name for span in collector)


def test_without_a_span_of_the_caller_nothing_is_sent_and_without_the_setting_nothing_recorded() -> None:
    from ciphershift.client import _transport

    assert _transport._trace_context() == {}
    silent = Tracing(False)
    with silent.span("x", "00-" + "1" * 32 + "-" + "2" * 16 + "-01", {}) as span:
        assert span is None
        assert silent.current() is None


def test_a_setting_without_the_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ciphershift.server.tracing.find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"ciphershift\[otel\]"):
        Tracing(True)
