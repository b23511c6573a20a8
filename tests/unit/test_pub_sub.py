"""Whatever is lost on the wire, the subscriber can name it; and it never names what was not lost."""

from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotacoes.model.live_message import Heartbeat
from cotacoes.model.quote import Position, Quote
from cotacoes.patterns.pub_sub.bus import FeedPosition, FeedSilence, Gap, Heard, Reason

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
Line = Quote | Heartbeat


def quote(epoch: int, seq: int, prev: Position | None = None) -> Quote:
    return Quote("bitcoin", "USD", Decimal("67012.34"), epoch, seq, NOON, NOON, "sim", prev)


def beat(position: Position | None, prev: Position | None = None) -> Heartbeat:
    return Heartbeat("bitcoin", position, prev, NOON)


def gap(after: tuple[int, int] | None, through: tuple[int, int], reason: Reason) -> Gap:
    return Gap("bitcoin", None if after is None else Position(*after), Position(*through), reason)


def also_new(missed: Gap) -> Heard:
    return Heard(missed, is_new=True)


LOST, ERA, REWRITTEN = Reason.LOST, Reason.ERA, Reason.REWRITTEN
NEW = Heard(is_new=True)
OLD = ALIVE = Heard()
RULES = [
    ("nothing heard, a quote", None, quote(5, 7), NEW),
    ("nothing heard, the first quote of an era", None, quote(6, 1, Position(5, 7)), NEW),
    ("nothing heard, a heartbeat", None, beat(Position(5, 7)), ALIVE),
    ("nothing heard, a heartbeat of nothing yet", None, beat(None), ALIVE),
    ("an old quote", (5, 7), quote(5, 7), OLD),
    ("a quote of an older era", (5, 7), quote(4, 90), OLD),
    ("the next quote", (5, 7), quote(5, 8), NEW),
    ("the next quote in a new era", (5, 7), quote(6, 1, Position(5, 7)), NEW),
    ("a quote further on", (5, 7), quote(5, 10), also_new(gap((5, 7), (5, 9), LOST))),
    ("a new era, the end of the old one lost", (5, 7), quote(6, 1, Position(5, 9)), also_new(gap((5, 7), (5, 9), ERA))),
    ("a whole era lost", (5, 7), quote(7, 1, Position(6, 2)), also_new(gap((5, 7), (6, 2), ERA))),
    ("the beginning of a new era lost", (5, 7), quote(6, 3), also_new(gap((5, 7), (6, 2), ERA))),
    ("a history without what is known", (5, 7), quote(6, 1, Position(5, 4)), also_new(gap((5, 7), (5, 7), REWRITTEN))),
    ("a history that begins anew", (5, 7), quote(6, 1), also_new(gap((5, 7), (5, 7), REWRITTEN))),
    ("a heartbeat of nothing yet", (5, 7), beat(None), ALIVE),
    ("a heartbeat of what is known", (5, 7), beat(Position(5, 7)), ALIVE),
    ("a heartbeat behind", (5, 7), beat(Position(4, 90)), ALIVE),
    ("a heartbeat ahead", (5, 7), beat(Position(5, 9)), Heard(gap((5, 7), (5, 9), LOST))),
    ("a heartbeat ahead in a new era", (5, 7), beat(Position(6, 2)), Heard(gap((5, 7), (6, 2), ERA))),
    ("the same, none lost before", (5, 7), beat(Position(6, 2), Position(5, 7)), Heard(gap((5, 7), (6, 2), LOST))),
]  # fmt: skip


@pytest.mark.parametrize(("known", "line", "heard"), [rule[1:] for rule in RULES], ids=[rule[0] for rule in RULES])
def test_each_rule_of_the_table_holds(known: tuple[int, int] | None, line: Line, heard: Heard) -> None:
    feed = FeedPosition("bitcoin", None if known is None else Position(*known))
    assert feed.receive(line) == heard
    ahead = [position for position in (feed.last_received, line.position) if position is not None]
    assert feed.last_received == max(ahead, default=None)
    assert feed.receive(line) == OLD


FROM_THE_START = [
    ("still nothing", beat(None), ALIVE),
    ("the first quote", quote(5, 1), NEW),
    ("a quote further on", quote(5, 3), also_new(gap(None, (5, 2), ERA))),
    ("a whole era lost", quote(6, 1, Position(5, 2)), also_new(gap(None, (5, 2), ERA))),
    ("a heartbeat ahead", beat(Position(5, 2)), Heard(gap(None, (5, 2), LOST))),
    ("a heartbeat ahead in a later era", beat(Position(6, 2), Position(5, 1)), Heard(gap(None, (6, 2), ERA))),
]


