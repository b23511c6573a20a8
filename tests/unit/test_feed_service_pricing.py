"""Prices follow the venues, never go back in time, and there is none while the venues disagree."""

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit import fake_event_loop

from cotacoes.feed_service.books import Books
from cotacoes.feed_service.coins import FollowedCoins
from cotacoes.feed_service.pricing import LOOK_S, TICK_S, Pricing
from cotacoes.feed_service.tape import ConsensusTape
from cotacoes.model.venue_symbols import STABLECOINS
from cotacoes.observability.metrics import FeedMetrics, Metrics
from cotacoes.patterns.consensus import ConsensusState, NoPrice, VenueBook, VenueReason

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
IN_USD = ("coinbase", "kraken", "bitstamp", "gemini", "bitfinex")
RUN = "feed.5"


class Desk:
    """Books, the pricing over them and its tape, with clocks that are set by hand. All venues quote in dollars."""

    def __init__(self, *venues: str, coins: Sequence[str] = ("bitcoin",), wall: datetime = NOON) -> None:
        self.now_s = 100.0
        self.wall_began = wall
        self.stopped_s = 0.0  # before each reading of the wall clock
        self.books = Books()
        self.tape = ConsensusTape(RUN)
        self.venues = venues or IN_USD
        self.pricing = Pricing(
            self.books,
            self.tape,
            coins=FollowedCoins(coins, self.venues, {}, Path("/nowhere/coins.json")),
            stablecoins=STABLECOINS,
            metrics=FeedMetrics(Metrics()),
            clock=lambda: self.now_s,
            now=self._now,
        )

    def _now(self) -> datetime:
        self.now_s += self.stopped_s
        return self.wall_began + timedelta(seconds=self.now_s - 100)

    def book(
        self, venue: str, mid: str, *, age_s: float = 0.0, coin: str = "bitcoin", currency: str = "USD", half: str = "1"
    ) -> None:
        held = VenueBook(
            venue, currency, Decimal(mid) - Decimal(half), Decimal(mid) + Decimal(half), self.now_s - age_s
        )
        self.books.note(coin, held, received_s=self.now_s)

    def price(self, *names: str) -> None:
        self.pricing.price(names or ("bitcoin",))

    def entries(self) -> list[dict[str, Any]]:
        page = fake_event_loop.run(self.tape.page(f"{RUN}-0", 10_000, 0.0))
        return json.loads(page)["quotes"]  # type: ignore[no-any-return]

    def reasons(self) -> dict[str, str]:
        return dict(self.tape.reasons)


def test_a_price_on_which_venues_agree_goes_on_the_tape_with_its_time() -> None:
    desk = Desk()
    for venue, age_s in zip(IN_USD, (0.1, 0.2, 0.3, 0.4, 0.5), strict=True):
        desk.book(venue, "67000", age_s=age_s)
    desk.price()
    (entry,) = desk.entries()
    assert (entry["price"], entry["state"], entry["used"], entry["of"]) == ("67000", "agreed", 5, 5)
    assert entry["observed_at"] == "2026-11-24T11:59:59.700000Z"  # by which a majority had spoken
    assert desk.pricing.price_of("bitcoin") == 67_000


def test_the_same_books_are_no_news() -> None:
    desk = Desk()
    for venue in IN_USD:
        desk.book(venue, "67000")
    desk.price()
    desk.now_s += 1
    desk.price()
    assert len(desk.entries()) == 1


def test_another_price_of_the_same_time_is_news() -> None:
    desk = Desk()
    for venue in IN_USD:
        desk.book(venue, "67000")
    desk.price()
    for venue in IN_USD:
        desk.book(venue, "67001")
    desk.price()
    assert [entry["price"] for entry in desk.entries()] == ["67000", "67001"]


def test_a_price_does_not_go_back_in_time_when_fast_venues_leave() -> None:
    desk = Desk()
    for venue, age_s in zip(IN_USD, (0.0, 0.0, 0.0, 3.0, 3.0), strict=True):
        desk.book(venue, "67000", age_s=age_s)
    desk.price()
    for venue in IN_USD[:3]:  # they leave: what they say is no book any more
        desk.now_s += 0.01
        desk.book(venue, "67000", half="60000")
    desk.price()
    assert desk.pricing.results["bitcoin"].state is ConsensusState.THIN
    assert len(desk.entries()) == 1
    desk.now_s += 1
    for venue in IN_USD[3:]:
        desk.book(venue, "67001")
    desk.price()
    assert [entry["price"] for entry in desk.entries()] == ["67000", "67001"]


