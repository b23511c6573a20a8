"""The client of a gateway: the stream of quotes that does not end, the current quote, the history, candles.

    async with Client("http://127.0.0.1:8000") as client:
        async for event in client.stream("bitcoin", "ethereum", since=positions, max_age=5.0):
            match event:
                case Quote(): ...
                case Gap(): ...

Prices are `Decimal`, with every digit; times are aware UTC; positions say what comes after what. A refusal is raised as
the error that it is (`cotacoes.errors`). A question over HTTP is asked once: whether to ask again is the caller's.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from random import Random, SystemRandom
from typing import Any, Self
from urllib.parse import urlsplit

from cotacoes.adapters.http_client import HttpClient
from cotacoes.adapters.websocket_client import Link, connect
from cotacoes.client.answers import CurrentQuote, QuoteCandle, read_candles, read_current, read_quotes
from cotacoes.client.modes import parse_mode
from cotacoes.client.service_client import DEADLINE_S, Addresses, ServiceClient
from cotacoes.client.stream import Connect, Stream
from cotacoes.client.stream_state import StreamState
from cotacoes.errors import BadRequestError, StaleQuote
from cotacoes.feed.history import PAGE_QUOTES
from cotacoes.model.quote import Position, Quote, format_time
from cotacoes.patterns.pub_sub.bus import Gap

CONNECT_S = 5.0
CANDLES_MAX = 100_000  # of one call: ten weeks of minutes
PAGE_CANDLES = 1_000

At = Position | str
Since = At | Mapping[str, At]


class Client:
    """An async context manager; see the head of this file.

    `url` is the gateway's, `deadline_s` of each HTTP request. `http`, `connect`, `clock` (monotonic seconds), `now` and
    `random` can be replaced; `candles_max` bounds one call of `candles`.
    """

    def __init__(
        self,
        url: str,
        *,
        deadline_s: float = DEADLINE_S,
        http: HttpClient | None = None,
        connect: Connect | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        random: Random | None = None,
        candles_max: int = CANDLES_MAX,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"the address of a gateway is written http://HOST:PORT, not {url!r}")
        base = parts.geturl().rstrip("/")
        self._stream_url = f"ws{base.removeprefix('http')}/v1/ws"
        self._reader = ServiceClient(Addresses(gateway_service=base), deadline_s=deadline_s, http=http)
        self._connect = connect or _connect
        self._clock = clock
        self._now = now
        self._random = random or SystemRandom()
        self._candles_max = candles_max
        self._streams: weakref.WeakSet[Stream] = weakref.WeakSet()

    async def __aenter__(self) -> Self:
        await self._reader.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        """Closes its streams as well."""
        try:
            for stream in list(self._streams):
                await stream.aclose()
        finally:
            await self._reader.__aexit__(*error)

    def stream(
        self, *coins: str, since: Since | None = None, mode: str = "every", max_age: float | None = None
    ) -> Stream:
        """Quotes and gaps as they come, over as many connections as it takes, until the caller leaves.

        Without `since` each coin begins with its newest quote; with a position, one for all or one by coin, with what
        comes after it. What was received, and what was told as a `Gap`, tile the history from there on: nothing comes
        twice, and nothing is missing that was not told.

        `mode` is `every`, `conflate` (the newest of each coin, as fast as it is taken) or `interval:MS` (the same, each
        so many milliseconds). In these two each quote is a `NewestQuote`, which stands for all after its `after`.

        With `max_age`, in seconds, StaleQuote is raised once the newest quote of a coin is older and no newer one came,
        also where none ever comes; not while older ones are recovered, which have successors. Raised is also what
        trying again does not mend: UnknownCoinError or another RequestError, StreamClosedError.
        """
        if not coins:
            raise ValueError("name at least one coin")
        if max_age is not None and not max_age > 0:
            raise ValueError("max_age: give seconds, more than 0")
        state = StreamState(
            list(dict.fromkeys(coins)),
            self._clock(),
            since=_positions(since, coins),
            mode=str(parse_mode(mode)),
            max_age_s=max_age,
        )
        stream = Stream(self._stream_url, state, self._connect, clock=self._clock, now=self._now, random=self._random)
        self._streams.add(stream)
        return stream

    async def quote(self, coin: str, *, max_age: float | None = None) -> CurrentQuote:
        """The newest quote. StaleQuote where it may be older than `max_age` seconds, NoQuoteError where none is."""
        asked_at = self._clock()
        answer = await self._reader.current(coin)
        current = read_current(coin, answer, self._clock() - asked_at)
        if max_age is not None and current.age_s > max_age:
            raise StaleQuote(coin, current.age_s)
        return current

    async def history(
        self,
        coin: str,
        *,
        after: At | None = None,
        start: datetime | str | None = None,
        end: datetime | str | None = None,
        last: int | None = None,
    ) -> AsyncIterator[Quote | Gap]:
        """All quotes after a position, those with `at` in [start, end), or the `last` ones: in order, without a hole.

        What the history itself lacks is a `Gap`, reason `hole`, in its place: it was restored from a backup, say. Pages
        are read one by one. After an UnavailableError what was given is good, and `after` its last goes on; with
        PositionGoneError some are no longer held.
        """
        position = None if after is None else _parsed(after)
        known = position if start is None else None  # what the first page has to follow
        more = True
        while more:
            answer = await self._reader.quotes(
                coin,
                after=None if position is None else str(position),
                last=last,
                limit=PAGE_QUOTES,
                start=_time(start),
                end=_time(end),
            )
            page = read_quotes(coin, answer, known)
            more = page.more
            for quote in page.quotes:
                if gap := page.gap_before.get(quote.before):
                    yield gap
                yield quote
                position = known = quote.position

    async def candles(
        self,
        coin: str,
        interval: str,
        *,
        start: datetime | str | None = None,
        end: datetime | str | None = None,
        limit: int | None = None,
        origin: str | None = None,
        currency: str | None = None,
    ) -> list[QuoteCandle]:
        """The candles of [start, end), widened to whole intervals; without a start the last ones; without empty ones.

        `interval` is 1m, 5m, 15m, 30m, 1h, 4h or 1d. `limit` is of candles; without a start of intervals. Origin and
        currency are those of the newest quote where they are not given. BadRequestError beyond `CANDLES_MAX`.
        """
        candles: list[QuoteCandle] = []
        following = _time(start)
        most = self._candles_max if limit is None else limit
        while True:
            page = read_candles(
                coin,
                await self._reader.candles(
                    coin,
                    interval,
                    start=following,
                    end=_time(end),
                    limit=limit if start is None else min(PAGE_CANDLES, most - len(candles)),
                    origin=origin,
                    currency=currency,
                ),
            )
            candles += page.candles
            following, origin, currency = page.next, page.origin, page.currency
            if following is None or start is None or len(candles) == limit:
                return candles
            if len(candles) >= self._candles_max:
                raise BadRequestError(
                    f"more than {self._candles_max} candles: ask for a shorter range, or give a limit"
                )


async def _connect(url: str) -> Link:
    return await connect(url, deadline_s=CONNECT_S)


def _positions(since: Since | None, coins: Sequence[str]) -> dict[str, Position]:
    """By coin the position that is known already; ValueError where it is none."""
    if since is None:
        return {}
    if not isinstance(since, Mapping):
        return dict.fromkeys(coins, _parsed(since))
    if strange := since.keys() - set(coins):
        raise ValueError(f"since: {min(strange)} is not among the coins")
    return {coin: _parsed(position) for coin, position in since.items()}


def _parsed(at: At) -> Position:
    return Position.parse(str(at))


def _time(at: datetime | str | None) -> str | None:
    """As the routes take it; ValueError where it has no offset."""
    if isinstance(at, datetime):
        if at.tzinfo is None:
            raise ValueError("give times with their time zone")
        return format_time(at)
    return at
