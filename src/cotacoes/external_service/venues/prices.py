"""The market as one venue sees it: best bid and ask of a pair, exact and a pure function of seed, tick and venue.

    mid = price * shock * (1 + lie) * (1 + the venue's own offset) / worth of the currency, all `lag_s` ago
    bid = mid - half the spread, rounded down     ask = mid + half the spread, rounded up     to the venue's unit

A venue shows a number of significant digits, so its unit depends on the price: 0.01 at 67,000 with seven of them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Protocol

from cotacoes.external_service.market import price_at, wander_ppm
from cotacoes.model.venue_symbols import BASES

PLACES_MAX = 8
OFFSET_PPM_MAX = 150  # of a venue: 1.5 bps
PEG_PPM_MAX = 500  # of a stablecoin: 5 bps
STABLECOINS = {coin: BASES[coin] for coin in ("tether", "usd-coin")}

_MILLION = 1_000_000
_EXACT = Context(prec=60)


@dataclass(frozen=True)
class Character:
    """What makes a venue differ from the others. `frames_per_s` is for each pair, at a pace of 1."""

    frames_per_s: float
    spread_bps: Decimal
    lag_s: float
    digits: int
    clock_ahead_s: float = 0.0


@dataclass(frozen=True)
class Pair:
    """A coin in a currency."""

    coin: str
    currency: str


class Ticks(Protocol):
    """The clock of the market's walks."""

    @property
    def seed(self) -> int:
        """The seed of all prices."""
        ...

    def tick(self, coin: str, ago_s: float) -> int:
        """The tick of the coin `ago_s` seconds ago."""
        ...


@dataclass(frozen=True)
class Bent:
    """By how much the prices of a venue are bent: by the market's shock and pegs, and by the venue's lie."""

    shock: Decimal = Decimal(1)
    pegs: tuple[tuple[str, Decimal], ...] = ()
    lie: Decimal = Decimal(0)


def mid_at(ticks: Ticks, venue: str, pair: Pair, bent: Bent, *, ago_s: float) -> Decimal:
    """The middle of the venue's book `ago_s` seconds ago."""
    tick = ticks.tick(pair.coin, ago_s)
    if pair.coin in STABLECOINS:
        value = _worth(ticks, STABLECOINS[pair.coin], bent, ago_s)
    else:
        value = _EXACT.multiply(_price_at(ticks.seed, pair.coin, tick), bent.shock)
    offset = _wander_ppm(f"{ticks.seed}/{venue}", tick, OFFSET_PPM_MAX)
    value = _EXACT.multiply(value, _EXACT.multiply(1 + bent.lie, Decimal(_MILLION + offset).scaleb(-6)))
    return _EXACT.divide(value, _worth(ticks, pair.currency, bent, ago_s))


def _worth(ticks: Ticks, currency: str, bent: Bent, ago_s: float) -> Decimal:
    """What a currency is worth in USD."""
    if currency == "USD":
        return Decimal(1)
    moves = _wander_ppm(f"{ticks.seed}/{currency}", ticks.tick(currency, ago_s), PEG_PPM_MAX)
    return _EXACT.multiply(Decimal(_MILLION + moves).scaleb(-6), dict(bent.pegs).get(currency, Decimal(1)))


def best(mid: Decimal, character: Character) -> tuple[Decimal, Decimal, Decimal]:
    """Best bid, best ask, and the unit of both; the ask is at least one unit above the bid."""
    places = min(PLACES_MAX, max(0, character.digits - 1 - mid.adjusted()))
    unit = Decimal(1).scaleb(-places)
    half = _EXACT.multiply(mid, character.spread_bps / 20_000)
    bid = max(unit, (mid - half).quantize(unit, ROUND_FLOOR))
    ask = (mid + half).quantize(unit, ROUND_CEILING)
    return bid, max(ask, bid + unit), unit


# Venues look at few ticks at a time, each many times.
_price_at = functools.lru_cache(maxsize=4096)(price_at)


@functools.lru_cache(maxsize=4096)
def _wander_ppm(key: str, tick: int, bound_ppm: int) -> int:
    return wander_ppm(key, tick, bound_ppm=bound_ppm)
