"""Each fault of each venue is noticed in time and named, and moves no price while most venues are honest."""

import asyncio
import itertools
import time
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from tests.conftest import SEED
from tests.contract.harness_feed_service import (
    SMALL,
    VENUES,
    External,
    Feed,
    distance_bps,
    external,
    feeding,
)

SLACK_S = 3.0  # for a machine that does much else
OFF_BPS_MAX = 5
WATCH = SMALL.watch
IN_USD = {"coinbase", "kraken", "bitstamp"}  # two of them give the rate of USDT, without which the others have no price
# and not of stablecoins: two of the three venues that give the rate of USDT are its majority
OF_COINS = {"coins": ["bitcoin", "ethereum"]}


@dataclass(frozen=True)
class Fault:
    """What a venue is made to do; it then ends for one of `ends` within `limit_s`, or goes on if there are none.

    `refused` is why its book is not used for the price meanwhile. `at_start`: the fault hits connections that open.
    """

    faults: dict[str, Any]
    ends: set[str] = field(default_factory=set)
    limit_s: float = 1.0
    refused: set[str] = field(default_factory=set)
    at_start: bool = False


FAULTS = {
    "stall": Fault({"stall": True}, {"stalled"}, WATCH.stalled_max_s),
    "half": Fault({"half": "bid"}, {"stalled", "never"}, WATCH.stalled_max_s),
    "dead": Fault({"dead": True}, {"silent", "stalled"}, 5.0),  # the heartbeats of the venues are up to 1.5 s apart
    "cut": Fault({"cut_after_s": 0.5}, {"cut", "closed"}),
    "maintenance": Fault({"maintenance": True}, {"closed", "cut"}),
    "lie": Fault({"lie": "0.10", **OF_COINS}, refused={"outlier"}),
    "low lie": Fault({"lie": "-0.02", **OF_COINS}, refused={"outlier"}),
    "clock ahead": Fault({"skew_s": 1.3}),
    "clock behind": Fault({"skew_s": -1.3}),
    "clock jumping": Fault({"clock": "jumping"}),
    "clock frozen": Fault({"clock": "frozen"}),
    "late": Fault({"late_s": 4.0}),
    "garbage": Fault({"garbage": 0.5}),
    "lost": Fault({"lost": 0.3}),
    "refuse": Fault({"refuse": 503}, {"unavailable"}, at_start=True),
    "accept then drop": Fault({"accept_then_drop": True}, {"cut", "closed", "no_websocket"}, at_start=True),
    "subscription refused": Fault({"sub_error": True}, {"subscription_refused", "never"}, 3.5, at_start=True),
    # a venue whose heartbeats begin with a subscription is silent for as long
    "subscription ignored": Fault({"sub_ignore": True}, {"never", "silent"}, WATCH.never_s, at_start=True),
}


def rated(faulty: dict[str, Fault]) -> bool:
    """Whether USDT gets a rate: not if two of three venues never send the books that it is made of."""
    return len(IN_USD - {venue for venue, fault in faulty.items() if fault.at_start}) > 1


async def hold(feed: Feed, faulty: dict[str, Fault], seconds: float) -> set[str]:
    """Look for so long: the price stands, no age is negative; returns why books of the faulty were not used."""
    honest = set(VENUES) - set(faulty)
    state = "agreed"
    if not rated(faulty):
        honest, state = honest & IN_USD, "thin"
    refused: set[str] = set()
    due_s = time.monotonic() + seconds
    while time.monotonic() < due_s:
        shown = await feed.consensus()
        assert shown["state"] == state, shown
        assert distance_bps(shown, honest) <= OFF_BPS_MAX, shown
        assert shown["used"] >= max(len(honest) - 1, 1), shown  # a busy machine may make one of them look late
        for one in shown["venues"]:
            assert one.get("age_ms") is None or one["age_ms"] >= 0
            if one["venue"] in faulty and one["reason"] is not None:
                refused.add(one["reason"])
        await asyncio.sleep(0.1)
    return refused


async def notice(feed: Feed, venue: str, fault: Fault, began_s: float) -> None:
    """Wait until the feed has noticed the fault; and it does not open too many connections."""
    if fault.ends:
        limit_s = began_s + fault.limit_s + SLACK_S - time.monotonic()
        shown = await feed.wait_for(
            venue, lambda one: one["closed_reason"] in fault.ends or one["absent"], max(limit_s, 0.1)
        )
        assert shown["closed_text"] or "sub_error" in fault.faults  # symbol by symbol: the coins are then absent
    shown = await feed.venue(venue)
    assert shown["openings"] <= 10
    if "garbage" in fault.faults:
        await feed.wait_for(venue, lambda one: one["malformed"] > 0, SLACK_S)


