"""The history over HTTP is asked for exactly what is wanted, and an invalid answer counts as no answer."""

import asyncio
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from tests.unit.fake_quote_service import QuoteServiceTwin

from cotacoes.errors import PositionBeyondEndError, PositionGoneError, ServiceUnavailableError
from cotacoes.feed.history import HistoryPage, ServiceHistory, floor_of
from cotacoes.model.quote import Position, Quote, QuoteJson
from cotacoes.patterns.pub_sub.recovery_events import Wanted

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
QUOTES = [Quote("bitcoin", "USD", Decimal("67012.3400"), 5, seq, NOON, NOON, "sim") for seq in range(1, 5)]
PATH = "/v1/quotes/bitcoin"


def read(wanted: Wanted, limit: int = 1000, fault: Any = ...) -> HistoryPage:
    async def ask() -> HistoryPage:
        twin = QuoteServiceTwin({"bitcoin": QUOTES})
        if fault is not ...:
            twin.faults[PATH] = fault
        async with twin.client() as client:
            return await ServiceHistory(client).read("bitcoin", wanted, limit)

    return asyncio.run(ask())


def test_quotes_after_a_position_come_page_by_page() -> None:
    assert read(Wanted(Position(5, 1)), 2) == HistoryPage(QUOTES[1:3], more=True)
    assert read(Wanted(Position(5, 3)), 2) == HistoryPage(QUOTES[3:], more=False)
    assert read(Wanted(None), 2) == HistoryPage(QUOTES[:2], more=True)


def test_the_newest_quotes_come_on_request() -> None:
    assert read(Wanted(None, last=2)) == HistoryPage(QUOTES[2:], more=False)


def test_the_oldest_quote_held_is_known() -> None:
    async def ask(quotes: list[Quote]) -> Quote | None:
        async with QuoteServiceTwin({"bitcoin": quotes}).client() as client:
            return await floor_of(ServiceHistory(client), "bitcoin")

    assert asyncio.run(ask(QUOTES[2:])) == QUOTES[2]
    assert asyncio.run(ask([])) is None


@pytest.mark.parametrize("error", [PositionGoneError("no longer held"), PositionBeyondEndError("never given")])
def test_a_refusal_of_the_history_names_its_reason(error: Exception) -> None:
    with pytest.raises(type(error)):
        read(Wanted(Position(5, 1)), fault=error)


@pytest.mark.parametrize(
    "wrong",
    [
        {"coin": "ethereum"},
        {"currency": "\x1b[31m"},
        {"origin": "a\nb"},
        {"price": "NaN"},
        {"seq": 0},
        {"epoch": -1},
        {"at": "noon"},
        {"prev": "6-1"},
        {"price": 1.5},
    ],
    ids=str,
)
def test_an_invalid_quote_is_not_passed_on(wrong: dict[str, Any]) -> None:
    quote = msgspec.to_builtins(QuoteJson.from_quote(QUOTES[0])) | wrong
    answer = json.dumps({"quotes": [quote], "more": False}).encode()
    with pytest.raises(ServiceUnavailableError, match=r"invalid answer|answered for another coin"):
        read(Wanted(None), fault=answer)


@pytest.mark.parametrize("answer", [b"", b"{}", b"[]", b'{"quotes":null,"more":false}', b'{"quotes":[]}'])
def test_an_answer_of_another_shape_is_refused(answer: bytes) -> None:
    with pytest.raises(ServiceUnavailableError):
        read(Wanted(None), fault=answer)
