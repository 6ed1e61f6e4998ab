"""What this process tells Prometheus of itself."""

import asyncio
from collections.abc import Iterator

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from api.dependencies import Process
from api.hub import Hub

router = APIRouter(tags=["health"])


@router.get("/metrics")
async def metrics(process: Process) -> Response:
    """Counters and gauges of this one process."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_HubCollector(process.hub))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _HubCollector(Collector):
    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def collect(self) -> Iterator[Metric]:
        hub = self._hub
        yield GaugeMetricFamily("rejoin_followers", "Readers that follow a log.", hub.followers)
        yield GaugeMetricFamily("rejoin_followed_logs", "Logs that somebody follows.", hub.followed)
        yield GaugeMetricFamily(
            "rejoin_tracking", "1 while Redis tells which logs changed.", hub.is_tracking
        )
        yield GaugeMetricFamily(
            "rejoin_polling", "1 while all followed logs are polled instead.", hub.is_polling
        )
        yield CounterMetricFamily(
            "rejoin_tracking_losses", "How often Redis ceased to tell.", hub.losses
        )
        yield GaugeMetricFamily(
            "rejoin_tasks", "Tasks of the event loop.", len(asyncio.all_tasks())
        )
