"""A feed follows its venue through every end of a connection, opens few, and leaves nothing behind."""

import asyncio
from collections.abc import Callable
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.unit.fake_venue import (
    BITCOIN,
    BOOK_EVERY_S,
    BOTH,
    COINS,
    ETHER,
    FakeLink,
    FeedRig,
    in_virtual_time,
)

from cotacoes.errors import StreamClosedError, StreamError, StreamRefusedError, StreamUnavailableError
from cotacoes.feed_service.connection import LOOK_S, SEND_S
from cotacoes.feed_service.limits import FEED_LIMITS
from cotacoes.feed_service.openings import FIRST_S, OPENINGS_MAX, WINDOW_S
from cotacoes.patterns.resilience import BreakerState

STEADY_S = FEED_LIMITS.steady_s
WATCH = FEED_LIMITS.watch


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def until(condition: Callable[[], object], limit_s: float = 100.0) -> float:
    """Wait for it, and return when it came."""
    due_s = now_s() + limit_s
    while not condition():
        assert now_s() < due_s, f"not within {limit_s} s"
        await asyncio.sleep(0.02)
    return now_s()


def gauge(rig: FeedRig, name: str, **labels: str) -> float:
    sample = rig.metrics.registry.get_sample_value(f"cotacoes_{name}", labels)
    assert sample is not None, name
    return sample


# how a connection becomes live


@in_virtual_time
async def test_a_feed_connects_subscribes_and_is_live_from_the_second_book() -> None:
    rig = FeedRig()
    states = [rig.feed.status.state]
    async with rig.running():
        await asyncio.sleep(0.01)
        states.append(rig.feed.status.state)
        rig.venue.symbols = set()
        await asyncio.sleep(0.1)
        states.append(rig.feed.status.state)
        assert rig.venue.link.sent == ["subscribe BTC"]
        rig.venue.link.put("book BTC 67000")
        await asyncio.sleep(0.1)
        states.append(rig.feed.status.state)
        assert rig.books.of("bitcoin") == {}
        rig.venue.link.put("book BTC 67001")
        await asyncio.sleep(0.1)
        states.append(rig.feed.status.state)
    assert states == ["waiting", "connecting", "subscribed", "subscribed", "live"]
    assert rig.books.of("bitcoin")["venue0"].book.bid == 67_001


@in_virtual_time
async def test_one_symbol_may_be_a_coin_and_a_rate() -> None:
    rig = FeedRig(symbols={"tether": COINS["bitcoin"], "USDT": COINS["bitcoin"]})
    async with rig.running():
        await until(lambda: rig.feed.status.state == "live")
        assert rig.venue.link.sent == ["subscribe BTC"]
        assert [rig.books.of(name)["venue0"].book.bid for name in ("tether", "USDT")] == [67_000, 67_000]


# how one ends


@in_virtual_time
async def test_a_cut_connection_is_replaced_within_the_back_off() -> None:
    rig = FeedRig()
    async with rig.running():
        await asyncio.sleep(STEADY_S + 1)
        cut_s = now_s()
        rig.venue.link.end()
        back_s = await until(lambda: len(rig.venue.links) == 2 and rig.feed.status.state == "live")
        assert back_s - cut_s <= FIRST_S + rig.venue.opening_s + 3 * BOOK_EVERY_S
        assert rig.reason == "cut"
        assert gauge(rig, "venue_connections_closed_total", venue="venue0", reason="cut") == 1


ENDS: list[tuple[str, float, dict[str, Any], Callable[[FakeLink], None]]] = [
    ("stalled", WATCH.stalled_min_s, {}, FakeLink.stall),
    ("silent", WATCH.silent_min_s, {"heartbeat_s": 1.0}, FakeLink.stall),
    ("gapped", 0.0, {}, lambda link: link.put(*["gap 1"] * 11)),
    ("subscription_refused", 0.0, {}, lambda link: link.put("refused - no")),
    ("closed", 0.0, {}, lambda link: link.end(StreamClosedError(1012, "restart"))),
]