moves = st.lists(
    st.tuples(
        st.sampled_from(IN_USD),
        st.integers(66_900, 67_100),
        st.floats(0, 12),  # how old the book is
        st.floats(0, 0.5),  # how much time passes
        st.sampled_from(["1", "1", "1", "60000"]),  # a book that is too wide counts for nothing
    ),
    max_size=60,
)


@pytest.mark.slow
@given(moves)
def test_times_on_the_tape_never_go_back_and_every_price_is_news(
    happened: list[tuple[str, int, float, float, str]],
) -> None:
    desk = Desk()
    for venue, mid, age_s, after_s, half in happened:
        desk.now_s += after_s
        desk.book(venue, str(mid), age_s=age_s, half=half)
        desk.price()
    entries = desk.entries()
    times = [entry["observed_at"] for entry in entries]
    assert times == sorted(times)
    shown = [{name: value for name, value in entry.items() if name != "index"} for entry in entries]
    assert all(earlier != later for earlier, later in pairwise(shown))


def test_a_dispute_gives_no_entry_and_says_why() -> None:
    desk = Desk(*IN_USD[:4])
    for venue, mid in zip(IN_USD, ("67000", "67000", "70000", "70000"), strict=False):
        desk.book(venue, mid)
    desk.price()
    result = desk.pricing.results["bitcoin"]
    assert isinstance(result, NoPrice)
    assert (result.state, result.reason) == (ConsensusState.DISPUTED, "disputed")
    assert desk.entries() == []
    assert desk.pricing.price_of("bitcoin") is None
    assert desk.reasons() == {"bitcoin": "disputed"}
    for venue in IN_USD[:4]:
        desk.book(venue, "67000")
    desk.price()
    assert desk.reasons() == {}


def test_a_thin_price_far_from_the_last_agreed_one_gives_no_entry_for_a_minute() -> None:
    desk = Desk()
    for venue in IN_USD:
        desk.book(venue, "67000")
    desk.price()
    desk.now_s += 11
    desk.book("kraken", "60000")
    desk.price()
    assert [verdict.reason for verdict in desk.pricing.results["bitcoin"].verdicts].count(VenueReason.HELD) == 1
    assert len(desk.entries()) == 1
    desk.now_s += 50
    desk.book("kraken", "60000")
    desk.price()
    assert [entry["price"] for entry in desk.entries()] == ["67000", "60000"]


def test_a_venue_without_a_book_is_counted_and_named_empty() -> None:
    desk = Desk()
    for venue in IN_USD[:3]:
        desk.book(venue, "67000")
    desk.price()
    result = desk.pricing.results["bitcoin"]
    assert result.of == 5
    reasons = {verdict.book.venue: verdict.reason for verdict in result.verdicts}
    assert (reasons["gemini"], reasons["bitfinex"]) == (VenueReason.EMPTY, VenueReason.EMPTY)


def test_a_coin_that_no_venue_lists_has_no_price_and_disturbs_no_other() -> None:
    desk = Desk(coins=("nobody-lists-this", "bitcoin"))
    for venue in IN_USD:
        desk.book(venue, "67000")
    desk.price("nobody-lists-this", "bitcoin")
    nobody = desk.pricing.results["nobody-lists-this"]
    assert isinstance(nobody, NoPrice)
    assert (nobody.state, nobody.reason, nobody.of) == (ConsensusState.NONE, "no_venue", 0)
    assert desk.reasons() == {"nobody-lists-this": "no_venue"}
    assert len(desk.entries()) == 1


def test_a_coin_that_is_not_followed_is_not_priced() -> None:
    desk = Desk()
    for venue in IN_USD:
        desk.book(venue, "3000", coin="ethereum")
    desk.price("ethereum")
    assert desk.entries() == []


