"""The consensus by its rules: which books are sound, who is the majority, what the price is, what nobody can move."""

import dataclasses
import math
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cotacoes.model.quote import Agreement, format_price
from cotacoes.patterns.consensus import (
    PRICE_LIMITS,
    RATE_LIMITS,
    Consensus,
    ConsensusLimits,
    ConsensusPrice,
    ConsensusState,
    NoPrice,
    VenueBook,
    VenueReason,
    agree,
    rate_of,
)

NOW_S = 1_000.0
BASIS_POINT = Decimal("0.0001")
SMALLEST = Decimal("1e-18")
ONE_BOOK_OF_EACH_KIND = (
    ("good", "USD", "100", "100.2", NOW_S - 10, None),
    ("empty", "USD", "0", "100", NOW_S, VenueReason.EMPTY),
    ("crossed", "USD", "100.2", "100.1", NOW_S, VenueReason.CROSSED),
    ("stale", "USD", "100", "100.1", NOW_S - 10.001, VenueReason.STALE),
    ("future", "USD", "100", "100.1", NOW_S + 5.001, VenueReason.FUTURE),
    ("wide", "USD", "100", "101.1", NOW_S, VenueReason.WIDE),
    ("foreign", "EUR", "100", "100.1", NOW_S, VenueReason.NO_RATE),
)


def book(
    venue: str, bid: str | Decimal, ask: str | Decimal = "", *, currency: str = "USD", age_s: float = 0.5
) -> VenueBook:
    return VenueBook(venue, currency, Decimal(bid), Decimal(ask or bid), NOW_S - age_s)


def books_at(*mids: str | Decimal) -> list[VenueBook]:
    """Locked books, so that each venue's three votes are its mid."""
    return [book(f"v{number}", mid) for number, mid in enumerate(mids)]


def result_of(
    books: Sequence[VenueBook], *, last: ConsensusPrice | None = None, limits: ConsensusLimits = PRICE_LIMITS
) -> Consensus:
    return agree(books, {}, NOW_S, last=last, limits=limits)


def price_of(books: Sequence[VenueBook], **given: Consensus | ConsensusLimits | None) -> ConsensusPrice:
    result = result_of(books, **given)  # type: ignore[arg-type]
    assert isinstance(result, ConsensusPrice), result
    return result


def reasons(result: Consensus) -> dict[str, VenueReason | None]:
    return {verdict.book.venue: verdict.reason for verdict in result.verdicts}


# --- which books are sound


def test_each_unsound_book_is_named_with_its_reason_and_the_rest_gives_the_price() -> None:
    books = [
        VenueBook(venue, currency, Decimal(bid), Decimal(ask), as_of_s)
        for venue, currency, bid, ask, as_of_s, _ in ONE_BOOK_OF_EACH_KIND
    ]
    result = price_of(books)
    assert reasons(result) == {venue: reason for venue, *_, reason in ONE_BOOK_OF_EACH_KIND}
    assert (result.state, result.price, result.used, result.of) == (ConsensusState.THIN, Decimal("100.1"), 1, 7)


@pytest.mark.parametrize(
    ("bid", "ask", "as_of_s", "is_sound"),
    [
        ("100", "100", NOW_S, True),
        ("99.5", "100.5", NOW_S, True),
        ("99.5", "100.51", NOW_S, False),
        ("100", "100", NOW_S - 10, True),
        ("100", "100", NOW_S + 5, True),
        ("NaN", "100", NOW_S, False),
        ("100", "NaN", NOW_S, False),
        ("100", "Infinity", NOW_S, False),
        ("Infinity", "Infinity", NOW_S, False),
        ("Infinity", "100", NOW_S, False),
        ("1e70", "1e70", NOW_S, False),
        ("-100", "100", NOW_S, False),
        ("100", "100", math.nan, False),
        ("100", "100", math.inf, False),
        ("100", "100", -math.inf, False),
        ("1e-19", "1e-19", NOW_S, False),
        ("1e-18", "1e-18", NOW_S, True),
    ],
)
def test_a_book_is_sound_up_to_each_limit_and_no_further(bid: str, ask: str, as_of_s: float, is_sound: bool) -> None:
    result = result_of([VenueBook("v", "USD", Decimal(bid), Decimal(ask), as_of_s)])
    assert isinstance(result, ConsensusPrice) is is_sound


