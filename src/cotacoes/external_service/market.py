"""The simulated market: exact prices that look like a random walk, the same ones for the same seed.

A price is a pure function of (seed, coin, tick). It is the sum of noises of period 1, 2, 4 … ticks, each √2 larger than
the one before, as the steps of a random walk add up; between two points of its lattice a noise is linear. So no state
grows, there is nothing to catch up with after an idle day, and prices are bounded by construction: each stays within
about 5 % of where it starts. All of it is integer arithmetic on hundredths; no float touches a price.
"""

from __future__ import annotations

import functools
import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Protocol

from cotacoes.model.quote import Observation, utc_now

ORIGIN = "sim"
CURRENCY = "USD"
PLACES = 2

_KNOWN_STARTS = {"bitcoin": 6_700_000, "ethereum": 350_000}  # in hundredths
_START_MIN, _START_MAX = 1_000, 1_000_000  # of any further coin, in hundredths

_OCTAVES = 17  # the longest period is 65,536 ticks, some five hours at the default tick
_STEP_PPM = 60  # of the shortest noise: a few dollars a tick on Bitcoin
_MILLION = 1_000_000
_AMPLITUDES_PPM = [math.isqrt(_STEP_PPM * _STEP_PPM << octave) for octave in range(_OCTAVES)]
_SLOW_OCTAVES = (5, 8, 11)  # 8 s, a minute and 9 minutes at the default tick
assert sum(_AMPLITUDES_PPM) < _MILLION // 10, "a price never leaves the tenth around its start"


class Market(Protocol):
    """The newest prices that external_service serves."""

    origin: str

    def quotes(self) -> Mapping[str, Observation]:
        """Coin to its newest observation; a coin without a price is absent."""
        ...


class SimulatedMarket:
    """The walk of each coin, one tick every `tick_s` seconds from `started_at` on; a `Market` and a `Tape`.

    The coins tick one after the other within `tick_s`, since no real market moves all prices at one instant. `clock`
    gives monotonic seconds, `now` the wall time; `elapsed_s` is how far the walk has come; None: by the wall time.
    """

    origin = ORIGIN

    def __init__(
        self,
        coins: Sequence[str],
        *,
        seed: int,
        tick_s: float,
        started_at: datetime,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utc_now,
        elapsed_s: float | None = None,
    ) -> None:
        self._seed = seed
        self._coins = coins
        self._tick_s = tick_s
        self._clock = clock
        self._now = now
        self._started_at = started_at
        self._started = clock() - max(0.0, (now() - started_at).total_seconds() if elapsed_s is None else elapsed_s)
        self._phases_s = {coin: tick_s * index / len(coins) for index, coin in enumerate(coins)}
        self._ticks: dict[str, int] = {}
        self._newest: dict[str, Observation] = {}

    def elapsed_s(self) -> float:
        """How far the walk has come."""
        return self._clock() - self._started

    def tick(self, coin: str, ago_s: float = 0.0) -> int:
        """The tick of the coin `ago_s` seconds ago; the first one if that was before the start."""
        return max(0, int((self.elapsed_s() - ago_s + self._phases_s.get(coin, 0.0)) // self._tick_s))

    def quotes(self) -> Mapping[str, Observation]:
        elapsed_s = self.elapsed_s()
        for coin, phase_s in self._phases_s.items():
            tick, since = divmod(elapsed_s + phase_s, self._tick_s)
            if self._ticks.get(coin) != int(tick):
                # The time comes from the wall clock at each tick, so a clock that was set is followed.
                self._ticks[coin] = int(tick)
                self._newest[coin] = Observation(
                    coin=coin,
                    currency=CURRENCY,
                    price=price_at(self._seed, coin, int(tick)),
                    observed_at=self._now() - timedelta(seconds=since),
                    origin=ORIGIN,
                )
        return self._newest

    async def after(self, index: int, limit: int) -> list[tuple[int, Observation]]:
        """The prices after `index`; index 1 is the oldest of tick 0. See `tape.Tape`."""
        return [(later, self._entry(later)) for later in range(index + 1, min(self._due(), index + limit) + 1)]

    def next_due_s(self) -> float:
        """In how many seconds the next coin ticks."""
        return self._started + self._offset_s(self._due() + 1) - self._clock()

    def _due(self) -> int:
        """The last index whose time has come."""
        return int((self._clock() - self._started) // self._spacing_s) + len(self._coins)

    @property
    def _spacing_s(self) -> float:
        return self._tick_s / len(self._coins)

    def _offset_s(self, index: int) -> float:
        """When a price comes up, in seconds from the start: within a tick the last coin is the first one."""
        return (index - len(self._coins)) * self._spacing_s

    def _entry(self, index: int) -> Observation:
        tick, place = divmod(index - 1, len(self._coins))
        coin = self._coins[-1 - place]
        observed_at = min(self._now(), self._started_at + timedelta(seconds=self._offset_s(index)))
        return Observation(coin, CURRENCY, price_at(self._seed, coin, tick), observed_at, ORIGIN)


def price_at(seed: int, coin: str, tick: int) -> Decimal:
    """The price of `coin` at `tick` (0, 1, 2 …), greater than zero, with two places."""
    start = start_hundredths(seed, coin)
    ppm = sum(_noise_ppm(seed, coin, octave, tick) for octave in range(_OCTAVES))
    return Decimal(start * (_MILLION + ppm) // _MILLION).scaleb(-PLACES)


def wander_ppm(key: str, tick: int, *, bound_ppm: int) -> int:
    """A slow walk around zero, never further than `bound_ppm`; a pure function like the prices."""
    ppm = sum(_noise_ppm(0, key, octave, tick) for octave in _SLOW_OCTAVES)
    return ppm * bound_ppm // sum(_AMPLITUDES_PPM[octave] for octave in _SLOW_OCTAVES)


@functools.lru_cache(maxsize=2000)
def start_hundredths(seed: int, coin: str) -> int:
    """Where a coin's walk starts, in hundredths of the currency."""
    spread = _START_MAX - _START_MIN
    return _KNOWN_STARTS.get(coin) or _START_MIN + _draw(f"{seed}/{coin}/start") % spread


def _noise_ppm(seed: int, coin: str, octave: int, tick: int) -> int:
    """The noise whose lattice points lie 2^octave ticks apart, within plus or minus its amplitude."""
    lattice, beyond = tick >> octave, tick & ((1 << octave) - 1)
    here = _lattice_ppm(seed, coin, octave, lattice)
    if not beyond:
        return here
    there = _lattice_ppm(seed, coin, octave, lattice + 1)
    return here + ((there - here) * beyond >> octave)


def _lattice_ppm(seed: int, coin: str, octave: int, index: int) -> int:
    amplitude = _AMPLITUDES_PPM[octave]
    return _draw(f"{seed}/{coin}/{octave}/{index}") % (2 * amplitude + 1) - amplitude


def _draw(key: str) -> int:
    """64 uniform bits from the key; blake2b draws the same on every machine and version of Python."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")
