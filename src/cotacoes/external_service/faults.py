"""The faults: what goes wrong on purpose, how often, and until when. Clock and random are passed in.

Each request is judged once. At `error_rate` it is answered at once with one of `status`. Otherwise it waits
`latency_ms` plus up to `jitter_ms`, and the kinds are tried in the order of the table below; the first that hits is the
one fault of the request. So a kind at 1.0 hits every request that gets no error and no earlier kind.

    of the answer   hang cut_body drip_body huge_body gzip_bomb garbage html_200 redirect too_many_requests
    of the prices   wrong_coin nan zero negative absurd many_digits frozen_price old_time future_time

A setting with `for_s` is in force for that time; then the last one set without `for_s` returns.
"""

from __future__ import annotations

import enum
import random as random_module
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Annotated

import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from cotacoes.external_service.timed import ForS, InForce
from cotacoes.model.quote import (
    COIN_PATTERN,
    COIN_RULE,
    AgreementFields,
    Observation,
    agreement_fields,
    format_price,
    format_time,
)

OLD_BY = timedelta(hours=2)
FUTURE_BY = timedelta(hours=1)
ABSURD_FACTOR_POWER = 3  # of ten: a thousand times the price
MANY_PLACES = 28  # the most a valid price can have is 30


class FaultKind(enum.StrEnum):
    """What can go wrong with an answer, in the order in which the kinds are tried."""

    HANG = "hang"
    CUT_BODY = "cut_body"
    DRIP_BODY = "drip_body"
    HUGE_BODY = "huge_body"
    GZIP_BOMB = "gzip_bomb"
    GARBAGE = "garbage"
    HTML_200 = "html_200"
    REDIRECT = "redirect"
    TOO_MANY_REQUESTS = "too_many_requests"
    WRONG_COIN = "wrong_coin"
    NAN = "nan"
    ZERO = "zero"
    NEGATIVE = "negative"
    ABSURD = "absurd"
    MANY_DIGITS = "many_digits"
    FROZEN_PRICE = "frozen_price"
    OLD_TIME = "old_time"
    FUTURE_TIME = "future_time"


PRICE_KINDS = frozenset(list(FaultKind)[list(FaultKind).index(FaultKind.WRONG_COIN) :])


def _coin(name: str) -> str:
    if COIN_PATTERN.match(name) is None:
        raise ValueError("a coin is written [a-z0-9-]{1,32}")
    return name


def _some(status: tuple[int, ...]) -> tuple[int, ...]:
    if not status:
        raise ValueError("name at least one status")
    return status


Rate = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)]
Status = Annotated[int, Field(ge=400, le=599, strict=True)]
Milliseconds = Annotated[int, Field(ge=0, le=60_000, strict=True)]
Coin = Annotated[str, AfterValidator(_coin), WithJsonSchema({"type": "string", "pattern": COIN_RULE})]


