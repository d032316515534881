"""Prometheus metrics of one process. Dashboards and alerts depend on the names: see docs/operations.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector

from ciphershift.server.engine.base import WorkerState

_SECONDS = (0.005, 0.02, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600)


class Metrics:
    """Counters and histograms; gauges are read when metrics are requested."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "ciphershift_requests", "HTTP requests.", ("method", "route", "status"), registry=registry
        )
        self.request_seconds = Histogram(
            "ciphershift_request_seconds", "From a request's first byte to its answer's last.", ("route",), buckets=_SECONDS,
            registry=registry,
        )  # fmt: skip
        self.queue_depth = Gauge("ciphershift_queue_depth", "Jobs waiting for a worker.", registry=registry)
        self.queue_seconds = Histogram(
            "ciphershift_queue_seconds", "From a job's acceptance to its start.", buckets=_SECONDS, registry=registry
        )
        self.jobs = Counter("ciphershift_jobs", "Jobs finished by this process.", ("model", "state"), registry=registry)
        self.compute_seconds = Histogram(
            "ciphershift_compute_seconds", "Time of a layer for the images that are evaluated together.", ("model", "layer"),
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.bootstraps = Counter("ciphershift_bootstraps", "Table look-ups.", ("model",), registry=registry)

    def watch(self, workers: Callable[[], Mapping[str, WorkerState]]) -> None:
        """Adds the workers' own states to the metrics."""
        self.registry.register(_Workers(workers))

    def text(self, waiting: int) -> bytes:
        """Returns all metrics in Prometheus' text format."""
        self.queue_depth.set(waiting)
        return generate_latest(self.registry)


class _Workers:
    """The workers' own states. A worker's cache counters restart at zero when the worker is replaced."""

    def __init__(self, workers: Callable[[], Mapping[str, WorkerState]]) -> None:
        self._workers = workers

    def collect(self) -> Iterable[Metric]:
        states = self._workers()
        yield GaugeMetricFamily("ciphershift_workers_ready", "Workers that are ready.", value=len(states))
        rss = GaugeMetricFamily("ciphershift_worker_rss_bytes", "Resident memory of a worker.", labels=["worker"])
        for name, state in states.items():
            rss.add_metric([name], state.rss_bytes)
        yield rss
        yield GaugeMetricFamily(
            "ciphershift_key_cache_bytes",
            "Expanded keys in workers.",
            value=sum(s.key_cache_bytes for s in states.values()),
        )
        for what in ("hits", "misses"):
            total = sum(getattr(state, f"key_cache_{what}") for state in states.values())
            yield CounterMetricFamily(f"ciphershift_key_cache_{what}", f"Key cache {what} in workers.", value=total)
