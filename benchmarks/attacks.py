"""`attacks`: how far liars move the consensus price, beside what other feeds compute from the same venues.

A world is a seeded market that several venues show: each has its own spread, offset, delay, volume and currency, and a
`last` price that may be half a minute old. Some venues lie. An error is the distance of a price, in basis points, from
the median of the honest mids. The peers are favoured: they convert at the true rate, while the consensus finds its own
from venues that may lie about it as well.

The peers are formulas, written here from what their owners publish, without their operators' own care:

    mean of last    each venue's last price, with equal weights
    VWAP            each venue's last price, weighted by volume; a liar inflates its volume twentyfold
    Deribit clamp   the mean of the mids, each clamped to 0.5 % around their median
    Pyth            the median of three votes of each venue: its price, and its price plus and minus its confidence
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from random import Random

from benchmarks.figure import Aim, Effort, Row, percentile
from cotacoes.patterns.consensus import PRICE_LIMITS, Consensus, ConsensusPrice, VenueBook, agree, rate_of

AIM_BPS = Aim(5.0)
WORLDS = 60
TICKS = 40
START_PRICE = 70_000.0
PEG = 0.9992
WASH_TRADES = 20
CRASH = 0.7
CRASH_TICK_S = 0.1
CRASH_ENDS_S = 40.0
NEAR = 0.01
CENT = Decimal("0.01")
BPS = 10_000


@dataclass(frozen=True, slots=True)
class Ticker:
    """What a venue shows of bitcoin, and of the dollar price of USDT if it trades that."""

    book: VenueBook
    last: Decimal
    volume: Decimal
    peg: VenueBook | None


@dataclass(frozen=True, slots=True)
class Attack:
    """The first `liars` of `venues` show `factor` times their price; with `on_peg`, also of what USDT costs in dollars.

    The first half of the venues, and at least two, quote in dollars, the others in USDT.
    """

    name: str
    venues: int
    liars: int = 0
    factor: Decimal = Decimal("1.10")
    on_peg: bool = False

    @property
    def is_by_a_minority(self) -> bool:
        """Whether the honest are a majority, of all venues and of those that say what a dollar is."""
        return 0 < self.liars < (dollar_venues(self.venues) if self.on_peg else self.venues) / 2


ATTACKS = (
    Attack("nobody lies, 6", 6),
    *(Attack(f"one liar +10 % of {venues}", venues, 1) for venues in (3, 5, 6)),
    *(Attack(f"two collude +10 % of {venues}", venues, 2) for venues in (5, 6)),
    *(Attack(f"half collude +10 %, {venues // 2} of {venues}", venues, venues // 2) for venues in (4, 6)),
    *(
        Attack(f"half collude +2 %, {venues // 2} of {venues}", venues, venues // 2, Decimal("1.02"))
        for venues in (4, 6)
    ),
    Attack("two left, 2 % apart", 2, 1, Decimal("1.02")),
    Attack("one liar +2 % of 6, on USDT too", 6, 1, Decimal("1.02"), on_peg=True),
    Attack("two collude +2 % of 6, on USDT too", 6, 2, Decimal("1.02"), on_peg=True),
    Attack("two of 3 collude +10 %", 3, 2),
)
"""The last two are attacks that succeed: the liars are a majority, of all venues or of those that quote in dollars."""


def dollar_venues(venues: int) -> int:
    """How many of the venues quote in dollars; the others quote in USDT."""
    return max(2, (venues + 1) // 2)


class World:
    """One seeded market; a market may step to a part of its price at time zero."""

    def __init__(self, seed: int, venues: int, step: float = 1.0, peg: float = PEG) -> None:
        self._random = Random(seed)
        self._step = step
        self._peg = peg
        self._path = [START_PRICE]
        self._venues = [
            _Personality.of(self._random, "USD" if number < dollar_venues(venues) else "USDT")
            for number in range(venues)
        ]

    def tickers(self, now_s: float) -> list[Ticker]:
        """What all venues show at a time, in seconds since the start."""
        return [self._ticker(number, one, now_s) for number, one in enumerate(self._venues)]

    def _price(self, at_s: float) -> float:
        """The market's price; before the start it stood still."""
        while len(self._path) <= at_s:
            self._path.append(self._path[-1] * (1 + self._random.gauss(0, 1.5) / BPS))
        return self._path[max(0, int(at_s))] * (self._step if at_s >= 0 else 1.0)

    def _ticker(self, number: int, one: _Personality, now_s: float) -> Ticker:
        random = self._random
        rate = self._peg if one.currency == "USDT" else 1.0
        mid = self._price(now_s - one.delay_s) * (1 + (one.offset_bps + random.gauss(0, 0.5)) / BPS) / rate
        half = max(0.01, mid * one.half_bps / BPS)
        last = self._price(now_s - random.uniform(0, one.last_age_s)) * (1 + random.gauss(0, 2) / BPS) / rate
        peg = self._peg * (1 + random.gauss(0, 0.5) / BPS)
        name, as_of_s = f"venue{number}", now_s - one.delay_s
        return Ticker(
            book=VenueBook(name, one.currency, _cents(mid - half), _cents(mid + half), as_of_s),
            last=_cents(last),
            volume=Decimal(str(one.volume)),
            peg=VenueBook(name, "USD", _places(peg - 0.00005), _places(peg + 0.00005), as_of_s)
            if one.currency == "USD"
            else None,
        )