class FaultSetting(BaseModel):
    """The faults as `/faults` takes and shows them. An absent field means no such fault."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    error_rate: Rate = Field(default=0.0, description="share of requests answered at once with one of `status`")
    status: Annotated[tuple[Status, ...], AfterValidator(_some)] = Field(default=(500, 503), max_length=20)
    latency_ms: Milliseconds = Field(default=0, description="added to every answer except errors")
    jitter_ms: Milliseconds = Field(default=0, description="up to this much more, uniformly distributed")
    retry_after_s: Annotated[int, Field(ge=0, le=86_400, strict=True)] | None = Field(
        default=None, description="`Retry-After` of 429 and 503; null: no such header"
    )
    kinds: dict[FaultKind, Rate] = Field(default_factory=dict, description="the rate of each kind")
    coins: tuple[Coin, ...] = Field(default=(), max_length=1000, description="whose prices are altered; empty: all")
    for_s: ForS = None


@dataclass(frozen=True, slots=True)
class FaultVerdict:
    """The fault of one request: at most one of `status` and `kind`, after `delay_s`."""

    status: int | None = None
    kind: FaultKind | None = None
    delay_s: float = 0.0
    retry_after_s: int | None = None
    coins: tuple[str, ...] = ()

    def hits(self, coin: str) -> bool:
        """Whether the price of `coin` is altered."""
        return self.kind in PRICE_KINDS and (not self.coins or coin in self.coins)


GOOD = FaultVerdict()


class Faults:
    """The setting in force and the dice. `clock` gives monotonic seconds; `on_end` is called when a setting ends."""

    def __init__(
        self,
        lasting: FaultSetting,
        *,
        clock: Callable[[], float],
        random: random_module.Random,
        on_end: Callable[[FaultSetting], None] = lambda _: None,
    ) -> None:
        self._in_force = InForce(lasting, clock=clock, on_end=self._ended)
        self._random = random
        self._on_end = on_end
        self._frozen: dict[str, Observation] = {}

    def set(self, setting: FaultSetting) -> None:
        """Replace the setting in force."""
        self._frozen.clear()
        self._in_force.set(setting)

    def current(self) -> FaultSetting:
        """The setting in force, with what is left of `for_s`."""
        return self._in_force.shown()

    def judge(self) -> FaultVerdict:
        """Decide what becomes of the next request."""
        setting = self._in_force.current()
        if self._random.random() < setting.error_rate:
            status = self._random.choice(setting.status)
            return FaultVerdict(status=status, retry_after_s=setting.retry_after_s)
        return FaultVerdict(
            kind=next((kind for kind in FaultKind if self._random.random() < setting.kinds.get(kind, 0.0)), None),
            delay_s=(setting.latency_ms + self._random.random() * setting.jitter_ms) / 1000,
            retry_after_s=setting.retry_after_s,
            coins=setting.coins,
        )

    def freeze(self, quotes: Mapping[str, Observation]) -> Mapping[str, Observation]:
        """The same coins with the prices that they had when the setting in force first froze them."""
        return {coin: self._frozen.setdefault(coin, quote) for coin, quote in quotes.items()}

    def _ended(self, ended: FaultSetting) -> None:
        self._frozen.clear()
        self._on_end(ended)


def render(quotes: Mapping[str, Observation], origin: str, verdict: FaultVerdict = GOOD) -> bytes:
    """The body of `/quote`; the prices that the verdict hits are altered."""
    prices: dict[str, str] = {}
    observed: dict[str, str] = {}
    currency: dict[str, str] = {}
    consensus: dict[str, AgreementFields] = {}
    for coin, quote in quotes.items():
        kind = verdict.kind if verdict.hits(coin) else None
        name, price, shown = _altered(kind, quote)
        prices[name] = price
        observed[name] = format_time(shown.observed_at)
        currency[name] = shown.currency
        if shown.agreement is not None:
            consensus[name] = agreement_fields(shown.agreement)
    oldest = min(observed.values(), default=None)
    body = {**prices, "observed_at": oldest, "observed": observed, "currency": currency, "origin": origin}
    return msgspec.json.encode({**body, "consensus": consensus} if consensus else body)


def _altered(kind: FaultKind | None, quote: Observation) -> tuple[str, str, Observation]:
    """The coin's name, the text of its price, and the observation with its time, as `kind` alters them."""
    coin, price = quote.coin, format_price(quote.price)
    match kind:
        case FaultKind.WRONG_COIN:
            return f"not-{coin}"[:32], price, quote
        case FaultKind.NAN:
            return coin, "NaN", quote
        case FaultKind.ZERO:
            return coin, "0.00", quote
        case FaultKind.NEGATIVE:
            return coin, f"-{price}", quote
        case FaultKind.ABSURD:
            return coin, format_price(quote.price.scaleb(ABSURD_FACTOR_POWER)), quote
        case FaultKind.MANY_DIGITS:
            return coin, _with_many_digits(quote.price), quote
        case FaultKind.OLD_TIME:
            return coin, price, msgspec.structs.replace(quote, observed_at=quote.observed_at - OLD_BY)
        case FaultKind.FUTURE_TIME:
            return coin, price, msgspec.structs.replace(quote, observed_at=quote.observed_at + FUTURE_BY)
        case _:  # no fault, or frozen_price, for which the quotes were exchanged before
            return coin, price, quote


def _with_many_digits(price: Decimal) -> str:
    """The price with `MANY_PLACES` places: its own digits, then 123456789 over and over."""
    whole, _, places = format_price(price).partition(".")
    return f"{whole}.{places}{('123456789' * 4)[: max(0, MANY_PLACES - len(places))]}"