@pytest.mark.parametrize(("reason", "limit_s", "given", "happens"), ENDS, ids=[end[0] for end in ENDS])
@in_virtual_time
async def test_each_end_is_noticed_within_its_limit_and_named(
    reason: str, limit_s: float, given: dict[str, Any], happens: Callable[[FakeLink], None]
) -> None:
    rig = FeedRig(**given)
    async with rig.running():
        await asyncio.sleep(STEADY_S + 1)
        first = rig.venue.link
        began_s = now_s()
        happens(first)
        while first.is_open:
            rig.others_send("bitcoin")
            await asyncio.sleep(0.05)
            assert now_s() - began_s < limit_s + BOOK_EVERY_S + LOOK_S + 0.1
        assert now_s() - began_s >= limit_s - BOOK_EVERY_S
        await until(lambda: rig.reason == reason, 0.1)
        await until(lambda: rig.feed.status.state == "live")


@in_virtual_time
async def test_a_frozen_price_ends_the_connection_a_minute_after_the_market_has_moved() -> None:
    rig = FeedRig()
    async with rig.running():
        await asyncio.sleep(STEADY_S + 1)
        rig.price = Decimal(68_000)
        await asyncio.sleep(WATCH.frozen_s)
        assert rig.venue.link.is_open
        await asyncio.sleep(2 * LOOK_S + BOOK_EVERY_S)
        assert rig.reason == "frozen"
        await asyncio.sleep(WATCH.frozen_s)
        assert len(rig.venue.links) == 2  # still frozen, and not connected to more than once a minute


@in_virtual_time
async def test_in_a_quiet_market_no_connection_ends() -> None:
    rig = FeedRig()
    async with rig.running():
        await asyncio.sleep(STEADY_S + 1)
        rig.venue.link.stall()
        await asyncio.sleep(600)
        assert len(rig.venue.links) == 1
        assert rig.feed.status.state == "live"


@in_virtual_time
async def test_a_venue_that_takes_nothing_is_left() -> None:
    rig = FeedRig()
    rig.venue.takes_frames = False
    async with rig.running():
        await until(lambda: rig.reason is not None)
        assert rig.reason == "cut"
        closing = rig.feed.status.last_closing
        assert closing is not None
        assert "takes nothing" in closing.text
        assert now_s() == pytest.approx(rig.venue.opening_s + SEND_S, abs=0.1)


@in_virtual_time
async def test_a_venue_that_stops_taking_pings_is_left() -> None:
    rig = FeedRig(ping="ping")
    async with rig.running():
        await asyncio.sleep(30)
        assert rig.venue.link.sent == ["subscribe BTC", "ping"]
        rig.venue.link._takes_frames = False
        await until(lambda: rig.reason is not None)
        assert now_s() == pytest.approx(40 + SEND_S, abs=1.0)


# how often one is opened


HOSTILE: dict[str, Callable[[FeedRig], None]] = {
    "drops each connection at once": lambda rig: rig.venue.link.end(),
    "refuses each subscription": lambda rig: rig.venue.link.put("refused - no"),
    "says at once that it will leave": lambda rig: rig.venue.link.put("leaving maintenance"),
    "jumps in each sequence": lambda rig: rig.venue.link.put(*["gap 1"] * 11),
}


@pytest.mark.parametrize("hostility", HOSTILE)
@in_virtual_time
async def test_no_minute_has_more_than_ten_openings(hostility: str) -> None:
    rig = FeedRig()
    async with rig.running():
        count = 0
        while now_s() < 240:
            if len(rig.venue.links) > count:
                count = len(rig.venue.links)
                HOSTILE[hostility](rig)
            await asyncio.sleep(0.1)
    tried_s = rig.venue.tried_s
    assert len(tried_s) > OPENINGS_MAX
    assert all(later - earlier >= WINDOW_S for earlier, later in zip(tried_s, tried_s[OPENINGS_MAX:], strict=False))
    assert rig.feed.status.counts.openings == len(tried_s)


