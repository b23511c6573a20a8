"""Whatever the wire does and whenever the history answers, each quote is emitted once in order or reported lost."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cotacoes.model.live_message import Heartbeat
from cotacoes.model.quote import Position, Quote
from cotacoes.patterns.pub_sub.bus import Gap, Reason
from cotacoes.patterns.pub_sub.recovery import HELD_QUOTES_MAX, Recovery
from cotacoes.patterns.pub_sub.recovery_events import (
    Dismissed,
    GapDetected,
    GapFilled,
    GapLost,
    HistoryHoleError,
    Ignored,
    QuoteReceived,
    RecoveryEvent,
    Retracted,
    Wanted,
)

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
COIN = "bitcoin"
Line = Quote | Heartbeat


def quote(epoch: int, seq: int, prev: Position | None = None) -> Quote:
    return Quote(COIN, "USD", Decimal("67012.34"), epoch, seq, NOON, NOON, "sim", prev)


def quotes(*seqs: int) -> list[Quote]:
    return [quote(5, seq) for seq in seqs]


def beat(seq: int) -> Heartbeat:
    return Heartbeat(COIN, Position(5, seq), None, NOON)


def at(seq: int) -> Position:
    return Position(5, seq)


def seen(events: Sequence[RecoveryEvent]) -> list[int]:
    return [event.quote.seq for event in events if isinstance(event, QuoteReceived)]


def since(seq: int) -> Recovery:
    """One that has all up to a position, and knows that there is no more."""
    recovery = Recovery(COIN, at(seq))
    recovery.recover(Wanted(at(seq)), [], more=False)
    assert asks_nothing(recovery)
    return recovery


def asks_nothing(recovery: Recovery) -> bool:
    return recovery.wanted is None


def test_quotes_that_follow_are_emitted_at_once() -> None:
    recovery = since(1)
    assert recovery.hear(quote(5, 2)) == [QuoteReceived(quote(5, 2))]
    assert recovery.hear(beat(2)) == []
    assert asks_nothing(recovery)


def test_quotes_after_a_hole_are_held_until_the_history_has_filled_it() -> None:
    recovery = since(1)
    gap = Gap(COIN, at(1), at(3), Reason.LOST)
    assert recovery.hear(quote(5, 4)) == [GapDetected(gap)]
    assert recovery.hear(quote(5, 5)) == []
    assert recovery.wanted == Wanted(at(1))
    assert seen(recovery.recover(Wanted(at(1)), quotes(2), more=True)) == [2]
    rest = recovery.recover(Wanted(at(2)), quotes(3), more=True)
    assert rest == [
        QuoteReceived(quote(5, 3)),
        GapFilled(COIN, at(1), at(3), 2),
        QuoteReceived(quote(5, 4)),
        QuoteReceived(quote(5, 5)),
    ]
    assert asks_nothing(recovery)


def test_quotes_that_the_history_gives_beyond_the_hole_are_not_emitted_twice() -> None:
    recovery = since(1)
    recovery.hear(quote(5, 3))
    events = recovery.recover(Wanted(at(1)), quotes(2, 3, 4), more=False)
    assert seen(events) == [2, 3, 4]
    assert recovery.hear(quote(5, 4)) == []
    assert seen(recovery.hear(quote(5, 5))) == [5]


def test_a_heartbeat_reveals_the_loss_of_the_last_quote() -> None:
    recovery = since(1)
    assert recovery.hear(beat(2)) == [GapDetected(Gap(COIN, at(1), at(2), Reason.LOST))]
    events = recovery.recover(Wanted(at(1)), quotes(2), more=False)
    assert events == [QuoteReceived(quote(5, 2)), GapFilled(COIN, at(1), at(2), 1)]


def test_a_second_hole_only_makes_the_first_one_wider() -> None:
    recovery = since(1)
    recovery.hear(quote(5, 3))
    recovery.hear(quote(5, 5))
    assert seen(recovery.recover(Wanted(at(1)), quotes(2, 3), more=True)) == [2, 3]
    assert recovery.wanted == Wanted(at(3))
    assert seen(recovery.recover(Wanted(at(3)), quotes(4), more=False)) == [4, 5]
    assert asks_nothing(recovery)


def test_quotes_below_the_floor_of_the_history_are_reported_as_lost() -> None:
    recovery = since(1)
    recovery.hear(quote(5, 9))
    assert recovery.gone(quote(5, 5)) == [GapLost(Gap(COIN, at(1), at(4), Reason.GONE))]
    assert seen(recovery.recover(Wanted(at(4)), quotes(5, 6, 7, 8), more=False)) == [5, 6, 7, 8, 9]


def test_everything_up_to_the_live_quote_is_lost_if_the_history_is_empty() -> None:
    recovery = since(1)
    recovery.hear(quote(5, 9))
    assert recovery.gone(None) == [
        GapLost(Gap(COIN, at(1), at(8), Reason.GONE)),
        GapFilled(COIN, at(1), at(8), 0),
        QuoteReceived(quote(5, 9)),
    ]


def test_a_floor_that_was_passed_meanwhile_changes_nothing() -> None:
    recovery = since(6)
    recovery.hear(quote(5, 9))
    assert recovery.gone(quote(5, 5)) == []
    assert recovery.last_emitted == at(6)


def test_after_a_position_that_never_existed_the_newest_quote_begins_anew() -> None:
    recovery = Recovery(COIN, at(90))
    assert recovery.hear(quote(5, 7)) == []
    assert recovery.unknown() == [GapLost(Gap(COIN, at(90), at(90), Reason.REWRITTEN))]
    assert recovery.wanted == Wanted(None, 1)
    assert seen(recovery.recover(Wanted(None, 1), quotes(7), more=False)) == [7]
    assert seen(recovery.hear(quote(5, 8))) == [8]


def test_after_a_position_before_the_first_quote_ever_everything_comes() -> None:
    recovery = Recovery(COIN, Position(1, 1))
    recovery.hear(quote(5, 3))
    assert recovery.gone(quote(5, 1)) == [GapLost(Gap(COIN, Position(1, 1), Position(1, 1), Reason.REWRITTEN))]
    assert recovery.wanted == Wanted(None)
    assert seen(recovery.recover(Wanted(None), quotes(1, 2, 3), more=False)) == [1, 2, 3]
    assert asks_nothing(recovery)
    assert seen(recovery.hear(quote(5, 4))) == [4]


def test_after_a_position_that_never_existed_all_later_quotes_come() -> None:
    recovery = Recovery(COIN, at(9))
    assert recovery.restart(at(3)) == [GapLost(Gap(COIN, at(9), at(9), Reason.REWRITTEN))]
    assert recovery.wanted == Wanted(at(3))
    next_era = [quote(6, 1, at(3)), quote(6, 2)]
    assert recovery.recover(Wanted(at(3)), next_era, more=False) == [QuoteReceived(one) for one in next_era]


def test_a_history_without_the_emitted_quotes_is_followed_once_it_confirms_that() -> None:
    recovery = since(7)
    after = quote(6, 1, at(4))
    assert recovery.hear(after) == [], "anyone can publish that"
    assert recovery.wanted == Wanted(at(7))
    assert recovery.restart(at(4)) == [GapLost(Gap(COIN, at(7), at(7), Reason.REWRITTEN))]
    assert recovery.recover(Wanted(at(4)), [after], more=False) == [QuoteReceived(after)]
    assert asks_nothing(recovery)


# what anyone can publish


def other(one: Quote, price: str = "1.00") -> Quote:
    return msgspec.structs.replace(one, price=Decimal(price))


@pytest.mark.parametrize("prev", [None, at(3), at(7)], ids=["a history of its own", "ours, earlier", "ours"])
def test_the_first_quote_of_an_epoch_is_emitted_only_if_the_history_knows_it(
    prev: Position | None,
) -> None:
    recovery = since(7)
    foreign = quote(9, 1, prev)
    assert recovery.hear(foreign) == []
    assert recovery.wanted == Wanted(at(7))
    assert seen(recovery.hear(quote(5, 8))) == [8], "our own writer goes on meanwhile, and is not held up"
    assert recovery.recover(Wanted(at(8)), [], more=False) == []
    assert recovery.dismiss() == [Dismissed(Gap(COIN, at(8), foreign.position, Reason.UNREACHED))]
    assert asks_nothing(recovery)
    assert [recovery.hear(line) for line in (quote(9, 2), Heartbeat(COIN, Position(9, 2), None, NOON))] == [[], []]
    assert asks_nothing(recovery)
    assert recovery.ignored[Ignored.FOREIGN] == 3


def test_an_epoch_that_the_history_knows_continues_at_once() -> None:
    recovery = since(7)
    own = quote(9, 1, at(7))
    assert recovery.hear(own) == []
    assert recovery.hear(quote(9, 2)) == []
    events = recovery.recover(Wanted(at(7)), [own], more=False)
    assert events == [QuoteReceived(own), QuoteReceived(quote(9, 2))]


def test_a_false_position_far_ahead_delays_nothing_and_is_dismissed_with_all_beyond_it() -> None:
    recovery = since(7)
    assert recovery.hear(beat(900)) == [GapDetected(Gap(COIN, at(7), at(900), Reason.LOST))]
    assert seen(recovery.hear(quote(5, 8))) == [8]
    assert recovery.dismiss() == [Dismissed(Gap(COIN, at(8), at(900), Reason.UNREACHED))]
    assert recovery.hear(beat(901)) == []
    assert asks_nothing(recovery)
    recovery.hear(quote(5, 10))
    assert recovery.wanted == Wanted(at(8)), "a hole is still one"


def test_after_a_pardon_the_next_dismissal_of_the_same_epoch_is_silent() -> None:
    recovery = since(7)
    recovery.hear(Heartbeat(COIN, Position(9, 5), None, NOON))
    assert recovery.dismiss()
    recovery.dismissals.pardon()
    assert recovery.hear(Heartbeat(COIN, Position(9, 6), None, NOON)) == []
    assert recovery.wanted == Wanted(at(7))
    assert recovery.dismiss() == []


def test_a_dismissed_epoch_is_accepted_once_the_history_has_reached_it() -> None:
    recovery = since(7)
    recovery.hear(Heartbeat(COIN, Position(9, 5), None, NOON))
    recovery.dismiss()
    recovery.hear(beat(8))
    recovery.recover(Wanted(at(7)), [quote(5, 8), quote(9, 1, at(8))], more=False)
    assert seen(recovery.hear(quote(9, 2))) == [2]
    assert recovery.hear(quote(9, 4)) == [GapDetected(Gap(COIN, Position(9, 2), Position(9, 3), Reason.LOST))]


def test_a_false_quote_before_the_true_one_is_retracted_and_the_true_one_follows() -> None:
    recovery = since(1)
    false = [other(quote(5, seq)) for seq in (3, 4)]
    assert [seen(recovery.hear(line)) for line in (quote(5, 2), *false)] == [[2], [3], [4]]
    assert recovery.hear(quote(5, 3)) == []
    assert recovery.wanted == Wanted(at(1)), "all that the history has not confirmed"
    events = recovery.recover(Wanted(at(1)), quotes(2, 3), more=False)
    assert events == [Retracted(Gap(COIN, at(2), at(4), Reason.RETRACTED)), QuoteReceived(quote(5, 3))]
    assert asks_nothing(recovery)
    assert recovery.hear(quote(5, 4)) == [QuoteReceived(quote(5, 4))]


def test_a_false_quote_after_the_true_one_is_checked_once_and_then_ignored() -> None:
    recovery = since(1)
    recovery.hear(quote(5, 2))
    assert recovery.hear(other(quote(5, 2))) == []
    assert recovery.recover(Wanted(at(1)), quotes(2), more=False) == []
    for price in ("2.00", "3.00"):
        assert recovery.hear(other(quote(5, 2), price)) == []
        assert asks_nothing(recovery)
    assert recovery.ignored[Ignored.CONTRADICTED] == 2


def test_a_false_quote_is_retracted_even_if_the_history_was_replaced() -> None:
    recovery = since(1)
    recovery.hear(other(quote(5, 2)))
    recovery.hear(quote(5, 2))
    assert recovery.restart(None) == [
        Retracted(Gap(COIN, at(1), at(2), Reason.RETRACTED)),
        GapLost(Gap(COIN, at(1), at(1), Reason.REWRITTEN)),
    ]


def test_the_next_heartbeat_reveals_a_false_quote_after_the_last_true_one() -> None:
    recovery = since(1)
    recovery.hear(quote(5, 2))
    recovery.hear(other(quote(5, 3)))
    assert recovery.hear(beat(2)) == []
    events = recovery.recover(Wanted(at(1)), quotes(2), more=False)
    assert events == [Retracted(Gap(COIN, at(2), at(3), Reason.RETRACTED))]
    assert seen(recovery.hear(quote(5, 3))) == [3]


def test_a_heartbeat_behind_the_history_is_a_sign_of_life() -> None:
    recovery = since(1)
    recovery.hear(beat(3))
    recovery.recover(Wanted(at(1)), quotes(2, 3), more=False)
    recovery.hear(beat(2))
    assert (recovery.wanted, recovery.ignored) == (None, {})


def test_a_repeated_quote_is_no_contradiction() -> None:
    recovery = since(1)
    recovery.hear(quote(5, 2))
    assert recovery.hear(quote(5, 2)) == []
    assert asks_nothing(recovery)
    assert recovery.ignored == {Ignored.OLD: 1}


def test_a_recovery_begins_with_the_newest_quote_of_the_history() -> None:
    recovery = Recovery(COIN)
    assert recovery.wanted == Wanted(None, 1)
    assert recovery.hear(beat(7)) == []
    assert seen(recovery.recover(Wanted(None, 1), quotes(7), more=False)) == [7]
    assert asks_nothing(recovery)
    assert seen(recovery.hear(quote(5, 8))) == [8]


def test_live_quotes_wait_for_the_newest_quote_and_follow_it_without_a_hole() -> None:
    recovery = Recovery(COIN)
    assert recovery.hear(quote(5, 9)) == []
    assert seen(recovery.recover(Wanted(None, 1), quotes(7), more=False)) == [7]
    assert recovery.wanted == Wanted(at(7))
    assert seen(recovery.recover(Wanted(at(7)), quotes(8, 9), more=False)) == [8, 9]


@pytest.mark.parametrize("line", [quote(5, 9), beat(9)])
def test_without_the_history_a_recovery_begins_with_live_quotes(line: Line) -> None:
    recovery = Recovery(COIN)
    recovery.hear(line)
    assert seen(recovery.skip_start()) == ([9] if isinstance(line, Quote) else [])
    assert recovery.recover(Wanted(None, 1), quotes(8), more=False) == [], "too late"
    assert recovery.wanted == Wanted(at(9)), "once it answers, the history is to say whether that was good"
    assert recovery.recover(Wanted(at(9)), [], more=False) == []
    assert asks_nothing(recovery)
    assert seen(recovery.hear(quote(5, 10))) == [10]


def test_if_nothing_was_ever_recorded_the_first_quote_ever_is_not_skipped() -> None:
    recovery = Recovery(COIN)
    recovery.recover(Wanted(None, 1), [], more=False)
    recovery.hear(quote(5, 2))
    assert recovery.wanted == Wanted(None)
    assert seen(recovery.recover(Wanted(None), quotes(1), more=True)) == [1, 2]


def test_after_a_position_all_pages_are_requested_without_waiting_for_the_wire() -> None:
    recovery = Recovery(COIN, at(1))
    assert recovery.wanted == Wanted(at(1))
    assert seen(recovery.recover(Wanted(at(1)), quotes(2, 3), more=True)) == [2, 3]
    assert recovery.wanted == Wanted(at(3))
    assert seen(recovery.recover(Wanted(at(3)), quotes(4), more=False)) == [4]
    assert asks_nothing(recovery)


def test_an_answer_with_a_hole_changes_nothing() -> None:
    recovery = since(1)
    recovery.hear(quote(5, 9))
    with pytest.raises(HistoryHoleError, match="5-4 after 5-2"):
        recovery.recover(Wanted(at(1)), quotes(2, 4), more=False)
    assert recovery.wanted == Wanted(at(1))


def test_held_quotes_stay_bounded_and_nothing_is_lost_however_long_the_history_is_away() -> None:
    recovery = since(1)
    for seq in range(3, HELD_QUOTES_MAX + 10):
        assert seen(recovery.hear(quote(5, seq))) == []
        assert len(recovery._held) <= HELD_QUOTES_MAX
    last = HELD_QUOTES_MAX + 9
    assert seen(recovery.recover(Wanted(at(1)), quotes(*range(2, last + 1)), more=False)) == list(range(2, last + 1))


# the model: a writer over some eras, a wire that does anything, a history that answers at any time, or not


@st.composite
def histories(draw: st.DrawFn) -> list[Quote]:
    held: list[Quote] = []
    for epoch in draw(st.lists(st.integers(1, 50), min_size=2, max_size=4, unique=True).map(sorted)):
        prev = held[-1].position if held else None
        held += [quote(epoch, seq, prev if seq == 1 else None) for seq in range(1, draw(st.integers(0, 10)) + 1)]
    return held


class Model:
    """The history as it grows beside a Recovery; `floor` is the index of the oldest quote that it still holds."""

    def __init__(self, recovery: Recovery, written: list[Quote]) -> None:
        self.recovery = recovery
        self.written = written
        self.published = 0
        self.floor = 0
        self.events: list[RecoveryEvent] = []

    def hear_foreign(self, dice: st.DataObject) -> None:
        """What a stranger publishes: of an era of its own, far ahead, or under the next position."""
        last = self.written[self.published - 1] if self.published else None
        epoch = dice.draw(st.sampled_from([60, 61] if last is None else [60, 61, last.epoch]))
        seq = dice.draw(st.sampled_from([1, 2, 500]))
        if last is not None and epoch == last.epoch:
            seq = last.seq + seq
        if dice.draw(st.booleans()):
            self.hear(Heartbeat(COIN, Position(epoch, seq), None, NOON))
            return
        prev = last.position if last is not None and seq == 1 and dice.draw(st.booleans()) else None
        self.hear(msgspec.structs.replace(quote(epoch, seq, prev), price=Decimal("1.00")))

    @property
    def held(self) -> list[Quote]:
        return self.written[self.floor : self.published]

    def publish(self) -> Quote | None:
        if self.published == len(self.written):
            return None
        self.published += 1
        return self.written[self.published - 1]

    def last_beat(self) -> Heartbeat:
        """As the writer sends it: its `prev` is that of the era."""
        if not self.published:
            return Heartbeat(COIN, None, None, NOON)
        last = self.written[self.published - 1]
        first = next(held for held in self.written if held.epoch == last.epoch)
        return Heartbeat(COIN, last.position, first.prev, NOON)

    def hear(self, line: Line) -> None:
        self.events += self.recovery.hear(line)

    def dismiss(self) -> None:
        """As the filler does it: when the history has nothing more, and what was announced lies beyond."""
        wanted = self.recovery.wanted
        if wanted is not None and wanted.after == self.recovery.last_emitted and not self.following(wanted.after):
            self.events += self.recovery.dismiss()

    def following(self, after: Position | None) -> list[Quote]:
        return [held for held in self.held if after is None or held.position > after]

    def answer(self, limit: int) -> None:
        wanted = self.recovery.wanted
        if wanted is None:
            return
        if wanted.after is not None and not any(one.position == wanted.after for one in self.written[: self.published]):
            following = self.following(wanted.after)
            self.events += self.recovery.restart(following[0].before) if following else self.recovery.unknown()
            return
        if wanted.last is not None:
            self.events += self.recovery.recover(wanted, self.held[-wanted.last :], more=False)
            return
        if wanted.after is not None and self.floor and wanted.after < self.written[self.floor - 1].position:
            self.events += self.recovery.gone(self.held[0] if self.held else None)
            return
        following = self.following(wanted.after)
        self.events += self.recovery.recover(wanted, following[:limit], more=len(following) > limit)


STEPS = ["hear", "hear", "hear", "drop", "double", "late", "beat", "answer", "answer", "drop_day", "skip"]
STRANGE = ["foreign", "foreign", "dismiss", "pardon"]


@settings(max_examples=200)
@given(histories(), st.data())
@pytest.mark.slow
def test_quotes_and_lost_gaps_cover_the_history_whatever_happens(written: list[Quote], data: st.DataObject) -> None:
    start = data.draw(st.one_of(st.none(), st.sampled_from(written) if written else st.none()))
    model = Model(Recovery(COIN, None if start is None else start.position), written)
    if start is not None:
        model.published = written.index(start) + 1
    late: list[Quote] = []
    for step in data.draw(st.lists(st.sampled_from(STEPS), min_size=20, max_size=60)):
        if step == "answer":
            model.answer(data.draw(st.integers(1, 5)))
        elif step == "drop_day":
            model.floor = data.draw(st.integers(model.floor, max(model.floor, model.published - 1)))  # the newest stays
        elif step == "beat":
            model.hear(model.last_beat())
        elif step == "skip":
            model.events += model.recovery.skip_start() if model.recovery.is_holding else []
        elif step == "late":
            for line in late:
                model.hear(line)
        elif (new := model.publish()) is not None:
            if step != "drop":
                model.hear(new)
                late.append(new)
            if step == "double":
                model.hear(new)
    model.hear(model.last_beat())
    for _ in range(100):
        model.answer(5)
    assert model.recovery.wanted is None, "the end is reached"
    _assert_tiles(model, written[: model.published], start)


@settings(max_examples=200)
@given(histories(), st.data())
@pytest.mark.slow
def test_whatever_a_stranger_publishes_the_rest_after_retractions_covers_the_history(
    written: list[Quote], data: st.DataObject
) -> None:
    assume(written)
    start = data.draw(st.sampled_from(written))
    model = Model(Recovery(COIN, start.position), written)
    model.published = written.index(start) + 1
    for step in data.draw(st.lists(st.sampled_from(STEPS[:-2] + STRANGE), min_size=20, max_size=60)):
        if step == "answer":
            model.answer(data.draw(st.integers(1, 5)))
        elif step == "foreign":
            model.hear_foreign(data)
        elif step == "dismiss":
            model.dismiss()
        elif step == "pardon":
            model.recovery.dismissals.pardon()
        elif step == "beat":
            model.hear(model.last_beat())
        elif (line := model.publish()) is not None and step != "drop":
            model.hear(line)
    model.published = len(written)
    for line in written:
        model.hear(line)  # what is false shows when the true one comes
    for _ in range(3):
        for _ in range(100):
            model.answer(5)
        model.dismiss()
        model.recovery.dismissals.pardon()
        model.hear(model.last_beat())
    assert model.recovery.wanted is None, "the end is reached"
    shown: list[Quote] = []
    for event in model.events:
        if isinstance(event, QuoteReceived):
            shown.append(event.quote)
        elif isinstance(event, Retracted):
            shown = [one for one in shown if event.gap.after is not None and one.position <= event.gap.after]
    assert shown == written[written.index(start) + 1 :]


def _assert_tiles(model: Model, published: list[Quote], start: Quote | None) -> None:
    got = [event.quote for event in model.events if isinstance(event, QuoteReceived)]
    lost = [event.gap for event in model.events if isinstance(event, GapLost)]
    assert got == sorted(set(got), key=lambda one: one.position), "each once, in order"
    if start is not None:
        after: Position | None = start.position
    elif got or lost:
        after = min(
            ([got[0].before] if got else []) + ([lost[0].after] if lost else []), key=lambda p: p or Position(0, 0)
        )
    else:
        return  # it began behind the last
    owed = [held.position for held in published if after is None or held.position > after]
    missing = [p for gap in lost for p in owed if (gap.after is None or gap.after < p) and p <= gap.through]
    assert sorted(missing + [held.position for held in got]) == owed