@pytest.mark.parametrize(("line", "heard"), [rule[1:] for rule in FROM_THE_START], ids=[r[0] for r in FROM_THE_START])
def test_a_feed_that_begins_before_the_first_quote_ever_can_miss_it(line: Line, heard: Heard) -> None:
    feed = FeedPosition("bitcoin")
    assert feed.receive(beat(None)) == ALIVE
    assert feed.last_received is None
    assert feed.receive(line) == heard
    assert feed.last_received == line.position


@st.composite
def histories(draw: st.DrawFn) -> list[Quote]:
    """What a writer recorded over some eras; an era may have had nothing to record."""
    quotes: list[Quote] = []
    for epoch in draw(st.lists(st.integers(1, 50), min_size=1, max_size=5, unique=True).map(sorted)):
        prev = quotes[-1].position if quotes else None
        quotes += [quote(epoch, seq, prev if seq == 1 else None) for seq in range(1, draw(st.integers(0, 12)) + 1)]
    return quotes


def with_heartbeats(quotes: list[Quote], beats: list[bool], *, name_prev: bool = True) -> list[Line]:
    """The channel as the writer fills it: in order, a heartbeat here and there, one at the end.

    Without `name_prev` as a writer does that was started anew since its era began.
    """
    lines: list[Line] = [beat(None)]
    prev: Position | None = None
    for held, beats_now in zip(quotes, beats, strict=True):
        if held.seq == 1:
            prev = held.prev if name_prev else None
        lines += [held, *([beat(held.position, prev)] if beats_now else [])]
    return [*lines, beat(quotes[-1].position, prev) if quotes else beat(None)]


def received_and_gaps(feed: FeedPosition, lines: list[Line]) -> tuple[list[Position], list[Gap]]:
    received, gaps = [], []
    for line in lines:
        heard = feed.receive(line)
        if heard.gap is not None:
            gaps.append(heard.gap)
        if heard.is_new:
            received.append(line.position)
    assert None not in received
    return [position for position in received if position is not None], gaps


def newest_before(quotes: list[Quote], position: Position) -> Position | None:
    return max((held.position for held in quotes if held.position < position), default=None)


def within(position: Position, found: Gap) -> bool:
    return (found.after is None or found.after < position) and position <= found.through


@pytest.mark.slow
@given(histories(), st.data())
def test_quotes_and_gaps_cover_the_history_whatever_was_dropped(quotes: list[Quote], data: st.DataObject) -> None:
    flags = st.lists(st.booleans(), min_size=len(quotes), max_size=len(quotes))
    *lines, last = with_heartbeats(quotes, data.draw(flags), name_prev=data.draw(st.booleans()))
    kept = data.draw(st.lists(st.booleans(), min_size=len(lines), max_size=len(lines)))
    heard_lines = [line for line, is_kept in zip(lines, kept, strict=True) if is_kept] + [last]
    twice = data.draw(st.lists(st.sampled_from(heard_lines), max_size=5))  # an old message once more, at the end
    since = data.draw(st.sampled_from([None, *(held.position for held in quotes)]))

    received, gaps = received_and_gaps(FeedPosition("bitcoin", since), heard_lines + twice)

    start = since
    if since is None:
        first = heard_lines[0]
        begins_at = first.position
        is_quote = isinstance(first, Quote)  # then it is itself owed
        start = newest_before(quotes, begins_at) if is_quote and begins_at is not None else begins_at
    owed = [held.position for held in quotes if start is None or held.position > start]
    missed = [position for found in gaps for position in owed if within(position, found)]
    assert sorted(received + missed) == owed
    assert received == sorted(set(received))
    assert all(later.after is not None and earlier.through <= later.after for earlier, later in pairwise(gaps))
    assert all(any(within(position, found) for position in owed) for found in gaps), "no gap is empty"


@given(histories(), st.data())
def test_without_a_loss_there_is_no_gap(quotes: list[Quote], data: st.DataObject) -> None:
    flags = st.lists(st.booleans(), min_size=len(quotes), max_size=len(quotes))
    lines = with_heartbeats(quotes, data.draw(flags), name_prev=data.draw(st.booleans()))
    feed = FeedPosition("bitcoin")
    received, gaps = received_and_gaps(feed, lines)
    assert received == [held.position for held in quotes]
    assert gaps == []


def test_a_feed_that_never_sends_anything_falls_silent_once() -> None:
    feed = FeedSilence(3.0, now=100.0)
    assert not feed.fall_silent(102.9)
    assert feed.fall_silent(103.0)
    assert not feed.fall_silent(110.0)
    assert feed.is_silent


def test_a_silence_ends_with_the_next_message() -> None:
    feed = FeedSilence(3.0, now=100.0)
    assert not feed.hear(101.0)
    assert not feed.fall_silent(103.9)
    assert feed.fall_silent(104.0)
    assert feed.hear(105.0)
    assert not feed.hear(105.1)
    assert feed.due == 108.1
