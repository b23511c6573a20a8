"""The state of the whole system as the gateway knows it: the answer of `/v1/status`, and what the topic `status` sends.

Times are when the gateway noticed: `since` is when a state began, `known_at` when the part was last heard from, null if
never. A part that hangs keeps what it last said, with an old `known_at`.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from cotacoes.model.breakers import BreakerJson
from cotacoes.model.payloads import BranchJson, Count, MissingJson
from cotacoes.model.quote import CoinText, CurrencyText, PositionText, PriceText, TimeText
from cotacoes.model.venues import ConsensusJson, FeedJson

SourceKind = Literal["sim", "replay", "venues", "exchanges"]
PartState = Literal["up", "away", "unknown"]


class LimitsJson(msgspec.Struct, frozen=True):
    """Up to which age a quote is fresh, and up to which one it is served at all; how many coins a stream may have."""

    fresh_ms: Count
    age_max_ms: Count
    stream_coins_max: Count


class ShardStatusJson(msgspec.Struct, frozen=True):
    """A shard: `away` if the quotes of a coin do not get there, `reason` says why."""

    state: PartState
    since: TimeText
    known_at: TimeText | None
    reason: str | None


class ServiceStatusJson(ShardStatusJson, frozen=True):
    """A service with its circuit breakers: `away` if it did not answer the last question."""

    breakers: list[BreakerJson]


class FirstQuoteJson(msgspec.Struct, frozen=True):
    """The oldest quote of a coin that is held."""

    position: PositionText
    at: TimeText


class CoinJson(msgspec.Struct, frozen=True):
    """A coin. `decimals` is the largest number of decimals that its prices had while the gateway ran."""

    symbol: str
    title: str
    currency: CurrencyText | None
    decimals: Count
    first: FirstQuoteJson | None


class CoinsJson(msgspec.Struct, frozen=True):
    """All coins, by name."""

    coins: dict[CoinText, CoinJson]


class CoinStatusJson(CoinJson, frozen=True):
    """A coin with its shard and how far its quotes have come; null while quote_service has not said so."""

    shard: str | None
    position: PositionText | None
    through: PositionText | None
    pending: Count | None
    held: str | None
    source: Literal["live", "cache"] | None


class VenuesStatusJson(msgspec.Struct, frozen=True):
    """What feed_service says of the venues."""

    known_at: TimeText | None
    feeds: list[FeedJson]
    rates: dict[str, PriceText]
    coins: list[ConsensusJson]


class FaultsStatusJson(msgspec.Struct, frozen=True):
    """The faults in force in external_service: of its own answers, of each simulated venue, and of their market."""

    known_at: TimeText | None
    setting: dict[str, Any] | None
    venues: dict[str, dict[str, Any]]
    market: dict[str, Any]


class ReportStatusJson(msgspec.Struct, frozen=True):
    """How the newest report went, which is made for everybody at most once in 5 s."""

    known_at: TimeText | None
    generated_at: TimeText
    deadline_ms: Count
    elapsed_ms: Count
    complete: bool
    missing: list[MissingJson]
    trace: list[BranchJson]


class StatusJson(msgspec.Struct, frozen=True):
    """The state of the whole system. A part that does not run with this source is null."""

    generated_at: TimeText
    limits: LimitsJson
    source: SourceKind
    services: dict[str, ServiceStatusJson]
    shards: dict[str, ShardStatusJson]
    coins: dict[CoinText, CoinStatusJson]
    venues: VenuesStatusJson | None
    faults: FaultsStatusJson | None
    report: ReportStatusJson | None


class PassedOnJson(msgspec.Struct, frozen=True):
    """The answer of the service that a setting was passed on to; the service's own document describes it."""
