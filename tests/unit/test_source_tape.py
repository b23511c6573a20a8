"""A page of the tape is read in steps, is no longer than requested, and gives only our coins."""

import asyncio
import json
from typing import Any

import pytest

from cotacoes.errors import SourceMalformedError
from cotacoes.quote_service.source_pages import TapePage, read_page
from cotacoes.quote_service.source_quote import STEP_PRICES

RUN = "0123456789ab.1732400000000"
ENTRY = {"coin": "bitcoin", "currency": "USD", "price": "67012.30", "observed_at": "2026-11-24T12:00:00Z"}


def body(count: int, **changed: Any) -> bytes:
    quotes = [{**ENTRY, "index": index, **changed} for index in range(1, count + 1)]
    return json.dumps({"run": RUN, "origin": "sim", "next": f"{RUN}-{count}", "quotes": quotes}).encode()


def read(answer: bytes, limit: int = 1000) -> TapePage:
    return asyncio.run(read_page(answer, {"bitcoin"}, limit))


def test_prices_of_unknown_coins_are_counted_and_not_read() -> None:
    page = read(body(900, coin="dogecoin", price="not a price", currency="-", observed_at="-"))
    assert (page.count, page.unknown, page.entries, page.unreadable) == (900, 900, [], [])


def test_an_unreadable_price_is_rejected_with_its_reason() -> None:
    assert read(body(1, price="NaN")).unreadable == [("bitcoin", "not_finite")]
    assert read(body(1, price="6.4e-06")).unreadable == [("bitcoin", "malformed")]
    assert read(body(1, observed_at="noon")).unreadable == [("bitcoin", "malformed")]


def test_a_price_has_the_origin_of_the_page_unless_it_names_its_own() -> None:
    assert [one.origin for _, one in read(body(1)).entries] == ["sim"]
    assert [one.origin for _, one in read(body(1, origin="kraken")).entries] == ["kraken"]


@pytest.mark.parametrize("origin", ["", "a b", "é", "x" * 101])
def test_a_price_with_an_invalid_origin_is_rejected(origin: str) -> None:
    assert read(body(1, origin=origin)).unreadable == [("bitcoin", "malformed")]


@pytest.mark.parametrize("answer", [body(11), body(15_000, coin="", currency="", price="", observed_at="")])
def test_a_page_longer_than_requested_is_refused(answer: bytes) -> None:
    with pytest.raises(SourceMalformedError, match="more prices than were asked for"):
        read(answer, 10)


def test_a_page_that_is_far_too_long_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(SourceMalformedError, match="more prices than were asked for"):
        read(b'{"run":' + b"{" * 2_000, 1000)


async def test_reading_a_long_page_yields_to_other_tasks() -> None:
    turns = 0
    reading = asyncio.ensure_future(read_page(body(4_000), {"bitcoin"}, 4_000))
    while not reading.done():
        turns += 1
        await asyncio.sleep(0)
    assert len(reading.result().entries) == 4_000
    assert turns >= 4_000 / STEP_PRICES
