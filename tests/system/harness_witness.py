"""A witness of a storm: notes every position that anyone outside saw, and holds all of it against the shards.

    Redis channel ─┐
    /cotacao_atual ├─▶ Witness ──▶ audit ◀── every row of both shards
    `up --json`   ─┘

The audit is pure; `tests/unit/test_witness.py` plants each breach once and sees it found.
"""

import asyncio
import contextlib
import json
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple, Self

from tests.contract.conftest import psql

from cotacoes.adapters.redis_bus import RedisBus
from cotacoes.errors import BusUnavailableError, UnavailableError
from cotacoes.model.live_message import channel, decode_message
from cotacoes.model.quote import Position, Quote, format_price
from cotacoes.web.service_client import Addresses, ServiceClient

POLL_S = 0.02
AGAIN_S = 0.05
ROWS = """
SELECT json_build_array(f.coin, q.epoch, q.seq, q.price::text, e.prev_epoch, e.prev_seq)
FROM quote AS q JOIN fence AS f USING (coin_id)
LEFT JOIN era AS e ON (e.coin_id, e.epoch, 1) = (q.coin_id, q.epoch, q.seq)
WHERE f.state IN ('open', 'closed') ORDER BY f.coin, q.epoch, q.seq
"""


class Row(NamedTuple):
    """One quote as a shard stores it."""

    position: Position
    price: str
    prev: Position | None


@dataclass
class Seen:
    """What one observer saw of one coin, in the order of seeing it: positions with their prices, and what is gone."""

    quotes: list[tuple[Position, str]] = field(default_factory=list)
    gone: list[tuple[Position | None, Position]] = field(default_factory=list)


def audit(rows: Sequence[Row], seen: Iterable[Seen]) -> list[str]:
    """What is wrong with a coin's history, in words; none if every promise held.

    Every position that was seen is a row, once, at the price that was seen; no era has a hole; each era says by `prev`
    where the one before it ended.
    """
    prices = {row.position: row.price for row in rows}
    breaches = [] if len(prices) == len(rows) else [f"{len(rows) - len(prices)} positions are stored twice"]
    for before, row in pairwise([None, *rows]):
        assert row is not None
        if before is not None and row.position.epoch == before.position.epoch:
            if row.position.seq != before.position.seq + 1:
                breaches.append(f"a hole between {before.position} and {row.position}")
        elif row.position.seq != 1:
            breaches.append(f"the era begins with {row.position}")
        elif row.prev != (None if before is None else before.position):
            breaches.append(f"{row.position} names {row.prev} as the one before it, not {before and before.position}")
    for one in seen:
        breaches += [
            f"{position} was seen at {price}, and is stored as {prices.get(position)}"
            for position, price in one.quotes
            if prices.get(position) != price
        ]
    return breaches


def falls(positions: Sequence[Position], *, strictly: bool) -> list[str]:
    """Where positions that must rise, or must not fall, do not."""
    return [
        f"{later} was seen after {earlier}"
        for earlier, later in pairwise(positions)
        if later < earlier or (strictly and later == earlier)
    ]


def unreported(rows: Sequence[Row], seen: Seen) -> list[str]:
    """The positions between the first and the last shown that a subscriber neither showed nor reported as gone."""
    shown = {position for position, _ in seen.quotes}
    if not shown:
        return []
    return [
        f"{row.position} was neither shown nor reported as gone"
        for row in rows
        if min(shown) < row.position < max(shown)
        and row.position not in shown
        and not any((after is None or after < row.position) and row.position <= through for after, through in seen.gone)
    ]


def subscriber_lives(events: Iterable[Mapping[str, Any]]) -> list[dict[str, Seen]]:
    """What each process of client_subscriber said, by coin, from the lines of `up --json`."""
    lives: list[dict[str, Seen]] = [defaultdict(Seen)]
    for event in events:
        if event.get("part") == "client_subscriber" and event.get("state") == "starting":
            lives.append(defaultdict(Seen))
        elif event["type"] == "quote":
            lives[-1][event["coin"]].quotes.append((Position(event["epoch"], event["seq"]), event["price"]))
        elif event["type"] == "gone":
            after = None if event["after"] is None else Position.parse(event["after"])
            lives[-1][event["coin"]].gone.append((after, Position.parse(event["through"])))
    return lives


def stored_rows(dsns: Iterable[str]) -> dict[str, list[Row]]:
    """All quotes of all shards, by coin, read as an operator would."""
    rows: dict[str, list[Row]] = defaultdict(list)
    for dsn in dsns:
        for coin, epoch, seq, price, *prev in map(json.loads, psql(dsn, ROWS).splitlines()):
            rows[coin].append(Row(Position(epoch, seq), price, None if prev[0] is None else Position(*prev)))
    return rows


class Witness:
    """Listens on Redis and asks quote_service all the time, in a thread, bearing whatever is away."""

    def __init__(self, redis_url: str, quote_url: str, coins: Sequence[str]) -> None:
        self.published = {coin: Seen() for coin in coins}
        self.current = {coin: Seen() for coin in coins}
        self._redis_url = redis_url
        self._quote_url = quote_url
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, name="witness")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive(), "the witness does not end"
        if self._failures:
            raise self._failures[0]

    def _run(self) -> None:
        try:
            asyncio.run(self._watch())
        except BaseException as error:  # handed over to the test
            self._failures.append(error)

    async def _watch(self) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._listen()), group.create_task(self._ask())]
            while not self._stop.is_set() and not any(task.done() for task in tasks):
                await asyncio.sleep(AGAIN_S)
            for task in tasks:
                task.cancel()

    async def _listen(self) -> None:
        async with RedisBus(self._redis_url, deadline_s=1.0) as bus:
            while True:
                with contextlib.suppress(BusUnavailableError):
                    async with bus.subscribe([channel(coin) for coin in self.published]) as messages:
                        async for _, message in messages:
                            for line in decode_message(message):
                                if isinstance(line, Quote):
                                    self.published[line.coin].quotes.append((line.position, format_price(line.price)))
                await asyncio.sleep(AGAIN_S)

    async def _ask(self) -> None:
        async with ServiceClient(Addresses(quote_service=self._quote_url), deadline_s=1.0) as client:
            while True:
                for coin, seen in self.current.items():
                    with contextlib.suppress(UnavailableError):
                        answer = await client.current(coin)
                        seen.quotes.append((Position(answer.epoch, answer.seq), answer.price))
                await asyncio.sleep(POLL_S)
