"""The quote: its price, time and position, and how they are read and written.

There is one rule for each, used at every edge (source, log, shard, Redis, HTTP). `live_message.py` has live messages.

* a price is plain decimal text: ASCII digits with at most one point, no sign, no exponent, greater than zero,
  at most `PRICE_TEXT_MAX` characters; its digits are kept exactly as given, trailing zeros included;
* a time is an aware UTC `datetime`, in text `2026-11-24T12:00:00.123456Z`;
* a position is `epoch-seq`, per coin; positions only rise;
* an agreement of venues is four fields, all of them or none: `state`, `confidence` (text like a price, which may be
  zero), `used` and `of` (1 to `VENUES_MAX`). It is stored as one short text, `5/6 12.34`.

The types `CoinText`, `PriceText` and so on are these rules for fields of messages: msgspec applies them when it
decodes, so that no text of another shape is passed on.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Annotated, Literal, NamedTuple, Self, TypedDict

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

_COIN = r"[a-z0-9-]{1,32}"
_CURRENCY = r"[A-Z0-9]{2,12}"
_ORIGIN = r"[\x21-\x7e]{1,100}"
COIN_PATTERN = re.compile(rf"{_COIN}\Z")
CURRENCY_PATTERN = re.compile(rf"{_CURRENCY}\Z")
ORIGIN_PATTERN = re.compile(rf"{_ORIGIN}\Z")

# Enough for any market: the highest price of the smallest unit needs under 30 digits on either side of the point.
PRICE_INTEGER_DIGITS_MAX = 30
PRICE_FRACTION_DIGITS_MAX = 30
PRICE_TEXT_MAX = PRICE_INTEGER_DIGITS_MAX + 1 + PRICE_FRACTION_DIGITS_MAX
_DECIMAL = rf"(?:0|[1-9][0-9]{{0,{PRICE_INTEGER_DIGITS_MAX - 1}}})(?:\.[0-9]{{1,{PRICE_FRACTION_DIGITS_MAX}}})?"
_PRICE = re.compile(rf"{_DECIMAL}\Z")

_WITH_EXPONENT = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?[eE][+-]?[0-9]{1,3}\Z", re.ASCII)

COMPUTED_PLACES = 18
_EXACT = Context(prec=200)
_COMPUTED_UNIT = Decimal(1).scaleb(-COMPUTED_PLACES)

VENUES_MAX = 100  # that one price is made of

SEQ_MAX = 2**31 - 1
EPOCH_MAX = 2**63 - 1

EPOCH_START = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_RFC_3339 = "[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
_TIME = re.compile(rf"{_RFC_3339}\Z")
_EPOCH_SEQ = "([0-9]{1,19})-([0-9]{1,10})"
_POSITION = re.compile(rf"{_EPOCH_SEQ}\Z")
_AGREEMENT = re.compile(rf"([1-9][0-9]{{0,2}})/([1-9][0-9]{{0,2}})([ ~])({_DECIMAL})\Z")


def _whole(rule: str) -> str:
    """A pattern for the whole text; `$` alone would allow a line feed at the end."""
    return rf"^{rule}$(?!\n)"


def _text(rule: str) -> msgspec.Meta:
    return msgspec.Meta(pattern=_whole(rule))


COIN_RULE = _whole(_COIN)  # for a document


CoinText = Annotated[str, _text(_COIN)]
CurrencyText = Annotated[str, _text(_CURRENCY)]
OriginText = Annotated[str, _text(_ORIGIN)]
PriceText = Annotated[str, _text(rf"(?=[0-9.]*[1-9]){_DECIMAL}")]  # above zero
ConfidenceText = Annotated[str, _text(_DECIMAL)]
VenueCount = Annotated[int, msgspec.Meta(ge=1, le=VENUES_MAX)]
ComputedText = Annotated[str, _text("-?(0|[1-9][0-9]{0,69})([.][0-9]{1,18})?")]  # a mean, or a change in percent
TimeText = Annotated[str, _text(_RFC_3339)]
PositionText = Annotated[str, _text(_EPOCH_SEQ)]
Epoch = Annotated[int, msgspec.Meta(ge=0, le=EPOCH_MAX)]
Seq = Annotated[int, msgspec.Meta(ge=1, le=SEQ_MAX)]


class PriceError(ValueError):
    """An invalid price. `reason` is one of malformed, not_finite, zero, negative."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"price is {reason.replace('_', ' ')}")
        self.reason = reason