async def attack(venues: External, faulty: dict[str, Fault]) -> None:
    """Let these venues fail, hold the price against the others, and see them come back."""
    for venue, fault in faulty.items():
        if fault.at_start:
            await venues.set_faults(venue, **fault.faults)
    started_s = time.monotonic()
    async with feeding({venue: venues.address(venue) for venue in VENUES}) as feed:
        good = set(VENUES if rated(faulty) else IN_USD) - {venue for venue, fault in faulty.items() if fault.at_start}
        await feed.wait_agreed(len(good))
        began_s = time.monotonic()
        for venue, fault in faulty.items():
            if not fault.at_start:
                await venues.set_faults(venue, **fault.faults)
        noticing = [
            notice(feed, venue, fault, max(began_s, started_s + 1) if fault.at_start else began_s)
            for venue, fault in faulty.items()
        ]
        async with asyncio.TaskGroup() as group:
            held = group.create_task(hold(feed, faulty, 3.0))
            for noticed in noticing:
                group.create_task(noticed)
        refused = held.result()
        for fault in faulty.values():
            assert fault.refused <= refused
        opened = {venue: (await feed.venue(venue))["openings"] for venue in faulty}
        for venue in faulty:
            await venues.set_faults(venue)
        for venue, fault in faulty.items():
            if max(opened.values()) < 5 and "dead" not in fault.faults:  # later it waits as its breaker says
                await feed.wait_for(venue, lambda one: one["state"] == "live", 30)
        for venue in faulty:
            assert (await feed.venue(venue))["openings"] <= 10
    for venue in faulty:
        await venues.set_faults(venue)


async def attack_in_turn(cases: list[dict[str, Fault]]) -> None:
    async with external() as venues:
        for faulty in cases:
            names = {venue: fault.faults for venue, fault in faulty.items()}
            try:
                await attack(venues, faulty)
            except Exception as error:
                error.add_note(f"while {names}")
                raise


DICE = Random(SEED)
EACH = [(name, venue) for name in FAULTS for venue in VENUES]
SAMPLE = [(name, DICE.choice(VENUES)) for name in FAULTS]
PAIRS = [  # each pair of faults, on two venues that the seed draws: all venues would take eight hours
    dict(zip(DICE.sample(VENUES, 2), (FAULTS[one], FAULTS[other]), strict=True))
    for one, other in itertools.combinations_with_replacement(FAULTS, 2)
]
PARTS = 9


@pytest.mark.parametrize(("name", "venue"), SAMPLE, ids=str)
async def test_a_fault_of_one_venue_is_noticed_and_moves_no_price(name: str, venue: str) -> None:
    await attack_in_turn([{venue: FAULTS[name]}])


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "venue"), [case for case in EACH if case not in SAMPLE], ids=str)
async def test_each_fault_of_each_venue_is_noticed_and_moves_no_price(name: str, venue: str) -> None:
    await attack_in_turn([{venue: FAULTS[name]}])


@pytest.mark.parametrize("number", range(4))
async def test_two_faults_of_two_venues_move_no_price(number: int) -> None:
    await attack_in_turn([Random(SEED + number).choice(PAIRS)])


async def test_without_a_rate_of_usdt_the_price_is_of_the_venues_in_dollars_and_says_that_it_is_thin() -> None:
    await attack_in_turn([{"coinbase": FAULTS["refuse"], "bitstamp": FAULTS["accept then drop"]}])


@pytest.mark.soak
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("part", range(PARTS))
async def test_every_pair_of_faults_of_two_venues_moves_no_price(part: int) -> None:
    await attack_in_turn(PAIRS[part::PARTS])


async def test_without_a_majority_no_price_goes_on_the_tape() -> None:
    async with external() as venues, feeding({venue: venues.address(venue) for venue in VENUES}) as feed:
        await feed.wait_agreed(6)
        for venue in VENUES[:3]:
            await venues.set_faults(venue, lie="0.10", **OF_COINS)
        due_s = time.monotonic() + 10
        while (await feed.consensus())["state"] != "disputed":
            assert time.monotonic() < due_s
            await asyncio.sleep(0.05)
        index = await feed.newest_index()
        for _ in range(20):
            shown = await feed.consensus()
            assert (shown["state"], shown["reason"], shown["price"]) == ("disputed", "disputed", None)
            await asyncio.sleep(0.1)
        newest = await feed.get("/quote")
        assert newest["reasons"]["bitcoin"] == "disputed"
        entries = (await feed.get(f"/quotes?after={(await feed.get('/quotes'))['run']}-{index}"))["quotes"]
        assert [entry for entry in entries if entry["coin"] == "bitcoin"] == []
        for venue in VENUES[:3]:
            await venues.set_faults(venue)
        await feed.wait_agreed(5)


async def test_a_crash_of_the_whole_market_is_followed_and_a_frozen_venue_is_named_and_left() -> None:
    async with external() as venues, feeding({venue: venues.address(venue) for venue in VENUES}) as feed:
        await feed.wait_agreed(6)
        before = float((await feed.consensus())["price"])
        await venues.set_faults("okx", freeze=True)
        await venues.put("/venues/market", shock="0.7")
        due_s = time.monotonic() + 5
        while not (shown := await feed.consensus())["price"] or float(shown["price"]) > 0.75 * before:
            assert time.monotonic() < due_s, shown
            await asyncio.sleep(0.02)
        await feed.wait_for("okx", lambda one: one["closed_reason"] == "frozen", WATCH.frozen_s + 2 * SLACK_S)
        assert distance_bps(await feed.consensus(), set(VENUES) - {"okx"}) <= OFF_BPS_MAX


async def test_a_connection_that_is_cut_is_live_again_within_the_back_off() -> None:
    async with external() as venues, feeding({venue: venues.address(venue) for venue in VENUES}) as feed:
        await feed.wait_agreed(6)
        await asyncio.sleep(SMALL.steady_s)
        began_s = time.monotonic()
        await venues.set_faults("kraken", cut_after_s=0.1)
        await feed.wait_for("kraken", lambda one: one["closed_reason"] == "cut", SLACK_S)
        await venues.set_faults("kraken")
        await feed.wait_for("kraken", lambda one: one["state"] == "live", 10)
        assert time.monotonic() - began_s < 1.5 + SLACK_S
