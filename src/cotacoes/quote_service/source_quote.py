"""The body of the source's `GET /quote`, read with one strict rule per field.

    {"bitcoin":"67012.34","ethereum":3512.10,"observed_at":"…Z",
     "observed":{"bitcoin":"…Z"},"currency":{"bitcoin":"USD","ethereum":"USD"},"origin":"sim",
     "consensus":{"bitcoin":{"state":"agreed","confidence":"12.34","low":"…","high":"…","used":5,"of":6}},
     "reasons":{"ethereum":"disputed"},"origins":{"bitcoin-kraken":"kraken"}}

Every key except the seven reserved ones is a coin. Its price is a JSON string or number, read from the bytes as they
stand, so that no digit passes through a float; a number may have an exponent, a string may not. Its time is
`observed[coin]`, or else `observed_at`; its currency is required. `consensus` is optional, for each coin; a coin that
is in it has all fields but `low` and `high`, which are ignored. `reasons`, optional too, says of which coins the source
has no price now; a price of such a coin is an older one. `origins`, as optional, has the coins whose origin is not that
of the whole. A fault of one coin rejects that coin, a fault of the whole rejects the answer. If a key is given twice
the last one counts, as with every common reader of JSON. Whether a coin, a time or a price is *believable* is decided
later, in `validation.py`.

The answer is untrusted: the number of its keys is checked before it is decoded, coins that are not ours are only
counted, and the event loop gets a turn every few milliseconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

import msgspec

from cotacoes.errors import SourceMalformedError
from cotacoes.model.payloads import SOURCE_QUOTE_FIELDS, SourceReason
from cotacoes.model.quote import (
    CURRENCY_PATTERN,
    ORIGIN_PATTERN,
    PRICE_TEXT_MAX,
    Agreement,
    AgreementJson,
    Observation,
    PriceError,
    parse_number,
    parse_price,
    parse_time,
)

COINS_MAX = 10_000  # as many as the directory can name
COLONS_MAX = 5 * COINS_MAX + 1_000  # of each coin's price, currency and time; more take too long to decode
STEP_PRICES = 500  # read without a pause, in about 2 ms

_TEXT_BYTES_MAX = 400  # of one value: six times the longest price, so that escapes fit too
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text = msgspec.json.Decoder(str)
_reasons = msgspec.json.Decoder(dict[str, SourceReason])
_agreement = msgspec.json.Decoder(AgreementJson)


@dataclass(frozen=True, slots=True)
class Fetched:
    """The content of one answer. `unreadable` pairs a coin with malformed, not_finite, zero, negative or bad_time.

    `unknown` counts the coins that are not ours, whether they can be read or not. `reasons` says why the source has no
    price of a coin now.
    """

    observations: list[Observation]
    unreadable: list[tuple[str, str]]
    unknown: int = 0
    reasons: Mapping[str, str] = field(default_factory=dict)


class _UnreadableError(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


async def read_quote(body: bytes, coins: Container[str]) -> Fetched:
    """The prices of these coins in the body; SourceMalformedError if it is no such object."""
    if body.count(b":") > COLONS_MAX:
        raise SourceMalformedError(f"the answer holds more than {COINS_MAX} coins")
    fields = _read_object(body, "the answer")
    try:
        origin = _read_origin(fields.get("origin"))
    except _UnreadableError as error:
        raise SourceMalformedError("the answer names no origin") from error
    if len(fields.keys() - SOURCE_QUOTE_FIELDS) > COINS_MAX:
        raise SourceMalformedError(f"the answer holds more than {COINS_MAX} coins")
    await asyncio.sleep(0)
    observed = _read_object(fields.get("observed", msgspec.Raw(b"{}")), "observed")
    await asyncio.sleep(0)
    currencies = _read_object(fields.get("currency", msgspec.Raw(b"{}")), "currency")
    await asyncio.sleep(0)
    agreements = _read_object(fields.get("consensus", msgspec.Raw(b"{}")), "consensus")
    await asyncio.sleep(0)
    origins = _read_object(fields.get("origins", msgspec.Raw(b"{}")), "origins")
    prices = {coin: raw for coin, raw in fields.items() if coin in coins and coin not in SOURCE_QUOTE_FIELDS}
    reasons = _read_reasons(fields.get("reasons"), coins)
    fetched = Fetched([], [], len(fields.keys() - SOURCE_QUOTE_FIELDS) - len(prices), reasons)
    for number, (coin, raw) in enumerate(prices.items()):
        if number % STEP_PRICES == 0:
            await asyncio.sleep(0)
        try:
            observation = Observation(
                coin=coin,
                price=_read_price(raw),
                currency=_read_currency(currencies.get(coin)),
                observed_at=_read_time(observed.get(coin, fields.get("observed_at"))),
                origin=_read_origin(origins[coin]) if coin in origins else origin,
                agreement=_read_agreement(agreements.get(coin)),
            )
        except _UnreadableError as error:
            fetched.unreadable.append((coin, error.reason))
        else:
            fetched.observations.append(observation)
    return fetched


def _read_object(raw: bytes | msgspec.Raw, name: str) -> Mapping[str, msgspec.Raw]:
    try:
        return _object.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise SourceMalformedError(f"{name} is not a JSON object") from error


def _read_reasons(raw: msgspec.Raw | None, coins: Container[str]) -> Mapping[str, str]:
    try:
        given = {} if raw is None else _reasons.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise SourceMalformedError("reasons is not an object of words") from error
    return {coin: reason for coin, reason in given.items() if coin in coins}


def _read_text(raw: msgspec.Raw | None) -> str | None:
    """The JSON string; None if it is absent, too long or something else."""
    if raw is None or len(memoryview(raw)) > _TEXT_BYTES_MAX:
        return None
    try:
        return _text.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _read_price(raw: msgspec.Raw) -> Decimal:
    token = bytes(memoryview(raw)[: PRICE_TEXT_MAX + 1])
    is_number = token[:1].isdigit() or token[:1] == b"-"
    text = token.decode("ascii", "replace") if is_number else _read_text(raw)
    if text is None:
        raise _UnreadableError("malformed")
    try:
        return parse_number(text) if is_number else parse_price(text)
    except PriceError as error:
        raise _UnreadableError(error.reason) from error


def _read_time(raw: msgspec.Raw | None) -> datetime:
    try:
        return parse_time(_read_text(raw) or "")
    except ValueError as error:
        raise _UnreadableError("bad_time") from error


def _read_currency(raw: msgspec.Raw | None) -> str:
    currency = _read_text(raw)
    if currency is None or CURRENCY_PATTERN.match(currency) is None:
        raise _UnreadableError("malformed")
    return currency


def _read_origin(raw: msgspec.Raw | None) -> str:
    origin = _read_text(raw)
    if origin is None or ORIGIN_PATTERN.match(origin) is None:
        raise _UnreadableError("malformed")
    return origin


def _read_agreement(raw: msgspec.Raw | None) -> Agreement | None:
    if raw is None:
        return None
    try:
        agreement = _agreement.decode(raw).agreement()
    except (ValueError, RecursionError) as error:  # msgspec's own are that too
        raise _UnreadableError("malformed") from error
    if agreement is None:
        raise _UnreadableError("malformed")
    return agreement