class Position(NamedTuple):
    """A quote's place in its coin's history; compares in the order of recording."""

    epoch: int
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read `epoch-seq`; ValueError says what is expected."""
        match = _POSITION.match(text)
        if match is None or int(match[1]) > EPOCH_MAX or not 0 < int(match[2]) <= SEQ_MAX:
            raise ValueError("a position is written EPOCH-SEQ, for example 1732400000000-42")
        return cls(int(match[1]), int(match[2]))


def position_of(epoch: int | None, seq: int | None) -> Position | None:
    """The position in two columns of a table; None if they are null."""
    return None if epoch is None or seq is None else Position(epoch, seq)


AgreementState = Literal["agreed", "thin"]
_AGREEMENT_STATES: dict[str, AgreementState] = {"agreed": "agreed", "thin": "thin"}


class Agreement(msgspec.Struct, frozen=True, gc=False):
    """How venues agreed on a price: `used` of `of` venues, within `confidence` of it, in its currency.

    `thin` if fewer than three venues were used.
    """

    state: AgreementState
    confidence: Decimal
    used: int
    of: int

    def __str__(self) -> str:
        """As it is stored: `5/6 12.34` if agreed, `2/3~16.75` if thin."""
        return f"{self.used}/{self.of}{'~' if self.state == 'thin' else ' '}{format_price(self.confidence)}"

    @classmethod
    def parse(cls, text: str) -> Agreement:
        """The inverse of `str`; ValueError for any other text."""
        match = _AGREEMENT.match(text)
        if match is None:
            raise ValueError("an agreement is written USED/OF CONFIDENCE, for example 5/6 12.34")
        used, of, mark, confidence = match.groups()
        return cls._checked("thin" if mark == "~" else "agreed", confidence, int(used), int(of))

    @classmethod
    def of_fields(
        cls,
        state: str | msgspec.UnsetType,
        confidence: str | msgspec.UnsetType,
        used: int | msgspec.UnsetType,
        of: int | msgspec.UnsetType,
    ) -> Agreement | None:
        """The agreement in the fields of a message; None if it has none of them, ValueError if one is invalid."""
        if state is confidence is used is of is UNSET:
            return None
        if (
            isinstance(state, msgspec.UnsetType)
            or isinstance(confidence, msgspec.UnsetType)
            or isinstance(used, msgspec.UnsetType)
            or isinstance(of, msgspec.UnsetType)
        ):
            raise ValueError("state, confidence, used and of are given together or not at all")
        return cls._checked(state, confidence, used, of)

    @classmethod
    def _checked(cls, state: str, confidence: str, used: int, of: int) -> Agreement:
        known = _AGREEMENT_STATES.get(state)
        if known is None:
            raise ValueError("the state of an agreement is agreed or thin")
        if not 1 <= used <= of <= VENUES_MAX:
            raise ValueError(f"the venues of an agreement are 1 to {VENUES_MAX}, and no more are used than there are")
        if len(confidence) > PRICE_TEXT_MAX or _PRICE.match(confidence) is None:
            raise ValueError("the confidence of an agreement is plain decimal text, zero or more")
        return cls(known, Decimal(confidence), used, of)


class AgreementFields(TypedDict, total=False):
    """The fields of an agreement in a message; empty if there is none."""

    state: AgreementState
    confidence: str
    used: int
    of: int


def agreement_fields(agreement: Agreement | None) -> AgreementFields:
    """The fields that a message has for this agreement."""
    if agreement is None:
        return {}
    return {
        "state": agreement.state,
        "confidence": format_price(agreement.confidence),
        "used": agreement.used,
        "of": agreement.of,
    }


class AgreementJson(msgspec.Struct, frozen=True, kw_only=True):
    """The optional last fields of a quote in an answer."""

    state: AgreementState | msgspec.UnsetType = UNSET
    confidence: ConfidenceText | msgspec.UnsetType = UNSET
    used: VenueCount | msgspec.UnsetType = UNSET
    of: VenueCount | msgspec.UnsetType = UNSET

    def agreement(self) -> Agreement | None:
        """How venues agreed, None if it does not say; ValueError if a field is invalid."""
        if self.state is self.confidence is self.used is self.of is UNSET:
            return None
        return Agreement.of_fields(self.state, self.confidence, self.used, self.of)


class Observation(msgspec.Struct, frozen=True, gc=False):
    """A source's statement about one coin: a validated exact price, and the source's own time.

    `agreement` is None if the source does not say how the price came about.
    """

    coin: str
    currency: str
    price: Decimal
    observed_at: datetime
    origin: str
    agreement: Agreement | None = None


class Quote(msgspec.Struct, frozen=True, gc=False):
    """One recorded price. `prev` is the last position of the previous epoch, on the first quote of an epoch only."""

    coin: str
    currency: str
    price: Decimal
    epoch: int
    seq: int
    observed_at: datetime
    at: datetime
    origin: str
    prev: Position | None = None
    agreement: Agreement | None = None

    @property
    def position(self) -> Position:
        return Position(self.epoch, self.seq)

    @property
    def before(self) -> Position | None:
        """The position recorded right before this one; None for the coin's first quote."""
        return self.prev if self.seq == 1 else Position(self.epoch, self.seq - 1)


