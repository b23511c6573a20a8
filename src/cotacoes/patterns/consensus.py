"""One price from the books of several venues: pure, exact, and out of reach of a minority.

    VenueBook ─▶ sound?  ─no─▶ VenueVerdict with a reason: empty, crossed, stale, future, wide, no_rate
                   │yes: bid and ask in dollars
                   ▼
    centre = median of the mids; band around it; a majority must lie within ─no─▶ NoPrice (disputed)
                   ▼                                                   outside of it: outlier
    price = median of the votes bid, mid, ask of the venues in the band ─▶ ConsensusPrice (agreed or thin)

A venue is believed as far as the majority of the sound venues confirms it, and no further: its `last` price, its volume
and its own claim of certainty decide nothing. What a majority says together is the price, even if all of it lies.

All arithmetic is exact; only results are rounded, half-even to 18 places, like every computed price. No clock is read:
times are seconds of one monotonic clock. `docs/explanation/consensus.md` explains the formulas and shows attacks.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_UP, Context, Decimal, localcontext
from typing import Literal, NamedTuple

from cotacoes.model.quote import COMPUTED_PLACES, PRICE_INTEGER_DIGITS_MAX, Agreement, computed_price

USD = "USD"
CONFIDENCE_DIGITS = 3  # of a quote, which is stored: further ones say nothing, and take room in every row
_ONE = Decimal(1)
_HALF = Decimal("0.5")
_BASIS_POINT = Decimal("0.0001")
_VOTES = 3  # of each venue
_SMALLEST = Decimal(1).scaleb(-COMPUTED_PLACES)
_TOO_LARGE = Decimal(10) ** (2 * PRICE_INTEGER_DIGITS_MAX)  # no product of a price and a rate is
# Room for the product of a price and a rate at their full lengths. Without traps, a comparison with NaN is False.
_EXACT = Context(prec=200, traps=[])


class ConsensusState(enum.StrEnum):
    """How far the venues agree. Only `agreed` and `thin` come with a price."""

    AGREED = "agreed"
    THIN = "thin"
    DISPUTED = "disputed"
    NONE = "none"


class VenueReason(enum.StrEnum):
    """Why a venue was not used. The first six concern its book alone; the others hold it against the other venues."""

    EMPTY = "empty"  # no bid or no ask that is a number above zero
    CROSSED = "crossed"  # the bid is above the ask
    STALE = "stale"
    FUTURE = "future"  # later than now by more than clocks differ
    WIDE = "wide"  # bid and ask are too far apart to show a price
    NO_RATE = "no_rate"  # its currency has no rate to the dollar
    OUTLIER = "outlier"  # outside of the band
    DISPUTED = "disputed"  # within the band, but too few others are
    HELD = "held"  # part of a thin result that is too far from the last agreed price
    ALONE = "alone"  # fewer venues than are required


@dataclass(frozen=True, slots=True)
class VenueBook:
    """The best bid and ask of one venue, in `currency`; `as_of_s` is a time on the monotonic clock.

    For a venue that has sent no book, pass zero for both: it is then counted, and named as `empty`.
    """

    venue: str
    currency: str
    bid: Decimal
    ask: Decimal
    as_of_s: float


@dataclass(frozen=True, slots=True)
class VenueVerdict:
    """A venue's part in a consensus: `reason` says why it was not used. `rate` is from its currency to dollars."""

    book: VenueBook
    rate: Decimal | None
    reason: VenueReason | None

    @property
    def used(self) -> bool:
        return self.reason is None

    @property
    def mid(self) -> Decimal | None:
        """The middle of the book in its own currency; None for an empty one."""
        if self.reason is VenueReason.EMPTY:
            return None
        return computed_price(_EXACT.add(self.book.bid, self.book.ask), 2)

    @property
    def mid_usd(self) -> Decimal | None:
        """The middle of the book in dollars; None if it is empty, or if there is no rate."""
        if self.reason is VenueReason.EMPTY or self.rate is None:
            return None
        return computed_price(_EXACT.multiply(_EXACT.add(self.book.bid, self.book.ask), self.rate), 2)


@dataclass(frozen=True, slots=True)
class ConsensusPrice:
    """A price in dollars, from `used` of the `of` venues that were given.

    At least half of the votes lie within `confidence` of the price. `low` and `high` are the lowest bid and the highest
    ask of the venues used, so they bound the price. A majority of the venues used has a book from `as_of_s` or later.
    """

    state: Literal[ConsensusState.AGREED, ConsensusState.THIN]
    price: Decimal
    confidence: Decimal
    low: Decimal
    high: Decimal
    used: int
    of: int
    as_of_s: float
    verdicts: Sequence[VenueVerdict]

    def __post_init__(self) -> None:
        assert 0 < self.used <= self.of == len(self.verdicts)
        assert 0 < self.low <= self.price <= self.high
        assert self.confidence >= 0

    @property
    def agreement(self) -> Agreement:
        """What travels with a quote: its confidence is rounded up to `CONFIDENCE_DIGITS` significant digits."""
        state: Literal["agreed", "thin"] = "agreed" if self.state is ConsensusState.AGREED else "thin"
        return Agreement(state=state, confidence=_rounded_up(self.confidence), used=self.used, of=self.of)