def test_without_a_sound_book_there_is_no_venue() -> None:
    for books in ([], [book("v", "100", age_s=11)]):
        result = result_of(books)
        assert isinstance(result, NoPrice)
        assert (result.state, result.reason, result.of) == (ConsensusState.NONE, "no_venue", len(books))


def test_a_venue_cannot_be_given_twice_and_a_rate_is_a_number_above_zero_and_one_for_the_dollar() -> None:
    with pytest.raises(AssertionError, match="vote twice"):
        result_of([book("v", "100"), book("v", "101")])
    for currency, rate in [("USD", "0.99"), ("USDT", "0"), ("USDT", "-1"), ("USDT", "NaN"), ("USDT", "Infinity")]:
        with pytest.raises(AssertionError):
            agree([], {currency: Decimal(rate)}, NOW_S, last=None)


# --- who is the majority


@pytest.mark.parametrize(
    ("mids", "state", "outliers"),
    [
        (["100"], "thin", ""),
        (["100", "100.5"], "thin", ""),  # each 25 bps from the middle
        (["100", "100.502"], "disputed", ""),
        (["100", "100.5", "102"], "thin", "v2"),  # 50 bps from the middle one
        (["100", "100.51", "102"], "disputed", ""),
        (["100", "100.1", "100.5"], "agreed", ""),
        (["100", "100.1", "100.2", "110"], "agreed", "v3"),
        (["100", "100.1", "110", "110.1"], "disputed", ""),
        (["100", "100.1", "101", "101.1"], "disputed", ""),  # a band of five deviations holds them all
        (["100", "100.1", "100.2", "110", "110.1"], "agreed", "v3 v4"),
        (["100", "100.1", "105", "110", "110.1"], "disputed", ""),
        (["90", "100", "100.1", "110"], "disputed", ""),  # half is not enough
        (["100", "100.1", "100.2", "110", "110.1", "110.2"], "disputed", ""),
        (["100", "100.1", "100.2", "100.3", "110", "90"], "agreed", "v4 v5"),
    ],
)
def test_a_price_needs_more_than_half_of_the_sound_venues_around_the_middle(
    mids: list[str], state: str, outliers: str
) -> None:
    result = result_of(books_at(*mids))
    assert result.state.value == state
    assert [venue for venue, reason in reasons(result).items() if reason is VenueReason.OUTLIER] == outliers.split()
    if state == "disputed":
        assert isinstance(result, NoPrice)
        assert result.reason == "disputed"
        assert set(reasons(result).values()) == {VenueReason.DISPUTED}


@pytest.mark.parametrize(
    ("mids", "used"),
    [
        # the MAD is 0.1: five deviations are 74 bps
        (["99.9", "100", "100", "100.1", "100.1", "99.27"], 6),
        (["99.9", "100", "100", "100.1", "100.1", "99.25"], 5),
        # it is 0.01, so the band is 50 bps
        (["99.99", "100", "100", "100.01", "100.01", "99.5"], 6),
        (["99.99", "100", "100", "100.01", "100.01", "99.49"], 5),
        # it is 1, so the band is 200 bps, not 741
        (["99", "99.9", "100", "101", "102"], 5),
        (["99", "99.9", "100", "101", "102.01"], 4),
    ],
)
def test_the_band_widens_with_the_deviations_of_all_and_has_bounds(mids: list[str], used: int) -> None:
    assert price_of(books_at(*mids)).used == used


def test_the_deviations_of_two_or_three_do_not_widen_the_band() -> None:
    wide = dataclasses.replace(PRICE_LIMITS, band_deviations=Decimal(1000))
    assert isinstance(result_of(books_at("100", "101"), limits=wide), NoPrice)
    assert price_of(books_at("99", "100", "100.1"), limits=wide).used == 2