@pytest.mark.parametrize(("status", "asked_s", "wait_s"), [(429, 47.0, 47.0), (418, None, 120.0), (418, 200.0, 200.0)])
@in_virtual_time
async def test_a_refusal_is_obeyed(status: int, asked_s: float | None, wait_s: float) -> None:
    rig = FeedRig()
    rig.venue.error = StreamRefusedError(status, retry_after_s=asked_s)
    async with rig.running():
        await until(lambda: len(rig.venue.tried_s) == 2, 300)
        first_s, second_s = rig.venue.tried_s
        assert second_s - first_s == pytest.approx(wait_s + rig.venue.opening_s, abs=0.1)


@in_virtual_time
async def test_a_refusal_of_the_next_connection_is_obeyed_too() -> None:
    rig = FeedRig()
    async with rig.running():
        await asyncio.sleep(STEADY_S + 1)
        rig.venue.error = StreamRefusedError(429, retry_after_s=200.0)
        rig.feed.renew()
        await until(lambda: len(rig.venue.tried_s) == 2)
        refused_s = now_s()
        rig.feed.renew()
        await asyncio.sleep(1)
        rig.venue.link.end()
        await until(lambda: len(rig.venue.tried_s) == 3, 300)
        assert now_s() - refused_s >= 200


@in_virtual_time
async def test_a_connection_is_a_success_after_ten_seconds_of_good_books() -> None:
    rig = FeedRig()
    (breaker,) = rig.breakers
    rig.venue.error = StreamUnavailableError("no connection", cause="unreachable")
    async with rig.running():
        await until(lambda: breaker.state is BreakerState.OPEN)
        rig.venue.error = None
        live_s = await until(lambda: rig.feed.status.state == "live")
        await asyncio.sleep(STEADY_S - 0.1)
        assert breaker.state is BreakerState.HALF_OPEN
        await until(lambda: breaker.state is BreakerState.CLOSED)
        assert now_s() - live_s == pytest.approx(STEADY_S, abs=2 * BOOK_EVERY_S)


@in_virtual_time
async def test_two_books_and_then_silence_are_no_success() -> None:
    """Or a venue whose stream stalls each time would be connected to without any back-off."""
    rig = FeedRig()
    rig.venue.symbols = set()
    (breaker,) = rig.breakers
    async with rig.running():
        count = 0
        while breaker.state is BreakerState.CLOSED:
            assert now_s() < 200
            rig.others_send("bitcoin")
            if len(rig.venue.links) > count:
                count = len(rig.venue.links)
                rig.venue.link.put("book BTC 67000", "book BTC 67001")
            await asyncio.sleep(0.05)
        assert count == 5


@in_virtual_time
async def test_the_breaker_is_asked_before_each_connection() -> None:
    rig = FeedRig()
    (breaker,) = rig.breakers
    async with rig.running():
        await asyncio.sleep(1)
        breaker.force_open()
        rig.feed.renew()
        rig.venue.link.end()
        await asyncio.sleep(100)
        assert len(rig.venue.tried_s) == 1
        breaker.reset()
        await until(lambda: len(rig.venue.tried_s) == 2, 6)


# how one replaces another


@in_virtual_time
async def test_the_next_connection_is_live_before_the_old_one_is_closed() -> None:
    rig = FeedRig(lifetime_s=100.0)
    states = set()
    async with rig.running():
        await until(lambda: rig.feed.status.state == "live")
        began_s = now_s()
        while len(rig.venue.links) < 2 or rig.venue.links[0].is_open:
            states.add(rig.feed.status.state)
            await asyncio.sleep(0.05)
        old, new = rig.venue.links
        assert old.ended_s is not None
        assert 80 <= new.opened_s - began_s <= 90 + rig.venue.opening_s
        assert new.opened_s + BOOK_EVERY_S <= old.ended_s <= new.opened_s + 2 * BOOK_EVERY_S + 0.1
        assert states == {"live"}
        assert rig.reason is None
        await asyncio.sleep(STEADY_S + 1)
        assert rig.breakers[0].metrics().failures == 0
        assert gauge(rig, "venue_connections_closed_total", venue="venue0", reason="planned") == 1


