"""Queries the shards, Redis and the services by public means: each query has a deadline, and none changes anything."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from cotacoes.adapters.http_client import HttpClient
from cotacoes.adapters.postgres.schema import inspect, mistaken
from cotacoes.adapters.redis_bus import RedisBus
from cotacoes.client.quote_client import ANSWER_BYTES_MAX
from cotacoes.doctor.facts import Prices, ShardFacts
from cotacoes.errors import BusUnavailableError, CotacoesError, HttpError, ProblemError
from cotacoes.model.payloads import CurrentJson
from cotacoes.model.venues import VenuesJson
from cotacoes.web.service_client import Addresses, ServiceClient

ASK_DEADLINE_S = 1.5
WATCH_S = 1.3  # between two readings of the counters: each coin has a heartbeat per second
DAYS_AHEAD = 2
PREPARED_BY = timedelta(hours=1)  # quote_service makes partitions once an hour, so a new day's furthest comes that late
COINS_MAX = 200  # queried one by one; if more fail, they fail together

Metrics = Mapping[tuple[str, str], float]


async def ask_shard(name: str, dsn: str, now: datetime) -> ShardFacts:
    """The facts about one shard, whatever schema it has."""
    last = (now - PREPARED_BY).date() + timedelta(days=DAYS_AHEAD)
    questions: Mapping[str, tuple[Any, ...]] = {
        "migrations": (),
        "identity": (),
        "newest_at": (),
        "missing_days": (now.date(), last),
    }
    try:
        found = await inspect(name, dsn, questions, deadline_s=ASK_DEADLINE_S)
    except CotacoesError as error:
        return ShardFacts(problem=str(error))
    for identity in found["identity"]:
        if identity["name"] != name:
            return ShardFacts(problem=mistaken(name, identity["name"]))
    return ShardFacts(
        migrations=found["migrations"],
        missing_days=[row["day"] for row in found["missing_days"]],
        newest_at=next((row["newest_at"] for row in found["newest_at"]), None),
    )


async def ask_redis(url: str) -> str | None:
    """Why Redis does not answer; None if it does."""
    try:
        async with RedisBus(url, deadline_s=ASK_DEADLINE_S) as bus:
            await bus.ping()
    except BusUnavailableError as error:
        return error.detail
    except CotacoesError as error:
        return str(error)
    return None


async def ask_alive(addresses: Addresses, services: Iterable[str]) -> dict[str, str]:
    """The services that do not answer, with the reasons."""
    silent: dict[str, str] = {}

    async def ask(client: ServiceClient, service: str) -> None:
        try:
            await client.check_alive(service)
        except ProblemError as error:
            silent[service] = error.detail

    async with ServiceClient(addresses, deadline_s=ASK_DEADLINE_S) as client:
        await asyncio.gather(*(ask(client, service) for service in services))
    return silent


async def ask_venues(addresses: Addresses) -> VenuesJson | str:
    """The answer of feed_service, or why there is none."""
    try:
        async with ServiceClient(addresses, deadline_s=ASK_DEADLINE_S) as client:
            return await client.venues()
    except ProblemError as error:
        return error.detail


async def ask_prices(addresses: Addresses) -> Prices:
    """The answers of quote_service, and its counters over `WATCH_S`."""
    async with (
        ServiceClient(addresses, deadline_s=ASK_DEADLINE_S) as client,
        HttpClient(ASK_DEADLINE_S, ANSWER_BYTES_MAX) as http,
    ):
        try:
            progress = await client.positions()
            before = await _metrics(http, addresses.quote_service)
        except (ProblemError, HttpError) as error:
            return Prices(problem=getattr(error, "detail", None) or f"quote_service is away ({error})")
        _, currents, readiness = await asyncio.gather(
            asyncio.sleep(WATCH_S),
            _currents(client, list(progress)[:COINS_MAX]),
            _readiness(http, addresses.quote_service),
        )
        after = before
        with contextlib.suppress(HttpError):  # it went away just now: the next run of the doctor will say so
            after = await _metrics(http, addresses.quote_service)
    return Prices(
        currents=currents,
        progress=progress,
        oldest_pending_s=_by_coin("cotacoes_oldest_pending_age_seconds", after),
        readiness=readiness,
        unheard=_risen("cotacoes_messages_without_subscriber_total", before, after, progress),
        unpublished=_risen("cotacoes_publish_failures_total", before, after, progress),
        source_gaps=int(after.get(("cotacoes_source_gaps_total", ""), 0)),
    )


async def _currents(client: ServiceClient, coins: Sequence[str]) -> dict[str, CurrentJson | str]:
    async def ask(coin: str) -> CurrentJson | str:
        try:
            return await client.current(coin)
        except ProblemError as error:
            return error.detail

    return dict(zip(coins, await asyncio.gather(*map(ask, coins)), strict=True))


async def _readiness(http: HttpClient, url: str) -> dict[str, str]:
    with contextlib.suppress(
        HttpError, msgspec.MsgspecError, UnicodeDecodeError, LookupError, TypeError, AttributeError
    ):
        answer = msgspec.json.decode((await http.get(f"{url}/readyz")).body)
        return {name: str(one["reason"]) for name, one in answer["checks"].items() if not one["ok"]}
    return {}


async def _metrics(http: HttpClient, url: str) -> Metrics:
    """The samples by name and coin; empty if the answer is not in the format of metrics."""
    text = (await http.get(f"{url}/metrics")).body.decode("utf-8", "replace")
    with contextlib.suppress(ValueError):
        return {
            (sample.name, sample.labels.get("coin", "")): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
    return {}


def _by_coin(name: str, metrics: Metrics) -> dict[str, float]:
    return {coin: value for (metric, coin), value in metrics.items() if metric == name}


def _risen(name: str, before: Metrics, after: Metrics, coins: Container[str]) -> list[str]:
    """Those of these coins whose counter has risen."""
    counts = _by_coin(name, after)
    return [coin for coin, value in counts.items() if coin in coins and value > before.get((name, coin), 0)]