class QuoteJson(AgreementJson, frozen=True):
    """A quote in an answer of `/v1/quotes`."""

    coin: CoinText
    currency: CurrencyText
    price: PriceText
    epoch: Epoch
    seq: Seq
    observed_at: TimeText
    at: TimeText
    origin: OriginText
    prev: PositionText | None = None

    @classmethod
    def from_quote(cls, quote: Quote) -> QuoteJson:
        one = cls(
            coin=quote.coin,
            currency=quote.currency,
            price=format_price(quote.price),
            epoch=quote.epoch,
            seq=quote.seq,
            observed_at=format_time(quote.observed_at),
            at=format_time(quote.at),
            origin=quote.origin,
            prev=None if quote.prev is None else str(quote.prev),
        )
        return one if quote.agreement is None else replace(one, **agreement_fields(quote.agreement))

    def quote(self) -> Quote:
        """The quote; ValueError if a field is invalid."""
        return Quote(
            coin=self.coin,
            currency=self.currency,
            price=parse_price(self.price),
            epoch=self.epoch,
            seq=self.seq,
            observed_at=parse_time(self.observed_at),
            at=parse_time(self.at),
            origin=self.origin,
            prev=None if self.prev is None else Position.parse(self.prev),
            agreement=self.agreement(),
        )


@dataclass(frozen=True)
class AgeLimits:
    """Limits in milliseconds: up to `fresh` a quote is fresh; beyond `most` it does not count as a price."""

    fresh: int
    most: int

    @classmethod
    def of(cls, fresh_s: float, age_max_s: float) -> Self:
        """The limits from the settings, which are in seconds."""
        return cls(round(fresh_s * 1000), round(age_max_s * 1000))

    def status(self, age_ms: int) -> Literal["fresh", "stale"]:
        """The status of a quote of this age."""
        return "fresh" if age_ms <= self.fresh else "stale"


