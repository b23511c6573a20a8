"""client_subscriber: prints quotes as they come, and says when it missed some.

    Redis ──▶ feeds ──▶ lines ──▶ output ──▶ stdout          changes of state ──▶ log (stderr)

A link that dies is made again, with growing, jittered pauses; what was missed meanwhile shows in the positions. The
first message of a coin is where its feed begins.
"""

from __future__ import annotations

import asyncio
import functools
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from random import Random, SystemRandom
from typing import TextIO

from cotacoes.adapters.bus_redis import RedisBus
from cotacoes.client import Addresses, ServiceClient
from cotacoes.client_subscriber.feeds import Back, Event, Feeds, Missed, Seen, Silent
from cotacoes.client_subscriber.lines import Lines, as_json_line, gap_fields
from cotacoes.client_subscriber.output import Output, descriptor_writer
from cotacoes.config import Settings
from cotacoes.errors import BusUnavailableError, SettingError, UnavailableError, UnknownCoinError
from cotacoes.live import channel
from cotacoes.patterns.backoff import Backoff
from cotacoes.patterns.pub_sub import Bus
from cotacoes.quote import COIN_PATTERN
from cotacoes.service import Stop, background, require_coin
from cotacoes.telemetry import get_logger

RECONNECT_MOST_S = 2.0
WATCH_INTERVAL_S = 0.5
ASK_DEADLINE_S = 1.0
JOIN_INTERVAL_S = 5.0


async def main(settings: Settings, stop: Stop) -> None:
    """All coins, in lines for people."""
    await run(settings, stop)


async def main_json(settings: Settings, stop: Stop) -> None:
    """All coins, as NDJSON for programs."""
    await run(settings, stop, as_json=True)


async def run(
    settings: Settings,
    stop: Stop,
    *,
    coins: Sequence[str] = (),
    as_json: bool = False,
    out: TextIO | None = None,
    ask: Callable[[Settings], Awaitable[list[str]]] | None = None,
) -> None:
    """Show `coins` (none named: all) until `stop` or until nobody reads; SettingError for a coin that is not quoted.

    `out` is a stream with a file descriptor, standard output where none is given; nothing else may write to it. `ask`
    tells which coins there are, quote_service where none is given.
    """
    ask_coins = functools.partial(ask or known_coins, settings)
    chosen = _chosen(coins, await ask_coins(), settings.seed_placement)
    out = sys.stdout if out is None else out
    is_terminal = out.isatty()
    output = Output(descriptor_writer(out.fileno()), lambda error: _end(stop, error))
    subscriber = Subscriber(
        Feeds(chosen, time.monotonic()),
        output,
        render=as_json_line if as_json else _for_people(chosen, out),
        log_changes=as_json or not is_terminal,  # on a terminal the lines say it already
        clock=time.monotonic,
        random=SystemRandom(),
    )
    bus = RedisBus(settings.redis, deadline_s=settings.publish_deadline_ms / 1000)
    get_logger().info("service.started", coins=",".join(chosen))
    work = [subscriber.listen(bus, [channel(coin) for coin in chosen]), subscriber.watch()]
    if not coins:
        work.append(subscriber.join_newcomers(bus, ask_coins))
    async with output, bus, background(*work):
        await stop.event.wait()
    get_logger().info("service.stopped", code=stop.code)


def _for_people(coins: Sequence[str], out: TextIO) -> Callable[[Event], bytes]:
    coloured = out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    lines = Lines(max(map(len, coins)), coloured=coloured)
    encoding = out.encoding or "utf-8"
    return lambda event: lines.line(event, datetime.now(UTC).astimezone()).encode(encoding, "replace")


async def known_coins(settings: Settings) -> list[str]:
    """The coins that quote_service has; none where it can not say."""
    try:
        async with ServiceClient(Addresses.of(settings), deadline_s=ASK_DEADLINE_S) as client:
            return list(await client.positions())
    except UnavailableError:
        return []