# --- what the price is


def test_each_venue_has_three_votes_and_the_median_of_all_is_the_price() -> None:
    result = price_of([book("a", "99.9", "100.3"), book("b", "100", "100.02"), book("c", "100.02", "100.1")])
    # 99.9 · 100 · 100.01 · 100.02 · 100.02 · 100.06 · 100.1 · 100.1 · 100.3
    assert result.price == Decimal("100.02")
    assert result.confidence == Decimal("0.08")  # to the seventh vote; the third is only 0.01 away
    assert (result.low, result.high) == (Decimal("99.9"), Decimal("100.3"))


def test_of_an_even_number_of_votes_the_two_in_the_middle_are_averaged() -> None:
    assert price_of(books_at("100", "100.1")).price == Decimal("100.05")


@pytest.mark.parametrize("mids", [["100"], ["100", "100.01"], ["100", "100.01", "110"]])
def test_fewer_than_three_venues_never_claim_to_be_surer_than_25_bps(mids: list[str]) -> None:
    result = price_of(books_at(*mids))
    assert result.state is ConsensusState.THIN
    assert result.confidence == result.price * 25 * BASIS_POINT


def test_a_price_is_converted_and_rounded_half_even_to_18_places() -> None:
    rates = {"USDT": Decimal("0.333333333333333333")}
    result = agree([book("v", "1.0000000000000000005", currency="USDT")], rates, NOW_S, last=None)
    assert isinstance(result, ConsensusPrice)
    assert result.price == Decimal("0.333333333333333333")  # of 0.33333333333333333316666…
    for price, rounded in [
        ("1.0000000000000000005", "1"),
        ("1.0000000000000000015", "1.000000000000000002"),
        ("1.000000000000000000500000000001", "1.000000000000000001"),  # 28 digits would round it twice
    ]:
        assert str(price_of(books_at(price)).price) == rounded


def test_a_verdict_shows_the_mid_in_the_venues_currency_and_in_dollars() -> None:
    rates = {"USDT": Decimal("0.999")}
    books = [book("a", "100", "101", currency="USDT"), book("b", "100", "101", currency="EUR"), book("c", "0", "1")]
    found = [(one.used, one.rate, one.mid, one.mid_usd) for one in agree(books, rates, NOW_S, last=None).verdicts]
    assert found == [
        (True, Decimal("0.999"), Decimal("100.5"), Decimal("100.3995")),
        (False, None, Decimal("100.5"), None),
        (False, Decimal(1), None, None),
    ]


def test_what_travels_with_a_quote_is_taken_from_the_result() -> None:
    result = price_of(books_at("100", "100", "100", "200"))
    assert result.agreement == Agreement(state="agreed", confidence=Decimal(0), used=3, of=4)


@pytest.mark.parametrize(
    ("confidence", "shown"),
    [
        ("0", "0"),
        ("12.34", "12.4"),
        ("12.3", "12.3"),
        ("0.08", "0.08"),
        ("167.53", "168"),
        ("99.91", "100"),
        ("12345.6", "12400"),
        ("0.000000000000000001", "0.000000000000000001"),
        ("0.000123456789012345", "0.000124"),
    ],
)
def test_the_confidence_of_a_quote_has_three_digits_and_never_claims_more_than_is_known(
    confidence: str, shown: str
) -> None:
    result = dataclasses.replace(price_of(books_at("100", "100", "100")), confidence=Decimal(confidence))
    assert format_price(result.agreement.confidence) == shown
    assert result.agreement.confidence >= result.confidence


# --- since when the venues used have spoken