def parse_price(text: str) -> Decimal:
    """Parse a price by the rule of this module; PriceError names what is wrong."""
    if len(text) > PRICE_TEXT_MAX:
        raise PriceError("malformed")
    if _PRICE.match(text) is None:
        raise PriceError(_why_not_a_price(text))
    price = Decimal(text)
    if not price:
        raise PriceError("zero")
    return price


def parse_number(text: str) -> Decimal:
    """Parse a price that was written as a number: like `parse_price`, as exact, but with an exponent allowed.

    Programs write numbers below 0.0001 and above 10^16 that way.
    """
    if len(text) <= PRICE_TEXT_MAX and _WITH_EXPONENT.match(text):
        text = format(Decimal(text), "f")  # at most a thousand more digits, which are then too many
    return parse_price(text)


def _why_not_a_price(text: str) -> str:
    if text.strip().lower().lstrip("+-") in {"nan", "inf", "infinity", "snan"}:
        return "not_finite"
    if text.startswith("-") and _PRICE.match(text[1:]):
        return "negative" if Decimal(text) else "zero"
    return "malformed"


def format_price(price: Decimal) -> str:
    """The price as text, with every digit and no exponent."""
    return format(price, "f")


def computed_price(total: Decimal, count: int) -> Decimal:
    """`total / count`, half-even to 18 places, without exponent or trailing zeros (ARCHITECTURE, Computed prices)."""
    return _quotient(total, Decimal(count))


def change_percent(first: Decimal, last: Decimal) -> Decimal:
    """The change from `first` to `last` in percent, rounded like every computed price."""
    return _quotient(_EXACT.multiply(_EXACT.subtract(last, first), Decimal(100)), first)


def _quotient(dividend: Decimal, divisor: Decimal) -> Decimal:
    quotient = _EXACT.divide(dividend, divisor).quantize(_COMPUTED_UNIT, ROUND_HALF_EVEN, _EXACT)
    if not quotient:
        return Decimal(0)  # without a sign
    return Decimal(format_price(quotient).rstrip("0").rstrip("."))  # 18 places, so there is always a point


def exact_sum(prices: Iterable[Decimal]) -> Decimal:
    """The sum without rounding (the default context would round to 28 digits)."""
    total = Decimal(0)
    for price in prices:
        total = _EXACT.add(total, price)
    return total


def parse_time(text: str) -> datetime:
    """Parse an RFC 3339 time with an offset, to the microsecond (further digits are cut); ValueError otherwise."""
    if _TIME.match(text) is None:
        raise ValueError("a time is written as RFC 3339 with an offset, for example 2026-11-24T12:00:00.123456Z")
    try:
        if text.endswith("Z"):  # as we write it, thousands of times a second
            return datetime.fromisoformat(text)
        return datetime.fromisoformat(text.upper().replace("Z", "+00:00")).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"no such time: {error}") from error


def format_time(time: datetime) -> str:
    """RFC 3339 in UTC, always six digits of the second, so that texts sort as times do."""
    utc = time if time.tzinfo is UTC else time.astimezone(UTC)
    return f"{utc.isoformat(timespec='microseconds')[:-6]}Z"  # without the offset; strftime takes five times as long


def utc_now() -> datetime:
    """The wall time, in UTC."""
    return datetime.now(UTC)


def to_microseconds(time: datetime) -> int:
    """Microseconds since 1970, exact."""
    return (time - EPOCH_START) // _MICROSECOND


def from_microseconds(microseconds: int) -> datetime:
    """The inverse of `to_microseconds`."""
    return EPOCH_START + timedelta(microseconds=microseconds)


def first_gap(quotes: Sequence[Quote], after: Position | None, known: Collection[Position | None] = ()) -> int | None:
    """The index of the first quote that does not follow the one before it (or `after`); None without a hole.

    `known` are the last positions of known holes: a quote that follows one of them is in its place.
    """
    before = after
    for index, quote in enumerate(quotes):
        if before is not None and quote.before != before and quote.before not in known:
            return index
        before = quote.position
    return None