@dataclass(frozen=True, slots=True)
class _Personality:
    currency: str
    half_bps: float
    offset_bps: float
    delay_s: float
    last_age_s: float
    volume: float

    @classmethod
    def of(cls, random: Random, currency: str) -> _Personality:
        return cls(
            currency=currency,
            half_bps=min(8.0, random.lognormvariate(-1, 1)),
            offset_bps=random.gauss(0, 1),
            delay_s=random.uniform(0.05, 2),
            last_age_s=random.uniform(1, 30),
            volume=round(random.lognormvariate(5, 1), 2),
        )


def attacked(tickers: Sequence[Ticker], attack: Attack) -> list[Ticker]:
    """The same tickers, with the lies."""
    return [_lie(one, attack) if number < attack.liars else one for number, one in enumerate(tickers)]


def _lie(honest: Ticker, attack: Attack) -> Ticker:
    peg = honest.peg
    return Ticker(
        book=_times(honest.book, attack.factor),
        last=honest.last * attack.factor,
        volume=honest.volume * WASH_TRADES,
        peg=_times(peg, attack.factor) if peg is not None and attack.on_peg else peg,
    )


def _times(book: VenueBook, factor: Decimal) -> VenueBook:
    return replace(book, bid=book.bid * factor, ask=book.ask * factor)


def consensus(tickers: Sequence[Ticker], now_s: float) -> Consensus:
    """The consensus of these venues, with its own rate for USDT."""
    rate = rate_of("USDT", [one.peg for one in tickers if one.peg is not None], now_s)
    rates = {} if rate is None else {"USDT": rate}
    return agree([one.book for one in tickers], rates, now_s, last=None, limits=PRICE_LIMITS)


def _ours(tickers: Sequence[Ticker], now_s: float) -> float | None:
    result = consensus(tickers, now_s)
    return float(result.price) if isinstance(result, ConsensusPrice) else None


def _mean_of_last(tickers: Sequence[Ticker], now_s: float) -> float:
    return statistics.fmean(_usd(one, one.last) for one in tickers)


def _vwap(tickers: Sequence[Ticker], now_s: float) -> float:
    return statistics.fmean([_usd(one, one.last) for one in tickers], [float(one.volume) for one in tickers])


def _deribit_clamp(tickers: Sequence[Ticker], now_s: float) -> float:
    found = mids(tickers)
    middle = statistics.median(found)
    return statistics.fmean(min(max(mid, middle * 0.995), middle * 1.005) for mid in found)


