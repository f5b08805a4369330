"""What Prometheus is told: requests, their latency, batch sizes and the length of the queue."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LATENCY_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BATCH_SENTENCES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The series of one application, in a registry of its own."""

    def __init__(self, waiting: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "automoe_requests", "Requests answered.", ("path", "status"), registry=self.registry
        )
        self._latency = Histogram(
            "automoe_request_seconds",
            "From a request's first byte to the end of its answer.",
            ("path",),
            buckets=LATENCY_SECONDS,
            registry=self.registry,
        )
        self._batches = Histogram(
            "automoe_batch_sentences",
            "Sentences translated together.",
            buckets=BATCH_SENTENCES,
            registry=self.registry,
        )
        queue = Gauge("automoe_waiting_sentences", "Sentences not yet begun.", registry=self.registry)
        queue.set_function(waiting)

    def observe_request(self, path: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self._requests.labels(path, str(status)).inc()
        self._latency.labels(path).observe(seconds)

    def observe_batch(self, sentences: int) -> None:
        """Count one batch."""
        self._batches.observe(sentences)


class CountedRequests:
    """ASGI middleware that counts every request.

    Args:
        paths: the labels, without the prefix of a proxy; any other path counts as `other`, so that strangers
            cannot make up series.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: frozenset[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        own = scope["path"].removeprefix(scope.get("root_path", ""))  # before a folder of files changes it
        path = own if own in self._paths else "other"
        status = 500  # what becomes of an exception

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        start = time.perf_counter()
        try:
            await self._app(scope, receive, noting)
        finally:
            self._metrics.observe_request(path, status, time.perf_counter() - start)
