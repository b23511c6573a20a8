"""The JSON of the services' answers: the types that servers and clients share.

They are what `/openapi.json` shows, and what a client checks each answer against before it uses it or passes it on. An
answer of another shape is refused as a whole, or loses the section that is invalid.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self, cast

import msgspec

from cotacoes.model.candle import CandleJson
from cotacoes.model.quote import (
    AgeLimits,
    AgreementJson,
    AgreementState,
    CoinText,
    ComputedText,
    ConfidenceText,
    CurrencyText,
    Epoch,
    OriginText,
    Position,
    PositionText,
    PriceText,
    QuoteJson,
    Seq,
    TimeText,
    VenueCount,
    format_time,
    parse_time,
)
from cotacoes.model.window import Window, WindowJson

Count = Annotated[int, msgspec.Meta(ge=0)]
WindowName = Literal["1h", "24h", "7d"]
SourceStatus = Literal["ok", "stale", "skipped", "rejected", "failed", "timed_out", "abandoned", "lagging"]
BreakerStateText = Literal["closed", "open", "half_open", "forced_open", "disabled", "metrics_only"]


class CurrentJson(AgreementJson, frozen=True):
    """A coin's newest quote. `source` is live if the last poll brought it, else cache; `breaker` is the source's."""

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
    breaker: BreakerStateText | None = None

    def checked(self, coin: str) -> Self:
        """Return itself; ValueError for another coin, or for a text of the right shape but without meaning."""
        for time in (self.observed_at, self.at):
            parse_time(time)
        self.agreement()
        _refuse_other(coin, self.coin)
        return self

    def with_age(self, added_ms: int, limits: AgeLimits) -> Self | None:
        """The quote with its age increased by `added_ms`; None if it then exceeds its age limit.

        A quote that its own service calls stale stays stale, whatever the limits are here.
        """
        age_ms = self.age_ms + added_ms
        if age_ms > limits.most:
            return None
        status = self.status if limits.status(age_ms) == "fresh" else "stale"
        return msgspec.structs.replace(self, age_ms=age_ms, status=status)


class MeanJson(msgspec.Struct, frozen=True):
    """The exact mean of a coin's last quotes, from the position `from` to the position `to`."""

    coin: CoinText
    currency: CurrencyText
    average: ComputedText
    count: Annotated[int, msgspec.Meta(ge=1)]
    from_: PositionText = msgspec.field(name="from")
    to: PositionText

    def checked(self, coin: str) -> Self:
        """Return itself; ValueError for another coin, or for a text of the right shape but without meaning."""
        for position in (self.from_, self.to):
            Position.parse(position)
        _refuse_other(coin, self.coin)
        return self


class Progress(msgspec.Struct, frozen=True):
    """The progress of one coin: its last position, the last on its shard, and how many quotes are undelivered.

    `held` says why they do not get there just now; `source` is live if the last poll brought its newest quote.
    """

    position: PositionText | None
    through: PositionText | None
    pending: Count
    shard: str
    held: str | None = None
    source: Literal["live", "cache"] | None = None

    def checked(self) -> Self:
        """Return itself; ValueError for a text of the right shape but without meaning."""
        for position in (self.position, self.through):
            if position is not None:
                Position.parse(position)
        return self


class PositionsJson(msgspec.Struct, frozen=True):
    """The progress of each coin."""

    coins: dict[CoinText, Progress]


class GapJson(msgspec.Struct, frozen=True):
    """Positions that the history lacks for good: after one (exclusive) through another (inclusive)."""

    after: PositionText
    through: PositionText
    reason: str


class PageJson(msgspec.Struct, frozen=True):
    """A page of a coin's history, ascending: `next` goes into `after`; `floor` is the oldest position held.

    The quotes follow one another, except for what the history lacks according to `gaps`.
    """

    coin: CoinText
    quotes: list[QuoteJson]
    next: PositionText | None
    more: bool
    floor: PositionText | None
    gaps: list[GapJson] = []

    def lines(self) -> Iterator[QuoteJson | GapJson]:
        """Each quote in order, and before it the gap that the history has there."""
        gaps = {gap.through: gap for gap in self.gaps}
        for quote in self.quotes:
            before = quote.prev if quote.seq == 1 else f"{quote.epoch}-{quote.seq - 1}"
            if before is not None and before in gaps:
                yield gaps[before]
            yield quote


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


class SimulatedVenueJson(msgspec.Struct, frozen=True):
    """What commands read about a simulated venue."""

    faults: dict[str, Any]


class SimulatedVenuesJson(msgspec.Struct, frozen=True):
    """The simulated venues by name, none for a replay, and what happens to their market."""

    venues: dict[str, SimulatedVenueJson]
    market: dict[str, Any]


class SourcePriceJson(msgspec.Struct, frozen=True):
    """One price of a source's tape; `index` counts the prices of its run.

    `origin` is that of the page if it is absent. The further fields are of a price on which venues agreed, which lies
    between `low` and `high`.
    """

    index: int
    coin: str
    currency: str
    price: str
    observed_at: str
    state: str | msgspec.UnsetType = msgspec.UNSET
    confidence: str | msgspec.UnsetType = msgspec.UNSET
    low: str | msgspec.UnsetType = msgspec.UNSET
    high: str | msgspec.UnsetType = msgspec.UNSET
    used: int | msgspec.UnsetType = msgspec.UNSET
    of: int | msgspec.UnsetType = msgspec.UNSET
    origin: str | msgspec.UnsetType = msgspec.UNSET


