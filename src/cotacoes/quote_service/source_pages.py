"""The body of the source's `GET /quotes`: one page of its tape, each price read with the strict rules of the poll."""

from __future__ import annotations

import asyncio
from collections.abc import Container, Mapping
from dataclasses import dataclass, field

import msgspec

from cotacoes.errors import SourceMalformedError
from cotacoes.model.payloads import SourcePageJson, SourcePriceJson
from cotacoes.model.quote import (
    CURRENCY_PATTERN,
    ORIGIN_PATTERN,
    Agreement,
    Observation,
    PriceError,
    parse_price,
    parse_time,
)
from cotacoes.quote_service.source_quote import STEP_PRICES

# A page of 4,000 prices has some 500 KB, and 900 KB if venues agreed on them; twice as much with the most digits.
ANSWER_BYTES_MAX = 2_097_152
CURSOR_MAX = 100
ORIGIN_MAX = 100


class _Gone(msgspec.Struct):
    next: str


_page = msgspec.json.Decoder(SourcePageJson)
_gone = msgspec.json.Decoder(_Gone)


@dataclass(frozen=True, slots=True)
class TapePage:
    """Prices with their indices in the run, ascending. `unreadable` pairs a coin with why its price cannot be read.

    `first` is the index of the page's first price, readable or not, and 0 if it has none; `count` is how many it has.
    `unknown` counts the prices of coins that are not ours. `reasons` says why the source has no price of a coin now.
    """

    run: str
    next: str
    first: int
    count: int
    entries: list[tuple[int, Observation]]
    unreadable: list[tuple[str, str]]
    unknown: int = 0
    reasons: Mapping[str, str] = field(default_factory=dict)


async def read_page(body: bytes, coins: Container[str], limit: int) -> TapePage:
    """The prices of these coins in the body; SourceMalformedError if it is no page of up to `limit` prices."""
    if body.count(b"{") > limit + ORIGIN_MAX:  # before it is decoded; only an origin may hold a brace too
        raise SourceMalformedError("the page has more prices than were asked for")
    try:
        page = _page.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise SourceMalformedError("the answer is not a page of a tape") from error
    if ORIGIN_PATTERN.match(page.origin) is None or len(page.next) > CURSOR_MAX:
        raise SourceMalformedError("the answer is not a page of a tape")
    if len(page.quotes) > limit:
        raise SourceMalformedError("the page has more prices than were asked for")
    first = page.quotes[0].index if page.quotes else 0
    entries: list[tuple[int, Observation]] = []
    unreadable: list[tuple[str, str]] = []
    unknown = 0
    for number, entry in enumerate(page.quotes):
        if number % STEP_PRICES == 0:
            await asyncio.sleep(0)
        if entry.index != first + number:
            raise SourceMalformedError("the prices of the page are out of order")
        if entry.coin not in coins:
            unknown += 1
            continue
        try:
            entries.append((entry.index, _observation(entry, page.origin)))
        except PriceError as error:
            unreadable.append((entry.coin, error.reason))
        except ValueError:
            unreadable.append((entry.coin, "malformed"))
    given = {} if page.reasons is msgspec.UNSET else page.reasons
    reasons = {coin: reason for coin, reason in given.items() if coin in coins}
    return TapePage(page.run, page.next, first, len(page.quotes), entries, unreadable, unknown, reasons)


def read_restart(body: bytes) -> str:
    """The cursor to begin with, in the body of a 410; SourceMalformedError if it names no cursor."""
    try:
        return _gone.decode(body).next[:CURSOR_MAX]
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise SourceMalformedError("the source does not say where its tape begins") from error


def _observation(entry: SourcePriceJson, origin: str) -> Observation:
    if CURRENCY_PATTERN.match(entry.currency) is None:
        raise ValueError("invalid currency")
    if isinstance(entry.origin, str):
        origin = entry.origin
        if ORIGIN_PATTERN.match(origin) is None:
            raise ValueError("invalid origin")
    agreement = Agreement.of_fields(entry.state, entry.confidence, entry.used, entry.of)
    price, observed_at = parse_price(entry.price), parse_time(entry.observed_at)
    return Observation(entry.coin, entry.currency, price, observed_at, origin, agreement)
