"""The tape begins at now, gives each price once and in order, and says by its indices what a reader has missed."""

import asyncio
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit import fake_event_loop

from cotacoes.errors import BadRequestError, CursorGoneError
from cotacoes.feed_service.tape import ConsensusTape, PricedCoin
from cotacoes.patterns.consensus import ConsensusPrice, ConsensusState, VenueBook, VenueVerdict

RUN = "feed.1732400000000"
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
WAIT_S = 2.0
HELD = 50


def priced(price: int = 67_012) -> PricedCoin:
    amount = Decimal(price)
    verdict = VenueVerdict(VenueBook("kraken", "USD", amount, amount, 0.0), Decimal(1), None)
    consensus = ConsensusPrice(
        state=ConsensusState.THIN,
        price=amount,
        confidence=Decimal("167.5300"),
        low=amount,
        high=amount,
        used=1,
        of=1,
        as_of_s=0.0,
        verdicts=[verdict],
    )
    return PricedCoin(consensus, NOON)


def tape_of(count: int) -> ConsensusTape:
    tape = ConsensusTape(RUN, entries_max=HELD)
    for index in range(1, count + 1):
        tape.append("bitcoin", priced(index))
    return tape


def page(tape: ConsensusTape, after: str | None = None, limit: int = 1000, wait_s: float = 0.0) -> dict[str, Any]:
    return json.loads(fake_event_loop.run(tape.page(after, limit, wait_s)))  # type: ignore[no-any-return]


def indices(answer: dict[str, Any]) -> list[int]:
    return [entry["index"] for entry in answer["quotes"]]


def test_a_reader_without_a_cursor_begins_at_now() -> None:
    tape = tape_of(5)
    first = page(tape)
    assert (first["run"], first["origin"], first["quotes"], first["next"]) == (RUN, "consensus", [], f"{RUN}-5")
    tape.append("bitcoin", priced(6))
    assert indices(page(tape, first["next"])) == [6]


def test_a_page_says_which_coins_have_no_price_now_and_why() -> None:
    tape = tape_of(1)
    for coin, reason in (("bitcoin", "disputed"), ("solana", "no_venue"), ("bitcoin", None), ("ethereum", None)):
        tape.note_reason(coin, reason)
    assert page(tape)["reasons"] == {"solana": "no_venue"}


def test_an_entry_has_the_fields_of_a_source_and_how_the_venues_agreed() -> None:
    assert page(tape_of(1), f"{RUN}-0")["quotes"] == [
        {
            "index": 1,
            "coin": "bitcoin",
            "currency": "USD",
            "price": "1",
            "observed_at": "2026-11-24T12:00:00.000000Z",
            "state": "thin",
            "confidence": "168",
            "low": "1",
            "high": "1",
            "used": 1,
            "of": 1,
        }
    ]


@given(st.lists(st.integers(1, 4), max_size=30))
def test_pages_hold_each_price_once_and_in_order(limits: list[int]) -> None:
    async def read() -> list[int]:
        tape, cursor, seen = tape_of(40), f"{RUN}-0", []
        for limit in limits:
            answer = json.loads(await tape.page(cursor, limit, 0.0))
            seen += indices(answer)
            cursor = answer["next"]
        return seen

    seen = fake_event_loop.run(read())
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) == min(40, sum(limits))


def test_only_the_newest_prices_are_held_and_a_late_reader_sees_the_gap() -> None:
    tape = tape_of(HELD + 7)
    late = page(tape, f"{RUN}-3", limit=2)
    assert (indices(late), late["next"]) == ([8, 9], f"{RUN}-9")
    assert indices(page(tape, f"{RUN}-7", limit=1)) == [8]
    assert indices(page(tape, f"{RUN}-{HELD + 6}")) == [HELD + 7]


@pytest.mark.parametrize("cursor", ["feed.1-3", f"{RUN}-6", "sim.abc-0"])
def test_the_cursor_of_another_run_is_gone_and_gets_the_beginning_of_this_one(cursor: str) -> None:
    with pytest.raises(CursorGoneError) as gone:
        page(tape_of(5), cursor)
    assert gone.value.extra == {"first": 1, "next": f"{RUN}-0"}


def test_a_gone_cursor_gets_the_oldest_price_that_is_held() -> None:
    with pytest.raises(CursorGoneError) as gone:
        page(tape_of(HELD + 7), "feed.1-3")
    assert gone.value.extra == {"first": 8, "next": f"{RUN}-7"}


@pytest.mark.parametrize(
    "cursor", ["", "-", "-5", RUN, f"{RUN}-", f"{RUN}-x", f"{RUN}-٣", f"{RUN}-" + "9" * 20, f"{RUN}- 1", f"{RUN}-1\n"]
)
def test_a_text_that_is_no_cursor_is_a_bad_request(cursor: str) -> None:
    with pytest.raises(BadRequestError, match="RUN-INDEX"):
        page(tape_of(5), cursor)


def test_a_reader_waits_for_the_next_price_and_no_longer() -> None:
    async def read() -> None:
        tape, loop = tape_of(5), asyncio.get_running_loop()
        loop.call_later(0.5, tape.append, "bitcoin", priced(6))
        both = await asyncio.gather(tape.page(None, 1000, WAIT_S), tape.page(f"{RUN}-5", 1000, WAIT_S))
        assert loop.time() == 0.5
        assert [indices(json.loads(answer)) for answer in both] == [[6], [6]]

    fake_event_loop.run(read())


def test_a_reader_that_waits_in_vain_keeps_its_place() -> None:
    async def read() -> None:
        tape, loop = tape_of(5), asyncio.get_running_loop()
        answer = json.loads(await tape.page(f"{RUN}-5", 1000, WAIT_S))
        assert loop.time() == WAIT_S
        assert (answer["quotes"], answer["next"]) == ([], f"{RUN}-5")
        answer = json.loads(await tape.page(f"{RUN}-4", 1000, WAIT_S))
        assert (loop.time(), indices(answer)) == (WAIT_S, [5])

    fake_event_loop.run(read())


def test_a_reader_that_goes_away_while_it_waits_leaves_no_task() -> None:
    async def read() -> None:
        tape = tape_of(5)
        waiting = asyncio.create_task(tape.page(None, 1000, WAIT_S))
        await asyncio.sleep(0.1)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert asyncio.all_tasks() == {asyncio.current_task()}

    fake_event_loop.run(read())


def test_the_newest_price_of_each_coin_is_at_hand() -> None:
    tape = tape_of(3)
    tape.append("ethereum", priced(9))
    assert {coin: one.consensus.price for coin, one in tape.newest.items()} == {"bitcoin": 3, "ethereum": 9}