@pytest.mark.parametrize(
    ("ages_s", "age_s"),
    [
        ([3.0], 3.0),
        ([1.0, 3.0], 3.0),
        ([1.0, 2.0, 3.0], 2.0),
        ([1.0, 2.0, 3.0, 4.0], 3.0),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 3.0),
    ],
)
def test_a_price_is_as_old_as_what_a_majority_has_said_since(ages_s: list[float], age_s: float) -> None:
    books = [book(f"v{number}", "100", age_s=age) for number, age in enumerate(ages_s)]
    assert price_of(books).as_of_s == NOW_S - age_s


def test_a_clock_that_is_ahead_makes_no_price_younger_nor_does_an_outlier() -> None:
    books = [book("a", "100", age_s=2), book("b", "100", age_s=1), book("ahead", "100", age_s=-1.27)]
    assert price_of(books).as_of_s == NOW_S - 1
    assert price_of([*books, book("liar", "110", age_s=-4)]).as_of_s == NOW_S - 1


def test_when_a_venue_whose_clock_is_ahead_leaves_time_goes_back_by_no_more_than_the_others_are_apart() -> None:
    others = [book(f"v{number}", "100", age_s=0.1 + number / 100) for number in range(5)]
    fast = book("fast", "100", age_s=-1.27)
    for count in range(2, 6):
        with_it, without = price_of([*others[:count], fast]), price_of(others[:count])
        assert with_it.as_of_s - without.as_of_s <= 0.04


def test_a_price_is_never_of_the_future() -> None:
    assert price_of([book("v", "100", age_s=-5)]).as_of_s == NOW_S


# --- the step guard

AGREED = price_of(books_at("100", "100", "100"))  # as of half a second before now


@pytest.mark.parametrize(
    ("mids", "later_s", "is_held"),
    [
        (["105"], 0, False),
        (["105.01"], 0, True),
        (["94.99"], 0, True),
        (["105.01", "105.02"], 0, True),
        (["105.01"], 59.5, True),
        (["105.01"], 59.51, False),
        (["200", "200", "200"], 0, False),
    ],
)
def test_a_thin_result_far_from_the_last_agreed_price_is_held_for_a_minute(
    mids: list[str], later_s: float, is_held: bool
) -> None:
    books = [dataclasses.replace(one, as_of_s=one.as_of_s + later_s) for one in books_at(*mids)]
    result = agree(books, {}, NOW_S + later_s, last=AGREED)
    assert isinstance(result, NoPrice) is is_held
    if isinstance(result, NoPrice):
        assert (result.state, result.reason) == (ConsensusState.DISPUTED, "disputed")
        assert set(reasons(result).values()) == {VenueReason.HELD}


def test_a_thin_result_cannot_be_the_one_that_the_next_step_is_measured_from() -> None:
    with pytest.raises(AssertionError):
        result_of(books_at("104"), last=price_of(books_at("100")))


# --- rates


def test_the_dollar_costs_a_dollar() -> None:
    assert rate_of("USD", [], NOW_S) == 1


@pytest.mark.parametrize(
    ("mids", "rate"),
    [
        ([], None),
        (["0.9992"], None),
        (["0.9992", "0.9994"], "0.9993"),
        (["0.9992", "1.0200"], None),
        (["0.9992", "0.9994", "1.0200"], "0.9993"),
        (["0.9992", "0.9993", "0.9994"], "0.9993"),
        (["0.9992", "0.98", "1.0200"], None),
    ],
)
def test_a_rate_needs_two_venues_that_agree(mids: list[str], rate: str | None) -> None:
    assert rate_of("USDT", books_at(*mids), NOW_S) == (None if rate is None else Decimal(rate))


def test_a_rate_may_be_half_a_minute_old() -> None:
    for age_s, is_known in [(30.0, True), (30.01, False)]:
        books = [book("a", "1", age_s=age_s), book("b", "1", age_s=age_s)]
        assert (rate_of("USDT", books, NOW_S) is not None) is is_known


def test_a_venue_that_would_give_a_rate_alone_is_named() -> None:
    result = agree(books_at("0.9992"), {}, NOW_S, last=None, limits=RATE_LIMITS)
    assert isinstance(result, NoPrice)
    assert (result.reason, reasons(result)) == ("no_venue", {"v0": VenueReason.ALONE})


