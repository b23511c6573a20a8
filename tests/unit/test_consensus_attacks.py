"""Liars against the consensus and its peers in seeded worlds, and markets that were real or could have been."""

import json
import statistics
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import pytest
from benchmarks import attacks
from benchmarks.attacks import ATTACKS, CRASH, START_PRICE, Attack, World, attacked, consensus, errors_bps, mids
from tests.harness_recordings import NEEDS_REAL, REAL

from cotacoes.model.quote import parse_price
from cotacoes.patterns.consensus import ConsensusPrice, ConsensusState, NoPrice, VenueBook, VenueReason, agree, rate_of

WORLDS, TICKS = 12, 10
NOW_S = 100.0
NONE = None
# 99th percentile of the error in bps: each peer is moved by at least this, and the consensus by no more than that
EXPECTED: Mapping[str, tuple[float, float, float, float, float | None]] = {
    # attack: mean of last, VWAP, Deribit clamp, Pyth; here
    "nobody lies, 6": (3, 3, 0, 0, 2),
    "one liar +10 % of 3": (330, 600, 16, 1, 2),
    "one liar +10 % of 5": (195, 600, 9, 0.5, 2),
    "one liar +10 % of 6": (165, 600, 8, 0.5, 2),
    "two collude +10 % of 5": (395, 800, 20, 1, 2),
    "two collude +10 % of 6": (330, 800, 16, 1, 2),
    "half collude +10 %, 2 of 4": (500, 900, 500, 500, NONE),
    "half collude +10 %, 3 of 6": (500, 900, 500, 500, NONE),
    "half collude +2 %, 2 of 4": (100, 150, 100, 100, NONE),
    "half collude +2 %, 3 of 6": (100, 150, 100, 100, NONE),
    "two left, 2 % apart": (100, 150, 100, 100, NONE),
    "one liar +2 % of 6, on USDT too": (33, 150, 8, 0.5, 3),
    # what no method can do
    "two collude +2 % of 6, on USDT too": (66, 150, 16, 1, 210),
    "two of 3 collude +10 %": (660, 900, 950, 950, 1_010),
}


def test_every_attack_has_its_figures() -> None:
    assert set(EXPECTED) == {attack.name for attack in ATTACKS}
    assert [attack.is_by_a_minority for attack in ATTACKS] == [
        most is not None and most <= 3 and name != "nobody lies, 6" for name, (*_, most) in EXPECTED.items()
    ]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_a_minority_moves_the_peers_and_not_the_consensus(attack: Attack) -> None:
    found = {name: attacks.worst(errors) for name, errors in errors_bps(attack, WORLDS, TICKS).items()}
    *peers, most = EXPECTED[attack.name]
    for (name, error), least in zip(list(found.items())[:-1], peers, strict=True):
        assert error is not None, name
        assert error >= least, name
    here = found["here"]
    assert here is None if most is None else here is not None and here <= most


@pytest.mark.parametrize("attack", ATTACKS[-2:], ids=lambda attack: attack.name)
def test_a_majority_of_liars_is_believed(attack: Attack) -> None:
    here = attacks.worst(errors_bps(attack, WORLDS, TICKS)["here"])
    assert here is not None
    assert here > 150  # if this fails, the page may promise more


@pytest.mark.parametrize(
    "attack", [attack for attack in ATTACKS if attack.is_by_a_minority], ids=lambda attack: attack.name
)
def test_every_liar_is_named_an_outlier_from_the_first_tick_on_and_nobody_else_is(attack: Attack) -> None:
    for seed in range(WORLDS):
        world = World(seed, attack.venues)
        for tick in range(TICKS):
            verdicts = consensus(attacked(world.tickers(tick), attack), float(tick)).verdicts
            named = [number for number, one in enumerate(verdicts) if one.reason is VenueReason.OUTLIER]
            assert named == list(range(attack.liars))


