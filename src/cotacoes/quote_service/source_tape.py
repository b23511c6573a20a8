"""A source's tape over HTTP: `GET /quotes`, page by page, each price under one strict rule, as in `source_http`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlencode

import msgspec

from cotacoes.errors import SourceGoneError, SourceMalformedError
from cotacoes.model.quote import CURRENCY_PATTERN, ORIGIN_PATTERN, Observation, PriceError, parse_price, parse_time
from cotacoes.quote_service.source import Get, answer_of, unexpected

ANSWER_BYTES_MAX = 1_048_576  # a page of 4,000 prices has some 500 KB, 900 KB with the most digits
CURSOR_MAX = 100
ORIGIN_MAX = 100
STEP_PRICES = 500  # read without a pause, in about a millisecond


class _Entry(msgspec.Struct):
    index: int
    coin: str
    currency: str
    price: str
    observed_at: str


class _Page(msgspec.Struct):
    run: str
    origin: str
    quotes: list[_Entry]
    next: str


class _Gone(msgspec.Struct):
    next: str


_page = msgspec.json.Decoder(_Page)
_gone = msgspec.json.Decoder(_Gone)


@dataclass(frozen=True, slots=True)
class TapePage:
    """Prices with their indices in the run, ascending. `rejected` pairs a coin with why its price can not be read.

    `first` is the index of the first price, rejected or not, 0 where there is none; `count` says how many there are.
    Prices of coins that are not ours are only counted, as `unknown`.
    """

    run: str
    next: str
    first: int
    count: int
    entries: list[tuple[int, Observation]]
    rejected: list[tuple[str, str]]
    unknown: int = 0


class HttpTape:
    """The tape at the base address `url`, for `coins`, which may become more."""

    def __init__(
        self,
        client: Get,
        url: str,
        coins: Container[str],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._url = f"{url.rstrip('/')}/quotes"
        self._coins = coins
        self._now = now

    async def after(self, cursor: str | None, limit: int, wait_s: float) -> TapePage:
        """The prices after a cursor; an empty page after `wait_s` where there is none.

        Raises SourceGoneError where the source knows the cursor no more, else as `HttpSource.fetch`.
        """
        asked: dict[str, str | int] = {"limit": limit, "wait_ms": round(wait_s * 1000)}
        if cursor is not None:
            asked["after"] = cursor
        response = await answer_of(self._client, f"{self._url}?{urlencode(asked)}", self._now)
        if response.status == 410:
            raise SourceGoneError("the source does not know the cursor any more", cursor=_read_gone(response.body))
        if response.status != 200:
            raise unexpected(response.status)
        return await read_page(response.body, self._coins, limit)


async def read_page(body: bytes, coins: Container[str], limit: int) -> TapePage:
    """Read what the body of `/quotes` says of these coins; SourceMalformedError if it is no page of up to `limit`."""
    if body.count(b"{") > limit + ORIGIN_MAX:  # before it is decoded; only an origin may hold a brace too
        raise SourceMalformedError("the page is longer than what was asked for")
    try:
        page = _page.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise SourceMalformedError("the answer is not a page of a tape") from error
    if ORIGIN_PATTERN.match(page.origin) is None or len(page.next) > CURSOR_MAX:
        raise SourceMalformedError("the answer is not a page of a tape")
    if len(page.quotes) > limit:
        raise SourceMalformedError("the page is longer than what was asked for")
    first = page.quotes[0].index if page.quotes else 0
    entries: list[tuple[int, Observation]] = []
    rejected: list[tuple[str, str]] = []
    unknown = 0
    for number, entry in enumerate(page.quotes):
        if number % STEP_PRICES == 0:
            await asyncio.sleep(0)
        if entry.index != first + number:
            raise SourceMalformedError("the page is out of order")
        if entry.coin not in coins:
            unknown += 1
            continue
        try:
            entries.append((entry.index, _observation(entry, page.origin)))
        except PriceError as error:
            rejected.append((entry.coin, error.reason))
        except ValueError:
            rejected.append((entry.coin, "malformed"))
    return TapePage(page.run, page.next, first, len(page.quotes), entries, rejected, unknown)


def _observation(entry: _Entry, origin: str) -> Observation:
    if CURRENCY_PATTERN.match(entry.currency) is None:
        raise ValueError
    return Observation(entry.coin, entry.currency, parse_price(entry.price), parse_time(entry.observed_at), origin)


def _read_gone(body: bytes) -> str:
    try:
        return _gone.decode(body).next[:CURSOR_MAX]
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise SourceMalformedError("the source does not say where its tape begins") from error