def test_prices_in_a_stablecoin_follow_its_rate_and_are_left_out_without_one() -> None:
    desk = Desk("binance", "okx", "bybit", "coinbase", "kraken")
    for venue in ("coinbase", "kraken"):
        desk.book(venue, "0.9", coin="USDT", half="0.0001")
        desk.book(venue, "67000")
    for venue in ("binance", "okx", "bybit"):
        desk.book(venue, str(Decimal(67_000) / Decimal("0.9")), currency="USDT")
    desk.price("USDT", "bitcoin")
    result = desk.pricing.results["bitcoin"]
    assert desk.pricing.rates == {"USD": Decimal(1), "USDT": Decimal("0.9")}
    assert all(verdict.used for verdict in result.verdicts)
    desk.now_s += 31  # a rate is believed for 30 s
    for venue in ("binance", "okx", "bybit", "coinbase", "kraken"):
        desk.book(venue, "67000", currency="USD" if venue in IN_USD else "USDT")
    desk.price("USDT", "bitcoin")
    reasons = {verdict.book.venue: verdict.reason for verdict in desk.pricing.results["bitcoin"].verdicts}
    assert reasons == {
        "binance": VenueReason.NO_RATE,
        "okx": VenueReason.NO_RATE,
        "bybit": VenueReason.NO_RATE,
        "coinbase": None,
        "kraken": None,
    }


def test_one_venue_gives_no_rate() -> None:
    desk = Desk()
    desk.book("kraken", "1.0001", coin="USDT", half="0.0001")
    desk.price("USDT")
    assert desk.pricing.rates == {"USD": Decimal(1)}


def test_a_wall_clock_that_is_set_moves_the_times_by_as_much_and_no_price_twice() -> None:
    desk = Desk()
    for venue in IN_USD:
        desk.book(venue, "67000")
    desk.price()
    desk.wall_began = NOON + timedelta(hours=1)
    desk.price()
    assert len(desk.entries()) == 1
    desk.now_s += 1
    for venue in IN_USD:
        desk.book(venue, "67001")
    desk.price()
    assert desk.entries()[-1]["observed_at"] == "2026-11-24T13:00:01.000000Z"


def test_a_process_that_was_stopped_between_two_readings_of_the_clocks_moves_no_time() -> None:
    desk = Desk()
    for number in range(3):
        desk.now_s += 1
        for venue in IN_USD:
            desk.book(venue, str(67_000 + number))
        desk.stopped_s = 0.3 if number == 1 else 0.0
        was_s = desk.now_s
        desk.price()
        desk.stopped_s, desk.now_s = 0.0, was_s
    assert [entry["observed_at"][-10:] for entry in desk.entries()] == ["01.000000Z", "02.000000Z", "03.000000Z"]


def run_for(desk: Desk, seconds: float, *happenings: tuple[float, Any]) -> None:
    """Run the pricing in virtual time, with calls at their times."""

    async def work() -> None:
        loop = asyncio.get_running_loop()
        pricing = asyncio.create_task(desk.pricing.run())
        for at_s, call in happenings:
            loop.call_at(at_s, call)
        for _ in range(round(seconds / TICK_S * 2)):
            await asyncio.sleep(TICK_S / 2)
            desk.now_s = 100.0 + loop.time()
        pricing.cancel()
        await asyncio.wait([pricing])
        assert asyncio.all_tasks() == {asyncio.current_task()}

    fake_event_loop.run(work())


def test_books_are_priced_within_a_tick() -> None:
    desk = Desk()
    found = []

    def sent() -> None:
        for venue in IN_USD:
            desk.book(venue, "67000")

    run_for(desk, 3, (1.51, sent), (1.51 + TICK_S + 0.001, lambda: found.append(desk.pricing.price_of("bitcoin"))))
    assert found == [67_000]
    assert len(desk.entries()) == 1


def test_venues_that_fall_silent_change_the_result_within_a_second() -> None:
    desk = Desk()
    for venue in IN_USD:
        desk.book(venue, "67000")
    found = []

    def looked() -> None:
        found.append(desk.pricing.results["bitcoin"].state)

    run_for(desk, 13, (9.9, looked), (10 + LOOK_S + 3 * TICK_S, looked))
    assert found == [ConsensusState.AGREED, ConsensusState.NONE]