# --- what no single venue can do

prices = st.decimals(Decimal("90"), Decimal("110"), places=3)
close = st.decimals(Decimal("99.8"), Decimal("100.2"), places=3)
halves = st.decimals(Decimal(0), Decimal("0.7"), places=3)
anywhere = st.decimals(Decimal("0.001"), Decimal(10) ** 9, places=3)


@st.composite
def many_books(draw: st.DrawFn, at_least: int = 1) -> list[VenueBook]:
    """Venues, most of them close together."""
    mids = draw(st.lists(st.one_of(close, close, prices), min_size=at_least, max_size=8))
    spread = draw(st.lists(halves, min_size=len(mids), max_size=len(mids)))
    ages = draw(st.lists(st.floats(-6, 12), min_size=len(mids), max_size=len(mids)))
    return [
        VenueBook(f"v{number}", "USD", mid - half, mid + half, NOW_S - age)
        for number, (mid, half, age) in enumerate(zip(mids, spread, ages, strict=True))
    ]


def votes_of(result: Consensus) -> list[Decimal]:
    return [side for one in result.verdicts if one.used for side in (one.book.bid, one.book.ask)]


@given(st.data())
def test_the_order_of_the_venues_changes_nothing(data: st.DataObject) -> None:
    books = data.draw(many_books())
    shuffled = data.draw(st.permutations(books))
    first, second = result_of(books), result_of(shuffled)
    order = [shuffled.index(one) for one in books]
    assert dataclasses.replace(second, verdicts=[second.verdicts[place] for place in order]) == dataclasses.replace(
        first, verdicts=list(first.verdicts)
    )


@pytest.mark.slow
@given(many_books(at_least=2), st.lists(st.tuples(anywhere, halves), min_size=2, max_size=2), st.floats(0, 5))
def test_one_venue_moved_anywhere_moves_the_price_by_no_more_than_the_spread_of_the_others(
    others: list[VenueBook], placed: list[tuple[Decimal, Decimal]], age_s: float
) -> None:
    results = [
        result_of([*others, VenueBook("mover", "USD", max(SMALLEST, mid - half), mid + half, NOW_S - age_s)])
        for mid, half in placed
    ]
    sound = [
        one.book for one in results[0].verdicts[:-1] if one.reason in (None, VenueReason.OUTLIER, VenueReason.DISPUTED)
    ]
    assume(sound and all(isinstance(result, ConsensusPrice) for result in results))
    low, high = min(one.bid for one in sound), max(one.ask for one in sound)
    for result in results:
        assert isinstance(result, ConsensusPrice)
        # two venues outvote nobody: there the mover counts for half, within 25 bps of the middle
        slack = 0 if result.state is ConsensusState.AGREED else high * 26 * BASIS_POINT
        assert low - slack <= result.price <= high + slack


@given(many_books(), st.decimals(Decimal("0.001"), Decimal(1000), places=3))
def test_scaling_all_prices_scales_the_price(books: list[VenueBook], factor: Decimal) -> None:
    scaled = [dataclasses.replace(one, bid=one.bid * factor, ask=one.ask * factor) for one in books]
    first, second = result_of(books), result_of(scaled)
    assert (first.state, reasons(first)) == (second.state, reasons(second))
    if isinstance(first, ConsensusPrice) and isinstance(second, ConsensusPrice):
        assert abs(second.price - first.price * factor) <= SMALLEST * (factor + 1)


@given(st.lists(st.integers(0, 5), min_size=2, max_size=9), st.data())
def test_no_majority_no_price(camps: list[int], data: st.DataObject) -> None:
    assume(max(camps.count(camp) for camp in camps) * 2 <= len(camps))
    apart = data.draw(st.decimals(Decimal("1.05"), Decimal(2), places=2))
    noise = data.draw(st.lists(close, min_size=len(camps), max_size=len(camps)))
    assert isinstance(
        result_of(books_at(*(one * apart**camp for one, camp in zip(noise, camps, strict=True)))), NoPrice
    )


