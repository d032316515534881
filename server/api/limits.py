"""Limits of one tenant in one process: requests per second, and open event streams."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ciphershift.errors import BusyError


class TenantLimits:
    """Token buckets and counters by tenant."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}  # tokens left, and when they were counted
        self._streams: Counter[str] = Counter()
        self._lock = threading.Lock()

    def take(self, tenant_id: str, per_second: float) -> None:
        """Counts a request. A second's worth of requests may come at once.

        Raises:
            BusyError: the tenant has sent more than that.
        """
        capacity = max(per_second, 1.0)
        with self._lock:
            now = self._clock()
            tokens, counted = self._buckets.get(tenant_id, (capacity, now))
            tokens = min(capacity, tokens + (now - counted) * per_second)
            self._buckets[tenant_id] = (tokens - 1 if tokens >= 1 else tokens), now
        if tokens < 1:
            raise BusyError(
                f"more than {per_second:g} requests in a second: send fewer, or wait for events instead of asking"
            )

    @contextmanager
    def stream(self, tenant_id: str, limit: int) -> Iterator[None]:
        """Counts an event stream while it is open. Raises BusyError beyond `limit`."""
        with self._lock:
            if self._streams[tenant_id] >= limit:
                raise BusyError(f"{limit} event streams are open, the limit of one tenant: close one")
            self._streams[tenant_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._streams[tenant_id] -= 1
                if not self._streams[tenant_id]:
                    del self._streams[tenant_id]