@dataclass(frozen=True, slots=True)
class NoPrice:
    """There is no price. Each venue's verdict says why it was not used."""

    state: Literal[ConsensusState.DISPUTED, ConsensusState.NONE]
    verdicts: Sequence[VenueVerdict]

    @property
    def of(self) -> int:
        return len(self.verdicts)

    @property
    def reason(self) -> Literal["disputed", "no_venue"]:
        return "disputed" if self.state is ConsensusState.DISPUTED else "no_venue"


Consensus = ConsensusPrice | NoPrice


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsensusLimits:
    """The limits of a consensus. Names end in their unit; `bps` are hundredths of a percent."""

    age_max_s: float = 10.0  # one was silent for 13.6 s in a busy market; the others speak meanwhile
    future_max_s: float = 5.0  # as for every price (ARCHITECTURE, Times); a recorded exchange clock was 1.3 s ahead
    spread_max_bps: Decimal = Decimal(100)  # of twelve venues recorded on one day, all but one were below 90
    pair_band_bps: Decimal = Decimal(25)  # of two from their middle; seven large ones were recorded within 8 of theirs
    band_min_bps: Decimal = Decimal(50)  # below it a calm market would make honest venues outliers
    band_max_bps: Decimal = Decimal(200)  # above it liars would fit in: in a market that wild there is no one price
    band_deviations: Decimal = Decimal("7.413")  # 5 standard deviations, each 1.4826 of the MAD for normal errors
    confidence_min_bps: Decimal = Decimal(25)  # of fewer than `agreed_min`: if one of two errs, the price errs by this
    agreed_min: int = 3  # the fewest that can outvote a liar
    venues_min: int = 1  # fewer in the band give no price
    step_max_bps: Decimal = Decimal(500)  # of a thin result from the last agreed price
    step_age_max_s: float = 60.0  # a market that moved for good is believed after this

    def __post_init__(self) -> None:
        assert self.age_max_s > 0 <= self.future_max_s
        assert 0 < self.pair_band_bps <= self.band_min_bps <= self.band_max_bps
        assert self.pair_band_bps <= self.confidence_min_bps
        assert self.spread_max_bps <= self.band_max_bps < self.step_max_bps
        assert 1 <= self.venues_min <= self.agreed_min


PRICE_LIMITS = ConsensusLimits()
# A stablecoin is traded more rarely. A venue that alone gave a rate would also speak for all that use it.
RATE_LIMITS = replace(PRICE_LIMITS, age_max_s=30.0, venues_min=2)


def agree(
    books: Sequence[VenueBook],
    rates: Mapping[str, Decimal],
    now_s: float,
    *,
    last: ConsensusPrice | None,
    limits: ConsensusLimits = PRICE_LIMITS,
) -> Consensus:
    """The price in dollars on which a majority of the sound books agrees, or why there is none.

    `books` holds one book for each venue. `rates` are dollars for one unit of a currency, from `rate_of`. `last` is the
    last result whose state was `agreed`; a thin one would let a single venue lead the price away in small steps.
    """
    assert len({book.venue for book in books}) == len(books), "a venue would vote twice"
    assert rates.get(USD, _ONE) == _ONE
    assert last is None or last.state is ConsensusState.AGREED
    own_rates = [_ONE if book.currency == USD else rates.get(book.currency) for book in books]
    with localcontext(_EXACT):
        assert all(0 < rate < _TOO_LARGE for rate in rates.values())
        reasons = [_unsound(book, rate, now_s, limits) for book, rate in zip(books, own_rates, strict=True)]
        sound = [
            _in_dollars(place, book, rate)
            for place, (book, rate) in enumerate(zip(books, own_rates, strict=True))
            if reasons[place] is None and rate is not None
        ]
        majority = _majority(sound, limits)
        votes = sorted(vote for one in majority for vote in (one.bid, one.mid, one.ask))
        refusal = _refusal(votes, now_s, last, limits)
        for one in sound:
            reasons[one.place] = refusal if one in majority or not majority else VenueReason.OUTLIER
        verdicts = tuple(map(VenueVerdict, books, own_rates, reasons))
        if refusal is not None:
            is_nobody = not sound or refusal is VenueReason.ALONE
            return NoPrice(ConsensusState.NONE if is_nobody else ConsensusState.DISPUTED, verdicts)
        return _priced(votes, _spoken_by(majority, now_s), verdicts, limits)


def rate_of(currency: str, books: Sequence[VenueBook], now_s: float) -> Decimal | None:
    """Dollars for one unit of `currency`, from at least two venues that quote it in dollars; None without agreement."""
    if currency == USD:
        return _ONE
    rate = agree(books, {}, now_s, last=None, limits=RATE_LIMITS)
    return rate.price if isinstance(rate, ConsensusPrice) else None