@in_virtual_time
async def test_a_venue_that_says_it_will_leave_is_left_first_and_only_once() -> None:
    rig = FeedRig()
    async with rig.running():
        await asyncio.sleep(STEADY_S + 1)
        with capture_logs() as logged:
            old = rig.venue.link
            for _ in range(50):
                if old.is_open:
                    old.put(*["leaving maintenance"] * 20)
                await asyncio.sleep(0.05)
        assert len(rig.venue.links) == 2
        assert rig.feed.status.state == "live"
        assert [entry["event"] for entry in logged] == ["venue.leaving"]


@in_virtual_time
async def test_one_venue_at_a_time_renews_its_connection() -> None:
    rig = FeedRig(3)
    async with rig.running():
        await asyncio.sleep(1)
        for venue in rig.venues:
            venue.opening_s = 3.0
        for feed in rig.feeds:
            feed.renew()
        await asyncio.sleep(60)
        renewals = sorted((venue.tried_s[1], venue.links[0].ended_s or 0.0) for venue in rig.venues)
        assert all(earlier_end <= later_begin for (_, earlier_end), (later_begin, _) in pairwise(renewals))
        assert [len(venue.links) for venue in rig.venues] == [2, 2, 2]


@in_virtual_time
async def test_a_cut_is_noticed_while_another_venue_renews() -> None:
    rig = FeedRig(2)
    async with rig.running():
        await asyncio.sleep(STEADY_S + 1)
        rig.venues[1].opening_s = 15.0
        rig.feeds[1].renew()
        await asyncio.sleep(0.1)
        rig.feeds[0].renew()
        await asyncio.sleep(0.1)
        rig.venues[0].link.end()
        back_s = await until(lambda: len(rig.venues[0].links) == 2 and rig.feeds[0].status.state == "live")
        assert back_s < STEADY_S + 1 + 0.2 + FIRST_S + 3 * BOOK_EVERY_S
        await asyncio.sleep(30)
        assert len(rig.venues[1].links) == 2


@in_virtual_time
async def test_if_the_next_connection_does_not_become_live_the_old_one_stays() -> None:
    rig = FeedRig()
    async with rig.running():
        await asyncio.sleep(STEADY_S + 1)
        rig.venue.symbols = set()
        rig.feed.renew()
        await asyncio.sleep(FEED_LIMITS.renewal_s + 1)
        old, new = rig.venue.links
        assert old.is_open
        assert not new.is_open
        assert rig.feed.status.state == "live"
        rig.venue.symbols = {BITCOIN}
        await asyncio.sleep(FEED_LIMITS.renewal_retry_s)
        assert len(rig.venue.links) == 3
        assert not old.is_open


@in_virtual_time
async def test_a_next_connection_that_hangs_while_it_opens_is_given_up() -> None:
    rig = FeedRig()
    async with rig.running():
        await asyncio.sleep(STEADY_S + 1)
        rig.venue.opening_s = 10_000.0
        rig.feed.renew()
        await asyncio.sleep(FEED_LIMITS.renewal_s + 1)
        rig.venue.opening_s = 0.05
        rig.venue.link.end()
        await until(lambda: len(rig.venue.links) == 2 and rig.feed.status.state == "live", 10)


@in_virtual_time
async def test_if_the_old_connection_is_cut_the_next_one_goes_on_in_its_place() -> None:
    rig = FeedRig()
    async with rig.running():
        await asyncio.sleep(STEADY_S + 1)
        rig.venue.opening_s = 5.0
        rig.feed.renew()
        await asyncio.sleep(1)
        rig.venue.link.end()
        await asyncio.sleep(1)
        assert rig.reason == "cut"
        states = [rig.feed.status.state]
        await asyncio.sleep(5)
        states.append(rig.feed.status.state)
        assert states == ["connecting", "live"]
        assert len(rig.venue.tried_s) == 2


