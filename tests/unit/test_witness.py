"""The witness of the storms sees every breach that is planted, and no other."""

import pytest
from tests.system.harness_witness import Row, Seen, audit, falls, subscriber_lives, unreported

from cotacoes.model.quote import Position

P = Position
SOUND = [
    Row(P(10, 1), "5.0", None),
    Row(P(10, 2), "5.1", None),
    Row(P(20, 1), "5.2", P(10, 2)),
    Row(P(20, 2), "5.3", None),
]


def test_a_sound_history_has_no_breach() -> None:
    assert audit(SOUND, [Seen([(P(10, 2), "5.1"), (P(20, 1), "5.2")])]) == []


@pytest.mark.parametrize(
    ("rows", "breach"),
    [
        ([*SOUND[:1], SOUND[0], *SOUND[1:]], "1 positions are stored twice"),
        ([*SOUND[:3], SOUND[3]._replace(position=P(20, 3))], "a hole between 20-1 and 20-3"),
        ([SOUND[0], *SOUND[2:]], "20-1 names 10-2 as the one before it, not 10-1"),
        ([*SOUND[:2], SOUND[3]], "the era begins with 20-2"),
        ([*SOUND[:2], SOUND[2]._replace(prev=None), SOUND[3]], "20-1 names None as the one before it, not 10-2"),
        (SOUND[1:], "the era begins with 10-2"),
    ],
)
def test_a_history_with_a_hole_or_a_double_is_found_out(rows: list[Row], breach: str) -> None:
    assert breach in audit(rows, [])


@pytest.mark.parametrize("quote", [(P(20, 3), "5.4"), (P(20, 2), "5.30"), (P(11, 1), "5.0")])
def test_a_quote_that_was_seen_and_is_not_stored_as_seen_is_found_out(quote: tuple[Position, str]) -> None:
    assert len(audit(SOUND, [Seen([quote])])) == 1


def test_positions_that_fall_or_stand_still_are_found_out() -> None:
    assert falls([P(1, 1), P(1, 2), P(2, 1)], strictly=True) == []
    assert falls([P(1, 1), P(1, 1)], strictly=True) == ["1-1 was seen after 1-1"]
    assert falls([P(1, 1), P(1, 1)], strictly=False) == []
    assert falls([P(2, 1), P(1, 9)], strictly=False) == ["1-9 was seen after 2-1"]


def test_what_a_subscriber_neither_showed_nor_reported_as_gone_is_found_out() -> None:
    ends = [(P(10, 1), "5.0"), (P(20, 2), "5.3")]
    assert unreported(SOUND, Seen(ends, [(P(10, 1), P(20, 1))])) == []
    assert unreported(SOUND, Seen(ends, [(P(10, 1), P(10, 2))])) == ["20-1 was neither shown nor reported as gone"]
    assert len(unreported(SOUND, Seen(ends))) == 2


def test_each_process_of_the_subscriber_is_held_to_its_own_words() -> None:
    quote = {"type": "quote", "coin": "bitcoin", "epoch": 10, "seq": 1, "price": "5.0"}
    gap = {"type": "gap", "coin": "bitcoin", "after": None, "through": "10-1", "reason": "lost"}
    gone = gap | {"type": "gone", "through": "10-2", "reason": "gone"}
    start = {"type": "part", "part": "client_subscriber", "state": "starting"}
    lives = subscriber_lives([start, quote, start, gap, gone])
    assert [dict(life) for life in lives] == [
        {},
        {"bitcoin": Seen([(P(10, 1), "5.0")])},
        {"bitcoin": Seen([], [(None, P(10, 2))])},
    ]
