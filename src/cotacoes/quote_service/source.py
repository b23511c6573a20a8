"""A source over HTTP: `GET /quote`, read with one strict rule per field.

    {"bitcoin":"67012.34","ethereum":3512.10,"observed_at":"…Z",
     "observed":{"bitcoin":"…Z"},"currency":{"bitcoin":"USD","ethereum":"USD"},"origin":"sim"}

Every key that is none of the four reserved ones is a coin. Its price is a JSON string or number, taken from the bytes
as they stand, so no digit passes through a float; a number may have an exponent, a string may not. Its time is
`observed[coin]`, else `observed_at`; its currency must be told. What is wrong with one coin rejects that coin, what is
wrong with the whole rejects the answer. Of a key given twice the last counts, as with every common reader of JSON.
Whether a coin, a time or a price is *believable* is not
decided here but by the screen of whoever fetched.

The answer is a stranger's: how many keys it may have is checked before it is decoded, coins that are not ours are only
counted, and between steps of a few milliseconds the event loop has its turn.
"""

from __future__ import annotations

import asyncio
import email.utils
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Protocol

import msgspec

from cotacoes.adapters.http_client import Response
from cotacoes.errors import HttpMalformedError, HttpUnavailableError, SourceMalformedError, SourceUnavailableError
from cotacoes.model.payloads import SOURCE_QUOTE_FIELDS
from cotacoes.model.quote import (
    CURRENCY_PATTERN,
    ORIGIN_PATTERN,
    PRICE_TEXT_MAX,
    Observation,
    PriceError,
    parse_number,
    parse_price,
    parse_time,
)
from cotacoes.patterns.resilience.classification import Outcome, outcome_of_status

COINS_MAX = 10_000  # as many as the directory can name
COLONS_MAX = 5 * COINS_MAX + 1_000  # of a coin's price, currency and time; more than that takes too long to decode
STEP_COINS = 500  # read without a pause, in about 2 ms
RETRY_AFTER_MAX_S = 300.0  # a source that asks for more is asked again all the same

_TEXT_BYTES_MAX = 400  # of one value: six times the longest price, so that escapes fit too
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text = msgspec.json.Decoder(str)


class Get(Protocol):
    """What is needed of an HTTP client."""

    async def get(self, url: str) -> Response: ...


@dataclass(frozen=True, slots=True)
class Fetched:
    """What one answer held. `rejected` pairs a coin with malformed, not_finite, zero, negative or bad_time.

    `unknown` counts the coins that are not ours, whatever was said of them.
    """

    observations: list[Observation]
    rejected: list[tuple[str, str]]
    unknown: int = 0


class _NotAnObservationError(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class HttpSource:
    """The source at the base address `url`, for `coins`, which may become more.

    `now` gives the wall time, to read a date in `Retry-After`.
    """

    def __init__(
        self,
        client: Get,
        url: str,
        coins: Container[str],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._url = f"{url.rstrip('/')}/quote"
        self._coins = coins
        self._now = now

    async def fetch(self) -> Fetched:
        """Ask once. Raises SourceUnavailableError (with the wait asked for) and SourceMalformedError."""
        response = await answer_of(self._client, self._url, self._now)
        if response.status != 200:
            raise unexpected(response.status)
        return await read_quotes(response.body, self._coins)


async def answer_of(client: Get, url: str, now: Callable[[], datetime]) -> Response:
    """What a source answers, unless it says that it can not: SourceUnavailableError or SourceMalformedError then."""
    try:
        response = await client.get(url)
    except HttpUnavailableError as error:
        raise SourceUnavailableError(str(error), outcome=error.outcome) from error
    except HttpMalformedError as error:
        raise SourceMalformedError(str(error), outcome=error.outcome) from error
    if response.status == 429 or response.status >= 500:
        retry_after_s = read_retry_after(response.headers.get("retry-after"), now())
        outcome = outcome_of_status(response.status)
        raise SourceUnavailableError(
            f"the source answered {response.status}", retry_after_s=retry_after_s, outcome=outcome
        )
    return response


def unexpected(status: int) -> SourceMalformedError:
    """The error of a status that is neither the answer nor "not now"."""
    outcome = outcome_of_status(status)
    return SourceMalformedError(
        f"the source answered {status}", outcome=Outcome.MALFORMED if outcome is Outcome.OK else outcome
    )


def read_retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds from 0 to `RETRY_AFTER_MAX_S`, given as such or as an HTTP date; None where there is nothing to read."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return RETRY_AFTER_MAX_S if len(value) > 6 else min(float(value), RETRY_AFTER_MAX_S)
    try:
        date = email.utils.parsedate_to_datetime(value)
        wait_s = (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None  # not a date: as good as absent
    return min(max(wait_s, 0.0), RETRY_AFTER_MAX_S)


async def read_quotes(body: bytes, coins: Container[str]) -> Fetched:
    """Read what the body of `/quote` says of these coins; SourceMalformedError if it is no such object."""
    if body.count(b":") > COLONS_MAX:
        raise SourceMalformedError(f"the answer holds more than {COINS_MAX} coins")
    fields = _read_object(body, "the answer")
    origin = _read_text(fields.get("origin"))
    if origin is None or ORIGIN_PATTERN.match(origin) is None:
        raise SourceMalformedError("the answer names no origin")
    if len(fields.keys() - SOURCE_QUOTE_FIELDS) > COINS_MAX:
        raise SourceMalformedError(f"the answer holds more than {COINS_MAX} coins")
    await asyncio.sleep(0)
    observed = _read_object(fields.get("observed", msgspec.Raw(b"{}")), "observed")
    await asyncio.sleep(0)
    currencies = _read_object(fields.get("currency", msgspec.Raw(b"{}")), "currency")
    prices = {coin: raw for coin, raw in fields.items() if coin in coins and coin not in SOURCE_QUOTE_FIELDS}
    fetched = Fetched([], [], len(fields.keys() - SOURCE_QUOTE_FIELDS) - len(prices))
    for number, (coin, raw) in enumerate(prices.items()):
        if number % STEP_COINS == 0:
            await asyncio.sleep(0)
        try:
            observation = Observation(
                coin=coin,
                price=_read_price(raw),
                currency=_read_currency(currencies.get(coin)),
                observed_at=_read_time(observed.get(coin, fields.get("observed_at"))),
                origin=origin,
            )
        except _NotAnObservationError as error:
            fetched.rejected.append((coin, error.reason))
        else:
            fetched.observations.append(observation)
    return fetched


def _read_object(raw: bytes | msgspec.Raw, name: str) -> Mapping[str, msgspec.Raw]:
    try:
        return _object.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise SourceMalformedError(f"{name} is not a JSON object") from error


def _read_text(raw: msgspec.Raw | None) -> str | None:
    """The JSON string, None where it is absent, too long or something else."""
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
        raise _NotAnObservationError("malformed")
    try:
        return parse_number(text) if is_number else parse_price(text)
    except PriceError as error:
        raise _NotAnObservationError(error.reason) from error


def _read_time(raw: msgspec.Raw | None) -> datetime:
    try:
        return parse_time(_read_text(raw) or "")
    except ValueError as error:
        raise _NotAnObservationError("bad_time") from error


def _read_currency(raw: msgspec.Raw | None) -> str:
    currency = _read_text(raw)
    if currency is None or CURRENCY_PATTERN.match(currency) is None:
        raise _NotAnObservationError("malformed")
    return currency