# coins


@in_virtual_time
async def test_a_coin_that_is_added_is_subscribed_to_on_one_new_connection() -> None:
    rig = FeedRig()
    async with rig.running():
        await asyncio.sleep(1)
        rig.symbols.update(BOTH)
        rig.feed.renew()
        await asyncio.sleep(2)
        assert rig.venue.link.sent == ["subscribe BTC", "subscribe ETH"]
        assert rig.books.of("ethereum")["venue0"].book.bid == 67_000
        await asyncio.sleep(1_000)
        assert len(rig.venue.links) == 2


@in_virtual_time
async def test_a_coin_that_is_added_while_the_feed_waits_costs_no_connection_of_its_own() -> None:
    rig = FeedRig()
    rig.venue.error = StreamRefusedError(429, retry_after_s=30.0)
    async with rig.running():
        await asyncio.sleep(1)
        rig.symbols.update(BOTH)
        rig.feed.renew()
        rig.venue.error = None
        await asyncio.sleep(100)
        assert len(rig.venue.tried_s) == 2
        assert rig.venue.link.sent == ["subscribe BTC", "subscribe ETH"]


@in_virtual_time
async def test_a_venue_without_any_coin_is_not_connected_to_until_it_has_one() -> None:
    rig = FeedRig(symbols={})
    async with rig.running():
        await asyncio.sleep(10_000)
        assert rig.venue.tried_s == []
        rig.symbols.update(COINS)
        rig.feed.renew()
        await until(lambda: rig.feed.status.state == "live", 2)


@in_virtual_time
async def test_a_coin_that_never_comes_is_left_out_after_two_tries_and_tried_again() -> None:
    rig = FeedRig(symbols=BOTH)
    rig.venue.symbols = {BITCOIN}
    async with rig.running():
        with capture_logs() as logged:
            await until(lambda: len(rig.venue.links) == 3)
            await asyncio.sleep(0.01)
            assert [link.sent for link in rig.venue.links] == [["subscribe BTC", "subscribe ETH"]] * 2 + [
                ["subscribe BTC"]
            ]
            assert now_s() == pytest.approx(2 * WATCH.never_s, abs=2)
            await asyncio.sleep(FEED_LIMITS.absent_s / 2)
            assert rig.venue.link.sent == ["subscribe BTC"]
            assert rig.feed.status.absent["ethereum"].reason == "the venue sends nothing of it"
        assert [entry["event"] for entry in logged].count("venue.coin_absent") == 1
        rig.venue.symbols = {BITCOIN, ETHER}
        await asyncio.sleep(FEED_LIMITS.absent_s / 2 + FEED_LIMITS.renewal_retry_s)
        assert rig.venue.link.sent == ["subscribe BTC", "subscribe ETH"]
        assert rig.feed.status.absent == {}
        assert len(rig.venue.links) == 4


@in_virtual_time
async def test_a_coin_that_still_does_not_come_is_logged_once_and_costs_one_connection_in_ten_minutes() -> None:
    rig = FeedRig(symbols=BOTH)
    rig.venue.symbols = {BITCOIN}
    async with rig.running():
        with capture_logs() as logged:
            await asyncio.sleep(1_500)
        assert [entry["event"] for entry in logged].count("venue.coin_absent") == 1
        assert len(rig.venue.links) <= 3 + 2 * 1_500 / FEED_LIMITS.absent_s