def _chosen(coins: Sequence[str], known: Sequence[str], seed: Iterable[str]) -> list[str]:
    """The coins to show. Where nobody says which there are, every name that can be one is believed."""
    if not known:
        known = [*seed, *(coin for coin in coins if COIN_PATTERN.match(coin))]
    try:
        return [require_coin(coin, known) for coin in dict.fromkeys(coins)] or list(dict.fromkeys(known))
    except UnknownCoinError as error:
        near = error.extra["did_you_mean"]
        hint = f": did you mean {', '.join(map(str, near))}?" if isinstance(near, list) and near else ""
        raise SettingError(f"{error.detail}{hint}") from error


def _end(stop: Stop, error: OSError) -> None:
    """Nobody reads any more: quietly at an end of our reader's own choosing, else saying why."""
    if isinstance(error, BrokenPipeError):
        stop()
    else:
        get_logger().error("output.failed", reason=error.strerror)
        stop(1)


class Subscriber:
    """Shows what the feeds say. `log_changes` says changes in the log as well, for when the lines are for a program."""

    def __init__(
        self,
        feeds: Feeds,
        output: Output,
        *,
        render: Callable[[Event], bytes],
        log_changes: bool,
        clock: Callable[[], float],
        random: Random,
    ) -> None:
        self._feeds = feeds
        self._output = output
        self._render = render
        self._log_changes = log_changes
        self._clock = clock
        self._backoff = Backoff(random, most_s=RECONNECT_MOST_S)
        self._is_away = False
        self._is_refusing = False
        self._is_stuck = False

    async def join_newcomers(self, bus: Bus, ask: Callable[[], Awaitable[list[str]]]) -> None:
        """Listen to the coins that come later as well, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await asyncio.sleep(JOIN_INTERVAL_S)
                if joined := self._feeds.add(await ask(), self._clock()):
                    get_logger().info("coins.joined", coins=",".join(joined))
                    group.create_task(self.listen(bus, [channel(coin) for coin in joined]))

    async def listen(self, bus: Bus, channels: Sequence[str]) -> None:
        """Listen, and listen again when the link dies, until cancelled."""
        while True:
            try:
                async with bus.subscribe(channels) as messages:
                    self._note_back()
                    async for channel, message in messages:
                        await self._take(channel, message)
            except BusUnavailableError as error:
                self._note_away(error.detail)
            await asyncio.sleep(self._backoff.next_s())

    async def watch(self) -> None:
        """Say which feeds fall silent, until cancelled. Not while the reader does not read: then nobody listens."""
        written = 0
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            self._note_stuck(self._output.is_stuck and self._output.written == written)  # else it is only slow
            written = self._output.written
            if not self._output.is_stuck:
                await self._show(self._feeds.fall_silent(self._clock()))

    async def _take(self, channel: str, message: bytes) -> None:
        try:
            events = self._feeds.take(channel, message, self._clock())
        except ValueError as error:
            if not self._is_refusing:  # once for each run of them
                get_logger().warning("message.refused", channel=channel, reason=str(error))
            self._is_refusing = True
            return
        self._is_refusing = False
        self._backoff.reset()
        await self._show(events)

    async def _show(self, events: Iterable[Event]) -> None:
        for event in events:
            if self._log_changes:
                _log(event)
            if await self._output.put(self._render(event)):
                self._feeds.rearm(self._clock())

    def _note_away(self, reason: str) -> None:
        if not self._is_away:
            get_logger().warning("bus.away", reason=reason)
        self._is_away = True

    def _note_back(self) -> None:
        if self._is_away:
            get_logger().info("bus.back")
        self._is_away = False

    def _note_stuck(self, is_stuck: bool) -> None:
        if is_stuck and not self._is_stuck:
            get_logger().warning("output.stuck", reason="nobody reads")
        elif self._is_stuck and not is_stuck:
            get_logger().info("output.flowing")
        self._is_stuck = is_stuck


def _log(event: Event) -> None:
    match event:
        case Missed(gap):
            get_logger().warning("gap.found", **gap_fields(gap))
        case Silent(coin):
            get_logger().warning("feed.silent", coin=coin)
        case Back(coin):
            get_logger().info("feed.back", coin=coin)
        case Seen():
            pass  # counted by who reads them, never logged
