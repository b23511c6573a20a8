"""The witness of the tape sees every breach that is planted, and no other."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from tests.system.harness_tape_witness import Gap, Run, breaches

Entry = Mapping[str, Any]


def entry(index: int, second: int, price: str) -> dict[str, Any]:
    return {
        "index": index,
        "coin": "bitcoin",
        "price": price,
        "observed_at": f"2026-03-01T10:00:{second:02}.000000Z",
        "state": "agreed",
        "confidence": "0.5",
        "used": 6,
        "of": 6,
    }


A = Run("feed.1", [entry(1, 1, "5.1"), entry(2, 2, "5.2"), entry(3, 3, "5.3"), entry(4, 4, "5.4")])
B = Run("feed.2", [entry(1, 21, "5.1"), entry(2, 22, "5.2"), entry(3, 22, "5.3")])
GAP = Gap("feed.1-3", "feed.2-0")
STORED = [*A.entries[1:3], *B.entries]


def found(stored: Sequence[Entry], *gaps: Gap, is_whole: bool = True) -> list[str]:
    return breaches([A, B], gaps, {"bitcoin": stored}, is_whole=is_whole)


def test_what_follows_the_tape_with_its_gap_noted_has_no_breach() -> None:
    assert found(STORED, GAP) == []
    assert found(STORED[1:], GAP) == []


def test_a_price_that_is_neither_stored_nor_in_a_gap_is_found_out() -> None:
    assert len(found([STORED[0], *STORED[2:]], GAP)) == 1
    assert len(found([*STORED[:3], STORED[4]], GAP)) == 1
    assert len(found(STORED)) == 1  # the last of the first run, in no gap


@pytest.mark.parametrize("place", range(len(STORED)))
def test_a_price_that_is_stored_twice_is_found_out(place: int) -> None:
    assert len(found([*STORED[:place], STORED[place], *STORED[place:]], GAP)) == 1


@pytest.mark.parametrize("name", ["price", "observed_at", "state", "confidence", "used", "of"])
def test_a_price_that_is_not_on_the_tape_is_found_out(name: str) -> None:
    changed = {**STORED[1], name: "2026-03-01T10:00:02.500000Z" if name == "observed_at" else "5.25"}
    assert len(found([STORED[0], changed, *STORED[2:]], GAP)) == 2  # and the one in its place is missing


def test_prices_in_another_order_are_found_out() -> None:
    assert found([STORED[1], STORED[0], *STORED[2:]], GAP) != []


@pytest.mark.parametrize(
    "gaps",
    [
        [GAP, Gap("feed.1-2", "feed.2-0")],
        [GAP, Gap("feed.2-1", "feed.1-0")],
        [GAP, Gap("feed.2-3", "feed.2-5")],
        [GAP, Gap("feed.0-9", "feed.1-0")],
    ],
)
def test_a_gap_that_was_not_or_was_noted_twice_is_found_out(gaps: list[Gap]) -> None:
    assert len(found(STORED, *gaps)) == 1


def test_the_end_of_a_run_may_have_been_recorded_unseen() -> None:
    late = entry(5, 5, "5.5")
    assert found([*A.entries, late, *B.entries], Gap("feed.1-5", "feed.2-0")) == []
    assert found([*STORED, entry(4, 25, "5.5")], GAP) == []
    assert len(found([*A.entries, entry(5, 4, "5.5"), *B.entries], Gap("feed.1-5", "feed.2-0"))) == 1


def test_of_a_polled_tape_any_price_may_be_missing_but_none_doubled_or_strange() -> None:
    assert found([STORED[0], STORED[4]], is_whole=False) == []
    assert len(found([STORED[0], STORED[0], STORED[4]], is_whole=False)) == 1
    assert len(found([STORED[0], {**STORED[1], "price": "9"}], is_whole=False)) == 1
    assert len(found([STORED[0]], GAP, is_whole=False)) == 1