@in_virtual_time
async def test_a_coin_that_is_refused_is_left_out_at_once_and_tried_again() -> None:
    rig = FeedRig(symbols=BOTH)
    rig.venue.symbols = {BITCOIN}
    async with rig.running():
        await asyncio.sleep(1)
        rig.venue.link.put("refused ETH it is not listed here")
        await asyncio.sleep(FEED_LIMITS.absent_s / 2)
        assert len(rig.venue.links) == 1
        assert rig.feed.status.state == "live"
        assert rig.feed.status.absent["ethereum"].reason == "it is not listed here"
        rig.venue.symbols = {BITCOIN, ETHER}
        await asyncio.sleep(FEED_LIMITS.absent_s / 2 + FEED_LIMITS.renewal_retry_s)
        assert rig.venue.link.sent == ["subscribe BTC", "subscribe ETH"]
        assert rig.feed.status.absent == {}


@in_virtual_time
async def test_a_venue_that_refused_every_coin_is_tried_again_after_ten_minutes() -> None:
    rig = FeedRig()
    rig.venue.symbols = set()
    async with rig.running():
        await asyncio.sleep(1)
        rig.venue.link.put("refused BTC not here")
        await asyncio.sleep(1)
        rig.venue.link.end()
        rig.venue.symbols = {BITCOIN}
        await until(lambda: rig.feed.status.state == "live", FEED_LIMITS.absent_s + 10)
        assert now_s() >= FEED_LIMITS.absent_s


# what it says and costs


@pytest.mark.parametrize(
    "error",
    [StreamUnavailableError("no connection", cause="name"), StreamRefusedError(451), StreamClosedError(1000, "")],
    ids=["no name", "blocked", "closed"],
)
@in_virtual_time
async def test_an_outage_is_logged_once_and_its_end_once(error: StreamError) -> None:
    rig = FeedRig()
    rig.venue.error = error
    async with rig.running():
        with capture_logs() as logged:
            await asyncio.sleep(300)
            rig.venue.error = None
            await until(lambda: rig.feed.status.state == "live", 120)
        assert [entry["event"] for entry in logged] == ["venue.closed", "venue.live"]
        assert logged[0]["reason"] == logged[1]["after"] == rig.reason


@in_virtual_time
async def test_frames_that_cannot_be_read_are_counted_and_skipped() -> None:
    rig = FeedRig()
    async with rig.running():
        with capture_logs() as logged:
            await asyncio.sleep(1)
            rig.venue.link.put(*["nonsense"] * 1_000)
            await asyncio.sleep(1)
        counts = rig.feed.status.counts
        assert counts.malformed == 1_000
        assert counts.frames == counts.books + 1_000
        assert len(rig.venue.links) == 1
        assert [entry["event"] for entry in logged] == ["frame.malformed"]
        assert gauge(rig, "venue_frames_malformed_total", venue="venue0") == 1_000


@in_virtual_time
async def test_the_metrics_show_what_is_open() -> None:
    rig = FeedRig()
    async with rig.running():
        await until(lambda: rig.feed.status.state == "live")
        assert gauge(rig, "venue_live", venue="venue0") == 1
        rig.venue.error = StreamUnavailableError("no connection", cause="unreachable")
        rig.venue.link.put("gap 3")
        await asyncio.sleep(0.1)
        rig.venue.link.end()
        await asyncio.sleep(1)
        assert gauge(rig, "venue_live", venue="venue0") == 0
        assert gauge(rig, "venue_sequence_gaps_total", venue="venue0") == 1
        opened = gauge(rig, "venue_connections_opened_total", venue="venue0")
        assert opened == len(rig.venue.tried_s)


@pytest.mark.parametrize("stopped_s", [0.0, 0.01, 0.06, 0.5, STEADY_S + 5, 90.05])
@in_virtual_time
async def test_a_feed_that_is_stopped_leaves_no_task_and_no_link(stopped_s: float) -> None:
    rig = FeedRig(2, symbols=BOTH, lifetime_s=100.0)
    rig.venue.symbols = {BITCOIN}
    async with rig.running():  # which looks for what is left
        await asyncio.sleep(stopped_s)
        for feed in rig.feeds:
            feed.renew()
        await asyncio.sleep(0.02)
