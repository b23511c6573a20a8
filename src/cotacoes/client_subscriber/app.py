"""client_subscriber shows the last quote, then each quote as it comes, and recovers what the wire loses.

    Redis, history ──▶ FeedConsumer ──▶ Subscriber ──▶ output ──▶ stdout      changes of state ──▶ log (stderr)

`lines.py` describes the lines, `feed/consumer.py` when the history is asked for what.
"""

from __future__ import annotations

import asyncio
import functools
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from random import SystemRandom
from typing import TextIO

from cotacoes.adapters.redis_bus import RedisBus
from cotacoes.client_subscriber.lines import LineFormatter, as_json_line
from cotacoes.client_subscriber.output import Output
from cotacoes.client_subscriber.since import read_since
from cotacoes.config import Settings
from cotacoes.errors import OutputError, SettingError, UnavailableError, UnknownCoinError
from cotacoes.feed.consumer import BUS_QUIET_S, FeedConsumer, log_change
from cotacoes.feed.feeds import FeedEvent, Feeds
from cotacoes.feed.history import ServiceHistory
from cotacoes.model.coins import require_coin
from cotacoes.model.quote import COIN_PATTERN
from cotacoes.observability.logs import get_logger
from cotacoes.observability.printer import descriptor_writer
from cotacoes.web.background import background
from cotacoes.web.process import Stop
from cotacoes.web.service_client import Addresses, ServiceClient

WATCH_INTERVAL_S = 0.5
ASK_DEADLINE_S = 1.0


async def main(settings: Settings, stop: Stop) -> None:
    """Show all coins, in lines for people."""
    await run(settings, stop)


async def main_json(settings: Settings, stop: Stop) -> None:
    """Show all coins, as NDJSON for programs."""
    await run(settings, stop, as_json=True)


async def run(
    settings: Settings,
    stop: Stop,
    *,
    coins: Sequence[str] = (),
    since: Sequence[str] = (),
    as_json: bool = False,
    out: TextIO | None = None,
    ask: Callable[[Settings], Awaitable[list[str]]] | None = None,
) -> None:
    """Show `coins` (by default all) until `stop`, or until nobody reads; SettingError for an unknown coin.

    `since` are texts for `read_since`; SettingError for an invalid one. `out` is a stream with a file descriptor, by
    default standard output; nothing else may write to it. `ask` returns the coins that exist, by default from
    quote_service.
    """
    # of all, only coins are shown; the series of a venue must be named
    ask_coins = functools.partial(ask or functools.partial(known_coins, venues=bool(coins)), settings)
    chosen = _chosen(coins, await ask_coins(), settings.seed_placement)
    feeds = Feeds(chosen, time.monotonic(), since=read_since(since, chosen), prefix=settings.channel_prefix)
    out = sys.stdout if out is None else out
    end = OutputEnd(stop)
    output = Output(descriptor_writer(out.fileno()), end)
    subscriber = Subscriber(
        output,
        render=as_json_line if as_json else _for_people(chosen, out),
        log_changes=as_json or not out.isatty(),  # on a terminal the lines show them already
    )
    bus = RedisBus(settings.redis, deadline_s=settings.publish_deadline_ms / 1000)
    client = ServiceClient(Addresses.of(settings))
    consumer = FeedConsumer(
        feeds,
        bus,
        ServiceHistory(client),
        subscriber.show,
        clock=time.monotonic,
        random=SystemRandom(),
        bus_quiet_s=BUS_QUIET_S if as_json else 0.0,  # a person is warned at once; `up` starts all services together
    )
    get_logger().info("service.started", coins=",".join(chosen))
    consuming = consumer.run(newcomers=None if coins else ask_coins)
    async with output, bus, client, background(consuming, subscriber.watch_reader()):
        await stop.event.wait()
    if end.failure is not None:
        raise end.failure
    get_logger().info("service.stopped", code=stop.code)


def _for_people(coins: Sequence[str], out: TextIO) -> Callable[[FeedEvent], bytes]:
    coloured = out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    lines = LineFormatter(max(map(len, coins)), coloured=coloured)
    encoding = out.encoding or "utf-8"
    return lambda event: lines.line(event, datetime.now(UTC).astimezone()).encode(encoding, "replace")


async def known_coins(settings: Settings, *, venues: bool = False) -> list[str]:
    """The coins of quote_service, and with `venues` also the series of venues; none if it does not answer."""
    try:
        async with ServiceClient(Addresses.of(settings), deadline_s=ASK_DEADLINE_S) as client:
            return list(await client.positions(venues=venues))
    except UnavailableError:
        return []


def _chosen(coins: Sequence[str], known: Sequence[str], seed: Iterable[str]) -> list[str]:
    """The coins to show. If it is unknown which exist, every possible name is accepted."""
    if not known:
        known = [*seed, *(coin for coin in coins if COIN_PATTERN.match(coin))]
    try:
        return [require_coin(coin, known) for coin in dict.fromkeys(coins)] or list(dict.fromkeys(known))
    except UnknownCoinError as error:
        near = error.extra["did_you_mean"]
        hint = f": did you mean {', '.join(map(str, near))}?" if isinstance(near, list) and near else ""
        raise SettingError(f"{error.detail}{hint}") from error


class OutputEnd:
    """Stops the subscriber once its output fails; `failure` is the reason, unless the reader chose to leave."""

    def __init__(self, stop: Stop) -> None:
        self.failure: OutputError | None = None
        self._stop = stop

    def __call__(self, error: OSError) -> None:
        if not isinstance(error, BrokenPipeError):
            self.failure = OutputError.of(error)
        self._stop()


class Subscriber:
    """Shows events. With `log_changes`, changes are logged too, for when the lines are for a program."""

    def __init__(self, output: Output, *, render: Callable[[FeedEvent], bytes], log_changes: bool) -> None:
        self._output = output
        self._render = render
        self._log_changes = log_changes

    async def show(self, events: Iterable[FeedEvent]) -> None:
        """Show events; waits for a slow reader."""
        for event in events:
            if self._log_changes:
                log_change(event)
            await self._output.put(self._render(event))

    async def watch_reader(self) -> None:
        """Log when nobody reads, until cancelled; a reader that is only slow is not reported."""
        is_stuck, written = False, 0
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            was_stuck, is_stuck = is_stuck, self._output.is_stuck and self._output.written == written
            written = self._output.written
            if is_stuck and not was_stuck:
                get_logger().warning("output.stuck", reason="nobody reads standard output")
            elif was_stuck and not is_stuck:
                get_logger().info("output.flowing")
