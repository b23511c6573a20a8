"""What the services answer, as JSON: the types that whoever answers and whoever asks have in common.

They are what the documents at `/openapi.json` show, and what a client holds each answer against before it uses it or
passes it on: an answer of another shape is refused as a whole, or costs the part that is not what it should be.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

import msgspec

from cotacoes.candle import CandleJson
from cotacoes.quote import (
    CoinText,
    ComputedText,
    CurrencyText,
    Epoch,
    OriginText,
    Position,
    PositionText,
    PriceText,
    QuoteJson,
    Seq,
    TimeText,
    parse_time,
)

Count = Annotated[int, msgspec.Meta(ge=0)]
BreakerState = Literal["closed", "open", "half_open", "forced_open", "disabled", "metrics_only"]


class CurrentJson(msgspec.Struct, frozen=True):
    """A coin's newest quote. `source` is live if the last poll gave it, else cache; `breaker` is that of the source."""

    coin: CoinText
    currency: CurrencyText
    price: PriceText
    epoch: Epoch
    seq: Seq
    observed_at: TimeText
    at: TimeText
    age_ms: Count
    status: Literal["fresh", "stale"]
    source: Literal["live", "cache"]
    origin: OriginText
    breaker: BreakerState | None = None

    def checked(self, coin: str) -> Self:
        """Itself; ValueError if it is of another coin, or a text of the right shape means nothing."""
        for time in (self.observed_at, self.at):
            parse_time(time)
        _refuse_other(coin, self.coin)
        return self


class MeanJson(msgspec.Struct, frozen=True):
    """The exact mean of a coin's last quotes, from the position `from` to the position `to`."""

    coin: CoinText
    currency: CurrencyText
    average: ComputedText
    count: Annotated[int, msgspec.Meta(ge=1)]
    from_: PositionText = msgspec.field(name="from")
    to: PositionText

    def checked(self, coin: str) -> Self:
        """Itself; ValueError if it is of another coin, or a text of the right shape means nothing."""
        for position in (self.from_, self.to):
            Position.parse(position)
        _refuse_other(coin, self.coin)
        return self


class Progress(msgspec.Struct, frozen=True):
    """How far one coin has come: its last position, what its shard has, how many quotes are still to be delivered."""

    position: PositionText | None
    through: PositionText | None
    pending: Count
    shard: str

    def checked(self) -> Self:
        """Itself; ValueError if a text of the right shape means nothing."""
        for position in (self.position, self.through):
            if position is not None:
                Position.parse(position)
        return self


class PositionsJson(msgspec.Struct, frozen=True):
    """Each coin's progress."""

    coins: dict[CoinText, Progress]


class PageJson(msgspec.Struct, frozen=True):
    """A page of a coin's history, ascending: `next` goes into `after`; `floor` is the oldest position held."""

    coin: CoinText
    quotes: list[QuoteJson]
    next: PositionText | None
    more: bool
    floor: PositionText | None


class CandlesJson(msgspec.Struct, frozen=True):
    """Candles, ascending; they count every quote of the range up to `through`.

    `next` goes into `from` for the page that follows; null if none does.
    """

    coin: CoinText
    currency: CurrencyText
    origin: OriginText
    interval: str
    candles: list[CandleJson]
    next: TimeText | None
    more: bool
    through: PositionText


class SourceCoins(msgspec.Struct, frozen=True):
    """The coins that a source quotes; `open` if any other can be added."""

    coins: list[CoinText]
    open: bool


def _refuse_other(coin: str, named: str) -> None:
    if named != coin:
        raise ValueError("an answer of another coin")