@pytest.mark.slow
@pytest.mark.parametrize("venues", [2, 4, 6])
def test_halves_that_disagree_give_no_price_in_ten_thousand_ticks(venues: int) -> None:
    attack = Attack("halves", venues, venues // 2, Decimal("1.02"))
    for seed in range(10):
        world = World(seed, venues)
        for tick in range(1_000):
            assert isinstance(consensus(attacked(world.tickers(tick), attack), float(tick)), NoPrice)


@pytest.mark.parametrize("share", ["0.002", "0.004", "0.006", "0.01", "0.02", "0.04", "0.08"])
@pytest.mark.parametrize("venues", [4, 6])
def test_half_of_the_venues_move_the_price_by_a_pairs_band_at_most(venues: int, share: str) -> None:
    attack = Attack("halves", venues, venues // 2, 1 + Decimal(share))
    errors = [error for error in errors_bps(attack, WORLDS, TICKS)["here"] if error is not None]
    assert max(errors, default=0) <= 30


def test_a_true_crash_is_followed_within_seconds_and_no_price_lies_in_between() -> None:
    for seed in range(WORLDS):
        world, before_s = World(seed, 6, CRASH), 0.0
        for tick in range(40):
            now_s = tick / 10
            result = consensus(world.tickers(now_s), now_s)
            if isinstance(result, ConsensusPrice):
                share = float(result.price) / START_PRICE
                assert min(abs(share - 1), abs(share - CRASH)) < 0.01
                before_s = now_s if share > 0.9 else before_s
        assert before_s < 2
    found = {name: statistics.median(seconds) for name, seconds in attacks.crash_s(2).items()}
    assert found["here"] < 2
    assert found["mean of last"] > 10


def test_the_same_crash_seen_by_all_at_once_is_followed_at_once() -> None:
    last = agree([_book(name, 70_000) for name in "abcdef"], {}, NOW_S, last=None)
    assert isinstance(last, ConsensusPrice)
    after = agree([_book(name, 49_000) for name in "abcdef"], {}, NOW_S, last=last)
    assert isinstance(after, ConsensusPrice)
    assert (after.state, after.price) == (ConsensusState.AGREED, Decimal(49_000))


# --- currencies


def test_a_stablecoin_at_90_cents_is_converted() -> None:
    for seed in range(WORLDS):
        world = World(seed, 6, peg=0.90)
        for tick in range(TICKS):
            tickers = world.tickers(tick)
            result = consensus(tickers, float(tick))
            assert isinstance(result, ConsensusPrice)
            assert result.used == 6
            truth = statistics.median(mids(tickers, peg=0.90))
            assert abs(float(result.price) / truth - 1) * 10_000 <= 3


@pytest.mark.parametrize("pegs", [3, 2, 1, 0])
def test_a_venue_that_lies_about_bitcoin_and_about_usdt_does_not_vote_twice(pegs: int) -> None:
    """Coinbase is 2 % too high on both. Its rate alone would pull all venues in USDT along."""
    lie = Decimal("1.02")
    dollar_venues = ["coinbase", "kraken", "bitstamp"]
    usdt = [_book("coinbase", lie), _book("kraken", 1), _book("bitstamp", "1.0001")][:pegs]
    rate = rate_of("USDT", usdt, NOW_S)
    books = [
        *(_book(name, 70_000 * (lie if name == "coinbase" else 1)) for name in dollar_venues),
        *(_book(name, 70_000, "USDT") for name in ("binance", "okx", "bybit")),
    ]
    result = agree(books, {} if rate is None else {"USDT": rate}, NOW_S, last=None)
    assert isinstance(result, ConsensusPrice)
    assert abs(result.price - 70_000) <= 70_000 * Decimal("0.0005")
    reasons = {one.book.venue: one.reason for one in result.verdicts}
    assert reasons["coinbase"] is VenueReason.OUTLIER
    assert reasons["binance"] is (None if pegs == 3 else VenueReason.NO_RATE)


DOLLARS = ["20000", "20010", "19995"]
USDC_VENUES = [Decimal(price) * Decimal("1.1431") for price in ("20002", "20005", "19998")]


@pytest.mark.parametrize(
    ("pegs", "state", "used"),
    [
        (["0.8748", "0.8750", "0.8745"], "agreed", 6),
        (["0.8748", "0.8750"], "agreed", 6),
        (["0.8748"], "agreed", 3),
        (["0.8748", "0.8900"], "agreed", 3),
        ([], "agreed", 3),
        (["1", "1", "1"], "disputed", 0),  # as if a stablecoin were always a dollar
    ],
)
def test_bitcoin_in_usdc_1431_bps_above_dollars_as_on_11_march_2023(pegs: list[str], state: str, used: int) -> None:
    rate = rate_of("USDC", [_book(f"v{number}", peg) for number, peg in enumerate(pegs)], NOW_S)
    books = [
        *(_book(f"usd{number}", price) for number, price in enumerate(DOLLARS)),
        *(_book(f"usdc{number}", price, "USDC") for number, price in enumerate(USDC_VENUES)),
    ]
    result = agree(books, {} if rate is None else {"USDC": rate}, NOW_S, last=None)
    assert result.state.value == state
    if isinstance(result, ConsensusPrice):
        assert result.used == used
        assert abs(result.price - 20_000) <= 20_000 * Decimal("0.0003")


@pytest.mark.parametrize(
    ("apart_bps", "state", "used"),
    [
        ([0, 60, 120, 180, 240], "agreed", 5),  # a band of 50 bps would hold one venue
        ([0, 100, 200, 300, 400], "agreed", 5),
        ([0, 48, 96, 144, 192, 240], "agreed", 6),
        ([0, 4, 8, 10, 1_078, 1_078], "agreed", 4),
        ([0, 3, 8, 1_078, 1_078], "agreed", 3),
        ([0, 270, 539, 808, 1_078], "disputed", 0),
        ([0, 216, 431, 647, 862, 1_078], "disputed", 0),
        ([0, 0, 0, 1_078, 1_078, 1_078], "disputed", 0),
    ],
)
def test_honest_venues_up_to_1078_bps_apart_as_on_11_march_2023(apart_bps: list[int], state: str, used: int) -> None:
    books = [_book(f"v{number}", 20_000 + 2 * bps) for number, bps in enumerate(apart_bps)]
    result = agree(books, {}, NOW_S, last=None)
    assert result.state.value == state
    if isinstance(result, ConsensusPrice):
        assert result.used == used
        assert result.low <= result.price <= result.high


def _book(venue: str, price: int | str | Decimal, currency: str = "USD") -> VenueBook:
    """One basis point wide."""
    half = Decimal(price) * Decimal("0.00005")
    return VenueBook(venue, currency, Decimal(price) - half, Decimal(price) + half, NOW_S)


# --- recorded

_BOOK_OF: Mapping[str, Callable[[Any], tuple[str, str, str]]] = {
    "bitstamp": lambda body: (body["bid"], body["ask"], body["last"]),
    "coinbaseexchange": lambda body: (body["bid"], body["ask"], body["price"]),
    "kraken": lambda body: tuple(body["result"]["XBTUSDT"][key][0] for key in "bac"),
    "okx": lambda body: tuple(body["data"][0][key] for key in ("bidPx", "askPx", "last")),
    "binanceus": lambda body: (body["bidPrice"], body["askPrice"], body["lastPrice"]),
    "bitfinex": lambda body: (body["bid"], body["ask"], body["last_price"]),
    "gemini": lambda body: (body["bid"], body["ask"], body["last"]),
    "bitso": lambda body: tuple(body["payload"][key] for key in ("bid", "ask", "last")),
    "p2b": lambda body: tuple(body["result"][key] for key in ("bid", "ask", "last")),
    "indodax": lambda body: tuple(body["ticker"][key] for key in ("buy", "sell", "last")),
    "coinmate": lambda body: tuple(body["data"][key] for key in ("bid", "ask", "last")),
    "luno": lambda body: (body["bid"], body["ask"], body["last_trade"]),
}


@NEEDS_REAL
def test_on_the_recording_of_twelve_venues_the_price_is_within_one_bp_of_the_median_of_the_mids() -> None:
    body = json.loads((REAL / "twelve_venues_2024-03-13" / "tickers.json").read_text())
    found = {venue: [parse_price(text) for text in read(body[venue])] for venue, read in _BOOK_OF.items()}
    books = [VenueBook(venue, "USDT", bid, ask, NOW_S) for venue, (bid, ask, _) in found.items()]
    result = agree(books, {"USDT": Decimal(1)}, NOW_S, last=None)
    assert isinstance(result, ConsensusPrice)
    middle: Decimal = statistics.median([(bid + ask) / 2 for bid, ask, _ in found.values()])
    assert (result.state, result.used, result.of) == (ConsensusState.AGREED, 11, 12)
    assert {one.book.venue for one in result.verdicts if one.reason is VenueReason.WIDE} == {"luno"}
    assert abs(result.price / middle - 1) * 10_000 <= 1
    mean_of_last = sum((last for *_, last in found.values()), Decimal(0)) / 12
    assert (mean_of_last / middle - 1) * 10_000 > 5
    assert result.confidence / result.price * 10_000 < 3  # though the widest book used is 89 bps wide
