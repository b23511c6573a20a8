"""Client is the Python client of a gateway: an endless stream of quotes, the current quote, the history, candles.

    async with Client("http://127.0.0.1:8000") as client:
        async for event in client.stream("bitcoin", "ethereum", since=positions, max_age=5.0):
            match event:
                case Quote(): ...
                case Gap(): ...

Prices are `Decimal` with every digit; times are aware UTC; positions give the order of quotes. A refusal is raised as
one of our errors (`cotacoes.errors`). A request over HTTP is sent once: the caller decides whether to try again.
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
from cotacoes.client.answers import CurrentQuote, QuoteCandle, read_candles, read_current
from cotacoes.client.modes import parse_mode
from cotacoes.client.quote_client import DEADLINE_S, GATEWAY, QuoteClient
from cotacoes.client.stream import Connect, Stream
from cotacoes.client.stream_state import StreamState
from cotacoes.errors import BadRequestError, StaleQuote
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
            raise ValueError(f"{url!r} is not the address of a gateway: write http://HOST:PORT")
        base = parts.geturl().rstrip("/")
        self._stream_url = f"ws{base.removeprefix('http')}/v1/ws"
        self._quotes = QuoteClient(GATEWAY, base, deadline_s=deadline_s, http=http)
        self._connect = connect or _connect
        self._clock = clock
        self._now = now
        self._random = random or SystemRandom()
        self._candles_max = candles_max
        self._streams: weakref.WeakSet[Stream] = weakref.WeakSet()

    async def __aenter__(self) -> Self:
        await self._quotes.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        """Close the client and its streams."""
        try:
            for stream in list(self._streams):
                await stream.aclose()
        finally:
            await self._quotes.__aexit__(*error)

    def stream(
        self, *coins: str, since: Since | None = None, mode: str = "every", max_age: float | None = None
    ) -> Stream:
        """Iterate over quotes and gaps as they come, over as many connections as needed, until the caller leaves.

        Without `since` each coin begins with its newest quote; with a position, one for all or one for each coin, it
        begins after that. Quotes and gaps together cover the history from there on: nothing comes twice, and whatever
        is missing is reported as a `Gap`.

        `mode` is `every`, `conflate` (the newest quote of each coin, as fast as the caller reads) or `interval:MS` (the
        same, every MS milliseconds). The last two yield `NewestQuote`, which stands for all quotes after its `after`.

        With `max_age`, in seconds, StaleQuote is raised once the newest quote of a coin is older, or none has come for
        that long; not while older quotes are being recovered, since newer ones follow. Errors that another try would
        not cure are raised too: UnknownCoinError or another RequestError, StreamClosedError.
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
        """The newest quote; StaleQuote if it may be older than `max_age` seconds, NoQuoteError if there is none."""
        asked_at = self._clock()
        answer = await self._quotes.current(coin)
        current = read_current(answer, self._clock() - asked_at)
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

        What the history itself lacks, after a restore from a backup, say, is a `Gap` with reason `hole` in its place.
        Pages are read one by one. After an UnavailableError all earlier quotes are good, and `after` the last of them
        continues. PositionGoneError says that some are no longer held.
        """
        position = None if after is None else _parsed(after)
        pages = self._quotes.pages(coin, after=position, last=last, start=_time(start), end=_time(end))
        async for page in pages:
            for quote in page.quotes:
                if gap := page.gap_before.get(quote.before):
                    yield gap
                yield quote

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

        `interval` is 1m, 5m, 15m, 30m, 1h, 4h or 1d. `limit` counts candles, or intervals without a start. Origin and
        currency default to those of the newest quote. BadRequestError beyond `CANDLES_MAX`.
        """
        candles: list[QuoteCandle] = []
        following = _time(start)
        most = self._candles_max if limit is None else limit
        while True:
            page = read_candles(
                coin,
                await self._quotes.candles(
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
    """The known position of each coin that has one; ValueError if it is invalid."""
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
    """The time as the routes take it; ValueError if it has no time zone."""
    if isinstance(at, datetime):
        if at.tzinfo is None:
            raise ValueError("give times with their time zone")
        return format_time(at)
    return at