@given(many_books())
def test_a_price_is_that_of_a_majority_near_it_and_lies_between_their_books(books: list[VenueBook]) -> None:
    result = result_of(books)
    sound = [one for one in result.verdicts if one.reason in (None, VenueReason.OUTLIER, VenueReason.DISPUTED)]
    if isinstance(result, NoPrice):
        assert not any(one.used for one in result.verdicts)
        return
    used = [one for one in sound if one.used]
    assert result.used == len(used) > len(sound) / 2
    assert (result.low, result.high) == (min(votes_of(result)), max(votes_of(result)))
    assert result.low <= result.price <= result.high
    near = [
        one for one in sound if one.mid is not None and abs(one.mid - result.price) <= result.price * 500 * BASIS_POINT
    ]
    assert len(near) * 2 > len(sound)


@given(many_books())
def test_the_figures_are_those_of_the_formulas_in_fractions(books: list[VenueBook]) -> None:
    """A second reading of the formulas, in other arithmetic and without regard to speed."""
    result = result_of(books)
    sound = [
        one
        for one in books
        if -5 <= NOW_S - one.as_of_s <= 10 and Fraction(one.ask - one.bid) <= Fraction(one.ask + one.bid) / 2 / 100
    ]
    mids = sorted(Fraction(one.bid + one.ask) / 2 for one in sound)
    if not mids:
        assert result.state is ConsensusState.NONE
        return
    centre = _median(mids)
    mad = _median(sorted(abs(mid - centre) for mid in mids))
    widest = Fraction(25 if len(mids) == 2 else 50)
    if len(mids) > 3:
        widest = min(max(5 * Fraction("1.4826") * mad / centre * 10_000, Fraction(50)), Fraction(200))
    used = [one for one in sound if abs(Fraction(one.bid + one.ask) / 2 - centre) <= centre * widest / 10_000]
    is_split = (mids[len(mids) // 2] - centre) / centre > Fraction(25, 10_000)
    if is_split or len(used) * 2 <= len(mids):
        assert result.state is ConsensusState.DISPUTED
        return
    votes = sorted(
        vote for one in used for vote in (Fraction(one.bid), Fraction(one.bid + one.ask) / 2, Fraction(one.ask))
    )
    first, third = (votes[math.ceil(share * len(votes)) - 1] for share in (0.25, 0.75))
    confidence = max(third - _median(votes), _median(votes) - first)
    if len(used) < 3:
        confidence = max(confidence, _median(votes) / 400)
    assert isinstance(result, ConsensusPrice)
    assert (Fraction(result.price), Fraction(result.confidence)) == (_median(votes), confidence)


def _median(ordered: Sequence[Fraction]) -> Fraction:
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


any_price = st.one_of(st.decimals(), st.decimals(Decimal("1e-40"), Decimal("1e90")), prices)
any_time = st.one_of(st.floats(), st.floats(NOW_S - 10, NOW_S + 5))
any_book = st.tuples(any_price, any_price, any_time, st.sampled_from(["USD", "USDT", "EUR"]))


@pytest.mark.slow
@given(st.lists(any_book, max_size=5), st.decimals(Decimal("1e-30"), Decimal("1e30")))
def test_no_book_makes_it_fail(given_books: list[tuple[Decimal, Decimal, float, str]], rate: Decimal) -> None:
    books = [
        VenueBook(f"v{n}", currency, bid, ask, as_of_s) for n, (bid, ask, as_of_s, currency) in enumerate(given_books)
    ]
    result = agree(books, {"USDT": rate}, NOW_S, last=AGREED)
    for verdict in result.verdicts:
        assert all(mid is None or mid.is_finite() for mid in (verdict.mid, verdict.mid_usd))
    if isinstance(result, ConsensusPrice):
        assert result.price.is_finite()
        assert result.as_of_s <= NOW_S
