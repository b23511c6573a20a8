"""The JSON of feed_service: what each venue says of each coin and what became of it, and which venues list a coin."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

import msgspec

from cotacoes.model.quote import CoinText, PriceText, TimeText

Count = Annotated[int, msgspec.Meta(ge=0)]


class VenueBookJson(msgspec.Struct, frozen=True):
    """A venue's book of a coin, in `currency`; `reason` says why it is not used for the price.

    `as_of` is the time that the book is from, `delay_ms` how late it came. Absent prices: the venue has sent no book.
    """

    venue: str
    currency: str
    used: bool
    reason: str | None
    bid: PriceText | None = None
    ask: PriceText | None = None
    mid: PriceText | None = None
    mid_usd: PriceText | None = None
    rate: PriceText | None = None
    as_of: TimeText | None = None
    age_ms: Count | None = None
    delay_ms: Count | None = None


class ConsensusJson(msgspec.Struct, frozen=True):
    """The consensus on a coin now. Without a price, `reason` is `disputed` or `no_venue`.

    `price` and what follows it are those of the present result; an older price that is still served has its own time.
    """

    coin: CoinText
    state: Literal["agreed", "thin", "disputed", "none"]
    reason: str | None
    used: Count
    of: Count
    price: PriceText | None
    confidence: str | None
    low: PriceText | None
    high: PriceText | None
    as_of: TimeText | None
    age_ms: Count | None
    venues: list[VenueBookJson]


class FeedJson(msgspec.Struct, frozen=True):
    """The connection to a venue. `skew_ms` is how far our clock is ahead of the venue's, the way included.

    `closed_reason` and `closed_text` say why the last connection ended. `absent` names coins that the venue does not
    send, and why.
    """

    venue: str
    url: str
    state: Literal["waiting", "connecting", "subscribed", "live"]
    since: TimeText
    breaker: str
    coins: list[str]
    absent: dict[str, str]
    skew_ms: int | None
    frames: Count
    books: Count
    malformed: Count
    gaps: Count
    openings: Count
    closed_reason: str | None
    closed_text: str | None
    closed_at: TimeText | None


class VenuesJson(msgspec.Struct, frozen=True):
    """All venues and coins. `rates` are dollars for one unit of a currency."""

    feeds: list[FeedJson]
    rates: dict[str, PriceText]
    coins: list[ConsensusJson]


class ListingJson(msgspec.Struct, frozen=True):
    """A coin, followed or not, and its symbol at each venue that is known to list it."""

    coin: str
    symbols: dict[str, str]


def short_price(text: str) -> str:
    """A price with two places if it is above 1, for people."""
    price = Decimal(text)
    return f"{price:.2f}" if price > 1 else text