# Why a source has no price of a coin now: `disputed` or `no_venue` of feed_service.
SourceReason = Annotated[str, msgspec.Meta(pattern=r"^[a-z_]{1,40}$(?!\n)")]


class SourcePageJson(msgspec.Struct, frozen=True):
    """A page of a source's tape, the answer of `/quotes`; `next` goes into `after`.

    `reasons` has the coins of which the source has no price now.
    """

    run: str
    origin: str
    quotes: list[SourcePriceJson]
    next: str
    reasons: dict[str, SourceReason] | msgspec.UnsetType = msgspec.UNSET


class SourceConsensusJson(msgspec.Struct, frozen=True, kw_only=True):
    """How venues agreed on the price of a coin, which lies between `low` and `high`."""

    state: AgreementState
    confidence: ConfidenceText
    low: PriceText | msgspec.UnsetType = msgspec.UNSET
    high: PriceText | msgspec.UnsetType = msgspec.UNSET
    used: VenueCount
    of: VenueCount


class SourceQuoteJson(msgspec.Struct, frozen=True):
    """The newest price of each coin, under its name; `observed` and `currency` by coin, `observed_at` the oldest.

    `consensus` has the coins on whose prices venues agreed, `reasons` those of which there is no price now, `origins`
    those whose origin is not that of the whole.
    """

    observed_at: TimeText | None
    observed: dict[CoinText, TimeText]
    currency: dict[CoinText, CurrencyText]
    origin: OriginText
    consensus: dict[CoinText, SourceConsensusJson] | msgspec.UnsetType = msgspec.UNSET
    reasons: dict[CoinText, SourceReason] | msgspec.UnsetType = msgspec.UNSET
    origins: dict[CoinText, OriginText] | msgspec.UnsetType = msgspec.UNSET


SOURCE_QUOTE_FIELDS = frozenset(SourceQuoteJson.__struct_fields__)  # every other name is a coin's


class ProblemJson(msgspec.Struct, frozen=True):
    """A problem of one section of an answer, as the section's own route would have answered it."""

    type: str
    title: str
    status: int
    detail: str
    retry_after_s: float | None


class OverviewJson(msgspec.Struct, frozen=True, omit_defaults=True):
    """The requested sections of many coins, by coin; `problems` by `COIN.SECTION`."""

    problems: dict[str, ProblemJson]
    current: dict[CoinText, CurrentJson] | msgspec.UnsetType = msgspec.UNSET
    mean: dict[CoinText, MeanJson] | msgspec.UnsetType = msgspec.UNSET
    position: dict[CoinText, Progress] | msgspec.UnsetType = msgspec.UNSET


class CoinReportJson(msgspec.Struct, frozen=True):
    """The requested sections of one coin; a missing one is null."""

    current: CurrentJson | msgspec.UnsetType | None = msgspec.UNSET
    average: MeanJson | msgspec.UnsetType | None = msgspec.UNSET
    last_logs: list[QuoteJson] | msgspec.UnsetType | None = msgspec.UNSET
    through: PositionText | msgspec.UnsetType | None = msgspec.UNSET
    window: WindowJson | msgspec.UnsetType | None = msgspec.UNSET
    pending: Count | msgspec.UnsetType | None = msgspec.UNSET


class MissingJson(msgspec.Struct, frozen=True):
    """A section that the report lacks, and why."""

    part: str
    reason: str


class SourceJson(msgspec.Struct, frozen=True):
    """The outcome of one source of a report; `lagging` if its answer is old."""

    status: SourceStatus
    elapsed_ms: Count


class SpanJson(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """The time span of a report's windows; `closes` begin at `closes_from`, one every `step_minutes`."""

    name: WindowName
    from_: TimeText
    to: TimeText
    closes_from: TimeText
    step_minutes: int

    @classmethod
    def of(cls, window: Window) -> Self:
        """The span of a window."""
        start, end = format_time(window.start), format_time(window.end)
        return cls(cast(WindowName, window.name), start, end, format_time(window.steps[0]), window.step)


class BranchJson(msgspec.Struct, frozen=True):
    """The outcome of one branch of a report, in ms since the start."""

    branch: str
    status: str
    start_ms: float
    elapsed_ms: float
    attempts: int
    reason: str | None


class ReportJson(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about every coin that came by the deadline."""

    generated_at: TimeText
    deadline_ms: Count
    elapsed_ms: Count
    complete: bool
    missing: list[MissingJson]
    window: SpanJson | msgspec.UnsetType = msgspec.UNSET
    coins: dict[CoinText, CoinReportJson]
    sources: dict[str, SourceJson]
    trace: list[BranchJson] | msgspec.UnsetType = msgspec.UNSET


def _refuse_other(coin: str, named: str) -> None:
    if named != coin:
        raise ValueError("an answer for another coin")