def _pyth(tickers: Sequence[Ticker], now_s: float) -> float:
    halves = [_usd(one, (one.book.ask - one.book.bid) / 2) for one in tickers]
    votes = [mid + sign * half for mid, half in zip(mids(tickers), halves, strict=True) for sign in (-1, 0, 1)]
    return statistics.median(votes)


METHODS: Mapping[str, Callable[[Sequence[Ticker], float], float | None]] = {
    "mean of last": _mean_of_last,
    "VWAP": _vwap,
    "Deribit clamp": _deribit_clamp,
    "Pyth": _pyth,
    "here": _ours,
}


def mids(tickers: Sequence[Ticker], peg: float = PEG) -> list[float]:
    """The middle of each book, in dollars at the true rate."""
    return [_usd(one, (one.book.bid + one.book.ask) / 2, peg) for one in tickers]


def _usd(ticker: Ticker, price: Decimal, peg: float = PEG) -> float:
    return float(price) * (peg if ticker.book.currency == "USDT" else 1.0)


def _cents(price: float) -> Decimal:
    return Decimal(price).quantize(CENT)


def _places(rate: float) -> Decimal:
    return Decimal(rate).quantize(Decimal("0.00001"))


def errors_bps(attack: Attack, worlds: int, ticks: int = TICKS) -> dict[str, list[float | None]]:
    """The error of each method at each tick of each world; None for no price."""
    found: dict[str, list[float | None]] = {name: [] for name in METHODS}
    for seed in range(worlds):
        world = World(seed, attack.venues)
        for tick in range(ticks):
            honest = world.tickers(tick)
            truth = statistics.median(mids(honest[attack.liars :]))
            shown = attacked(honest, attack)
            for name, method in METHODS.items():
                price = method(shown, float(tick))
                found[name].append(None if price is None else abs(price / truth - 1) * BPS)
    return found


def worst(errors: Sequence[float | None]) -> float | None:
    """The 99th percentile of the errors; None if there was no price at all."""
    prices = [error for error in errors if error is not None]
    return percentile(prices, 99) if prices else None


def crash_s(worlds: int) -> dict[str, list[float]]:
    """Seconds after a true crash until each method stays within one percent of the new price, in each world."""
    found: dict[str, list[float]] = {name: [] for name in METHODS}
    for seed in range(worlds):
        last_far = dict.fromkeys(METHODS, -CRASH_TICK_S)
        world = World(seed, 6, CRASH)
        for tick in range(round(CRASH_ENDS_S / CRASH_TICK_S)):
            now_s = tick * CRASH_TICK_S
            tickers = world.tickers(now_s)
            for name, method in METHODS.items():
                price = method(tickers, now_s)
                if price is None or abs(price / (START_PRICE * CRASH) - 1) > NEAR:
                    last_far[name] = now_s
        for name, far_s in last_far.items():
            found[name].append(far_s + CRASH_TICK_S)
    return found


def measure(effort: Effort) -> list[Row]:
    rows = []
    for attack in ATTACKS:
        for name, errors in errors_bps(attack, effort.runs).items():
            price = worst(errors)
            if price is not None:
                aim = AIM_BPS if name == "here" and attack.is_by_a_minority else None
                rows.append(Row(f"{attack.name}: {name}", "bps p99", [price], aim))
    return rows


def table(worlds: int = WORLDS) -> str:
    """The errors as a table in Markdown."""
    lines = [f"| attack | {' | '.join(METHODS)} |", f"|---|{'---|' * len(METHODS)}"]
    for attack in ATTACKS:
        found = [worst(errors) for errors in errors_bps(attack, worlds).values()]
        lines.append(f"| {attack.name} | {' | '.join('no price' if one is None else f'{one:.1f}' for one in found)} |")
    seconds = [f"{statistics.median(found):.1f} s" for found in crash_s(worlds // 6).values()]
    lines.append(f"| true crash -30 %, 6: until within 1 % | {' | '.join(seconds)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
