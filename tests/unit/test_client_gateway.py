"""What the gateway answers comes with its types, complete, and never younger than it is."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx2
import msgspec
import pytest
from tests.unit.fake_quote_service import BYTES_MAX, QuoteServiceTwin

from cotacoes.adapters.http_client import HttpClient
from cotacoes.client import Client, CurrentQuote, Position, Quote, StaleQuote
from cotacoes.errors import (
    BadRequestError,
    NoQuoteError,
    PositionGoneError,
    ServiceUnavailableError,
    UnknownCoinError,
)
from cotacoes.model.candle import candles_of
from cotacoes.model.quote import QuoteJson

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def quotes_of(count: int, *, apart_s: float = 1.0) -> list[Quote]:
    """In two eras, so that both ways to follow another occur."""
    first = (count + 1) // 2
    times = [NOON + timedelta(seconds=apart_s * number) for number in range(count)]
    prices = [Decimal("67012.3400") + number % 7 for number in range(count)]
    places: list[tuple[int, int, Position | None]] = [(5, seq, None) for seq in range(1, first + 1)]
    places += [(6, seq, Position(5, first) if seq == 1 else None) for seq in range(1, count - first + 1)]
    return [
        Quote("bitcoin", "USD", price, epoch, seq, at, at, "sim", prev)
        for (epoch, seq, prev), price, at in zip(places, prices, times, strict=True)
    ]


TEN = quotes_of(10)


class GatewayRoutes:
    """A gateway that passes the history on to the twin of quote_service, which names the current quote otherwise."""

    def __init__(self, twin: QuoteServiceTwin) -> None:
        self.twin = twin
        self.asked: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.append(scope["path"])
        if scope["path"].endswith("/current"):
            path = f"/cotacao_atual/{scope['path'].split('/')[3]}"
            scope = {**scope, "path": path, "raw_path": path.encode()}
        await self.twin(scope, receive, send)


def ask(twin: QuoteServiceTwin, use: Callable[[Client], Awaitable[Any]], *, took_s: float = 0.0, **limits: Any) -> Any:
    """What `use` makes of a client, each of whose questions takes so long."""

    async def scenario() -> Any:
        network = httpx2.ASGITransport(GatewayRoutes(twin), raise_app_exceptions=True)
        clock = itertools.count(100.0, took_s)
        http = HttpClient(5.0, BYTES_MAX * 100, transport=network)
        async with Client("http://gateway/", http=http, clock=lambda: next(clock), **limits) as one:
            return await use(one)

    return asyncio.run(scenario())


def collected(twin: QuoteServiceTwin, **asked: Any) -> list[Quote]:
    async def use(one: Client) -> list[Quote]:
        return [quote async for quote in one.history("bitcoin", **asked) if isinstance(quote, Quote)]

    got: list[Quote] = ask(twin, use)
    return got


# --- the current quote


def test_the_current_quote_is_exact_and_has_an_age() -> None:
    current = ask(QuoteServiceTwin({"bitcoin": TEN}), lambda one: one.quote("bitcoin"))
    assert isinstance(current, CurrentQuote)
    assert current.quote == TEN[-1]
    assert str(current.quote.price) == "67014.3400"
    assert (current.age_s, current.status, current.source) == (0.2, "fresh", "live")


def test_the_time_that_an_answer_took_counts_as_age() -> None:
    twin = QuoteServiceTwin({"bitcoin": TEN})
    assert ask(twin, lambda one: one.quote("bitcoin", max_age=3.2), took_s=3.0).age_s == 3.2
    with pytest.raises(StaleQuote) as stale:
        ask(twin, lambda one: one.quote("bitcoin", max_age=3.1), took_s=3.0)
    assert (stale.value.coin, stale.value.age) == ("bitcoin", 3.2)


def test_refusals_are_raised_as_their_errors() -> None:
    twin = QuoteServiceTwin({"bitcoin": TEN})
    with pytest.raises(UnknownCoinError):
        ask(twin, lambda one: one.quote("bitcon"))
    twin.faults["*"] = NoQuoteError("the newest is 400 s old", retry_after_s=7, reason="too_old")
    with pytest.raises(NoQuoteError):
        ask(twin, lambda one: one.quote("bitcoin"))
    twin.faults["*"] = PositionGoneError("gone", floor="5-4")
    with pytest.raises(PositionGoneError):
        collected(twin, after="5-1")


CURRENT = msgspec.to_builtins(QuoteJson.from_quote(TEN[0])) | {"age_ms": 1, "status": "fresh", "source": "live"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"price": "NaN"},
        {"price": 1},
        {"coin": "ethereum"},
        {"age_ms": -1},
        {"age_ms": "1"},
        {"status": "new"},
        {"at": "noon"},
        {"at": "2026-02-30T12:00:00Z"},
        {"origin": "sim\x1b[2J"},
    ],
    ids=str,
)
def test_an_invalid_answer_is_no_quote(wrong: dict[str, Any]) -> None:
    twin = QuoteServiceTwin({"bitcoin": TEN})
    twin.faults["*"] = msgspec.json.encode(CURRENT)
    assert ask(twin, lambda one: one.quote("bitcoin")).quote == TEN[0]
    twin.faults["*"] = msgspec.json.encode(CURRENT | wrong)
    with pytest.raises(ServiceUnavailableError):
        ask(twin, lambda one: one.quote("bitcoin"))


# --- the history


@pytest.mark.parametrize("count", [0, 1, 1_000, 1_001, 2_500])
def test_the_history_is_read_page_by_page_to_its_end(count: int) -> None:
    quotes = quotes_of(count + 1)
    assert collected(QuoteServiceTwin({"bitcoin": quotes}), after=quotes[0].position) == quotes[1:]
    assert collected(QuoteServiceTwin({"bitcoin": quotes})) == quotes


def test_the_history_is_narrowed_by_the_given_parameters() -> None:
    twin = QuoteServiceTwin({"bitcoin": TEN})
    assert collected(twin, last=3) == TEN[-3:]
    assert collected(twin, start=TEN[4].at, end=TEN[7].at) == TEN[4:7]
    assert collected(twin, start="2026-11-24T13:00:04+01:00", after="6-1") == TEN[6:]
    assert collected(twin, after=Position(5, 2), end=TEN[7].at) == TEN[2:7]
    assert collected(twin, after=Position(5, 1), start=TEN[4].at) == TEN[4:]


def test_the_history_is_read_only_as_far_as_the_caller_goes() -> None:
    async def use(one: Client) -> Quote:
        history = one.history("bitcoin")
        first = await anext(aiter(history))
        await history.aclose()  # type: ignore[attr-defined]
        assert isinstance(first, Quote)
        return first

    assert ask(QuoteServiceTwin({"bitcoin": TEN}), use) == TEN[0]


def page(quotes: Sequence[Quote], *, more: bool = False) -> bytes:
    return msgspec.json.encode({"quotes": [QuoteJson.from_quote(quote) for quote in quotes], "more": more})


@pytest.mark.parametrize(
    "answer",
    [page([TEN[1], TEN[3]]), page([TEN[2]]), page(TEN[4:], more=True), page([], more=True), b'{"more":false}'],
    ids=["a hole", "a hole before it", "the same again", "a false end", "nothing"],
)
def test_a_page_that_does_not_continue_the_last_one_is_refused(answer: bytes) -> None:
    twin = QuoteServiceTwin({"bitcoin": TEN})
    twin.faults["*"] = answer
    with pytest.raises(ServiceUnavailableError, match="gave an invalid answer"):
        collected(twin, after=TEN[3].position if b"6-1" in answer and b'"more":true' in answer else TEN[0].position)


def test_times_without_a_zone_are_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        collected(QuoteServiceTwin({"bitcoin": TEN}), start=datetime(2026, 11, 24))  # noqa: DTZ001  # what is to be refused


# --- candles


def test_candles_are_exact() -> None:
    twin = QuoteServiceTwin({"bitcoin": quotes_of(100)})
    candles = ask(twin, lambda one: one.candles("bitcoin", "1m"))
    assert [(one.at, one.count, one.closed) for one in candles] == [
        (NOON, 60, True),
        (NOON + timedelta(minutes=1), 40, False),
    ]
    first = candles_of(quotes_of(100), 1)[0]
    candle = candles[0]
    assert (candle.open, candle.high, candle.low, candle.close) == (
        first.open,
        first.high,
        first.low,
        first.close,
    )
    assert str(candle.open) == "67012.3400"
    assert candle.mean == first.sum / 60
    assert (candle.coin, candle.currency, candle.origin) == ("bitcoin", "USD", "sim")


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "count"), [(None, 2_500), (1, 1), (1_000, 1_000), (1_001, 1_001), (9_999, 2_500)])
def test_candles_of_a_range_are_read_page_by_page(limit: int | None, count: int) -> None:
    twin = QuoteServiceTwin({"bitcoin": quotes_of(2_500, apart_s=60.0)})
    candles = ask(twin, lambda one: one.candles("bitcoin", "1m", start=NOON, limit=limit))
    assert [one.at for one in candles] == [NOON + timedelta(minutes=number) for number in range(count)]


def test_candles_without_a_start_are_the_last_ones() -> None:
    twin = QuoteServiceTwin({"bitcoin": quotes_of(300, apart_s=60.0)})
    assert len(ask(twin, lambda one: one.candles("bitcoin", "1m"))) == 100
    candles = ask(twin, lambda one: one.candles("bitcoin", "1m", limit=7))
    assert [one.at for one in candles][-1] == NOON + timedelta(minutes=299)
    assert len(candles) == 7


def test_a_request_for_too_many_candles_is_refused() -> None:
    twin = QuoteServiceTwin({"bitcoin": quotes_of(2_500, apart_s=60.0)})
    with pytest.raises(BadRequestError, match="more than 2000 candles"):
        ask(twin, lambda one: one.candles("bitcoin", "1m", start=NOON), candles_max=2_000)
    assert len(ask(twin, lambda one: one.candles("bitcoin", "1m", start=NOON, limit=2_000), candles_max=2_000)) == 2_000


CANDLE = {"at": "2026-11-24T12:00:00Z", "mean": "1.5", "count": 2, "closed": True}
CANDLE |= {"open": "1", "high": "2", "low": "1", "close": "2"}
CANDLES: dict[str, Any] = {"coin": "bitcoin", "currency": "USD", "origin": "sim", "interval": "1m"}
CANDLES |= {"candles": [CANDLE], "next": None, "more": False, "through": "5-10"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"candles": [CANDLE | {"open": "NaN"}]},
        {"candles": [CANDLE | {"low": None}]},
        {"candles": [CANDLE | {"mean": "-1"}]},
        {"origin": "<script> "},
        {"next": "2026-11-24T12:00:00Z"},
        {"candles": [], "next": "2026-11-24T12:00:00Z"},
    ],
    ids=str,
)
def test_an_invalid_answer_is_no_candle(wrong: dict[str, Any]) -> None:
    twin = QuoteServiceTwin({"bitcoin": TEN})
    twin.faults["*"] = msgspec.json.encode(CANDLES)
    assert ask(twin, lambda one: one.candles("bitcoin", "1m", start=NOON))[0].mean == Decimal("1.5")
    twin.faults["*"] = msgspec.json.encode(CANDLES | wrong)
    with pytest.raises(ServiceUnavailableError):
        ask(twin, lambda one: one.candles("bitcoin", "1m", start=NOON))


def test_a_mean_that_rounds_to_zero_is_zero() -> None:
    twin = QuoteServiceTwin({"bitcoin": TEN})
    twin.faults["*"] = msgspec.json.encode(CANDLES | {"candles": [CANDLE | {"mean": "0"}]})
    assert ask(twin, lambda one: one.candles("bitcoin", "1m"))[0].mean == 0