class _SoundBook(NamedTuple):
    """A book that is fit to be held against others, in dollars."""

    place: int
    bid: Decimal
    mid: Decimal
    ask: Decimal
    as_of_s: float


def _unsound(book: VenueBook, rate: Decimal | None, now_s: float, limits: ConsensusLimits) -> VenueReason | None:
    """What is wrong with the book by itself. Each test asks for what is good, so that NaN fails it."""
    bid, ask = book.bid, book.ask
    if not (0 < bid < _TOO_LARGE and 0 < ask < _TOO_LARGE):
        return VenueReason.EMPTY
    if not bid <= ask:
        return VenueReason.CROSSED
    if not now_s - book.as_of_s <= limits.age_max_s:
        return VenueReason.STALE
    if not book.as_of_s - now_s <= limits.future_max_s:
        return VenueReason.FUTURE
    if not (ask - bid) <= (ask + bid) * _HALF * _BASIS_POINT * limits.spread_max_bps:
        return VenueReason.WIDE
    if rate is None or not (bid * rate >= _SMALLEST and ask * rate < _TOO_LARGE):
        return VenueReason.NO_RATE
    return None


def _in_dollars(place: int, book: VenueBook, rate: Decimal) -> _SoundBook:
    bid, ask = book.bid * rate, book.ask * rate
    return _SoundBook(place, bid, (bid + ask) * _HALF, ask, book.as_of_s)


def _majority(sound: Sequence[_SoundBook], limits: ConsensusLimits) -> list[_SoundBook]:
    """The venues within the band, if they are more than half of the sound ones; otherwise an empty list.

    Of an even number, two have the middle, and the centre lies between them. If they are too far apart, two halves
    contradict each other; a band around the centre would then hold both, since it is the MAD that makes it wide.
    """
    if not sound:
        return []
    mids = sorted(one.mid for one in sound)
    count = len(mids)
    centre = _middle(mids)
    basis_point = centre * _BASIS_POINT
    if mids[count // 2] - centre > basis_point * limits.pair_band_bps:
        return []
    band = basis_point * limits.band_min_bps
    if count > 3:
        mad = _middle(sorted(abs(mid - centre) for mid in mids))
        band = min(max(mad * limits.band_deviations, band), basis_point * limits.band_max_bps)
    near = [one for one in sound if abs(one.mid - centre) <= band]
    return near if 2 * len(near) > count else []


def _refusal(
    votes: Sequence[Decimal], now_s: float, last: ConsensusPrice | None, limits: ConsensusLimits
) -> VenueReason | None:
    """Why these votes give no price."""
    used = len(votes) // _VOTES
    if not used:
        return VenueReason.DISPUTED
    if used < limits.venues_min:
        return VenueReason.ALONE
    if used < limits.agreed_min and last is not None and now_s - last.as_of_s <= limits.step_age_max_s:
        step = abs(_middle(votes) - last.price)
        return VenueReason.HELD if step > last.price * _BASIS_POINT * limits.step_max_bps else None
    return None


def _priced(
    votes: Sequence[Decimal], as_of_s: float, verdicts: Sequence[VenueVerdict], limits: ConsensusLimits
) -> ConsensusPrice:
    used = len(votes) // _VOTES
    is_thin = used < limits.agreed_min
    middle = _middle(votes)
    confidence = max(_quarter(votes, 3) - middle, middle - _quarter(votes, 1))
    if is_thin:
        confidence = max(confidence, middle * _BASIS_POINT * limits.confidence_min_bps)
    return ConsensusPrice(
        state=ConsensusState.THIN if is_thin else ConsensusState.AGREED,
        price=computed_price(middle, 1),
        confidence=computed_price(confidence, 1),
        low=computed_price(votes[0], 1),
        high=computed_price(votes[-1], 1),
        used=used,
        of=len(verdicts),
        as_of_s=as_of_s,
        verdicts=verdicts,
    )


def _middle(ordered: Sequence[Decimal]) -> Decimal:
    """The median."""
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) * _HALF


def _quarter(ordered: Sequence[Decimal], quarters: int) -> Decimal:
    """The first or third quartile, by nearest rank."""
    return ordered[-(-quarters * len(ordered) // 4) - 1]


def _spoken_by(used: Sequence[_SoundBook], now_s: float) -> float:
    """The latest time since when a majority of these venues has spoken; the maximum would follow one clock alone."""
    return min(sorted(one.as_of_s for one in used)[(len(used) - 1) // 2], now_s)


def _rounded_up(confidence: Decimal) -> Decimal:
    if not confidence:
        return Decimal(0)
    unit = Decimal(1).scaleb(confidence.adjusted() - CONFIDENCE_DIGITS + 1)
    return computed_price(confidence.quantize(unit, ROUND_UP, _EXACT), 1)
