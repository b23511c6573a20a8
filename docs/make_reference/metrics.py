"""The metrics of every service, from the registries of services that are built in memory."""

from __future__ import annotations

import asyncio
import contextlib
import io
import math
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from docs.make_reference.markdown import WRITTEN, code, codes, joined, table
from prometheus_client import CollectorRegistry
from tests.unit.harness_openapi import SERVICES

from cotacoes.observability.metrics import Metrics, SpanMetrics
from cotacoes.web.background import Restarts

INTRODUCTION = """
Every HTTP service answers `GET /metrics` in Prometheus' text format. client_subscriber has no HTTP, hence no metrics.
Durations are in seconds. A histogram has `_bucket`, `_sum` and `_count`.
"""


# parts of a service that are not built in memory, or only if they are wanted
FURTHER: dict[str, tuple[Callable[[Metrics], object], ...]] = {"quote": (Restarts,)}
OPTIONAL: tuple[Callable[[Metrics], object], ...] = (SpanMetrics,)  # if traces are sent


def page() -> str:
    """The metrics by the services that have them, those of most services first."""
    names = ("gateway", "quote", "aggregator", "feed", "external")
    of_each = {f"{name}_service": asyncio.run(_metrics(name)) for name in names}
    sections: dict[tuple[str, ...], dict[str, Any]] = {}
    for metrics in of_each.values():
        for name, metric in metrics.items():
            owners = tuple(service for service, its in of_each.items() if name in its)
            sections.setdefault(owners, {})[name] = metric
    ordered = sorted(sections.items(), key=lambda section: (-len(section[0]), section[0]))
    titles = {tuple(of_each): "Every HTTP service"}
    shown = (_section(titles.get(owners, ", ".join(owners)), metrics) for owners, metrics in ordered)
    return joined("# Metrics", WRITTEN, INTRODUCTION, *shown)


async def _metrics(service: str) -> dict[str, Any]:
    """Collectors by name, as a service registers them while it is built."""
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.StringIO()),
        _registered() as collectors,
    ):
        for part in (*OPTIONAL, *FURTHER.get(service, ())):
            part(Metrics())
        async with SERVICES[service](Path(folder)):
            pass
    found: dict[str, Any] = {}
    for collector in collectors:
        for family in collector.describe() if hasattr(collector, "describe") else collector.collect():
            found[_name(family)] = (family, collector)
    return found


@contextlib.contextmanager
def _registered() -> Iterator[list[Any]]:
    """What is registered within, in any registry."""
    collectors: list[Any] = []
    register = CollectorRegistry.register

    def noting(self: CollectorRegistry, collector: Any) -> None:
        collectors.append(collector)
        register(self, collector)

    with patch.object(CollectorRegistry, "register", noting):
        yield collectors


def _section(title: str, metrics: dict[str, Any]) -> str:
    rows = []
    for name, (family, collector) in sorted(metrics.items()):
        labels = codes(getattr(collector, "_labelnames", ()))
        rows.append((code(name), family.type, labels, family.documentation + _buckets(collector)))
    return joined(f"## {title}", table(("metric", "type", "labels", "meaning"), rows))


def _name(family: Any) -> str:
    return f"{family.name}_total" if family.type == "counter" else str(family.name)


def _buckets(collector: Any) -> str:
    bounds = getattr(collector, "_kwargs", {}).get("buckets") or ()
    return f" (buckets: {', '.join(f'{bound:g}' for bound in bounds if bound != math.inf)})" if bounds else ""
