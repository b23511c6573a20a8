"""The audit's pure parts: the chain finds whatever is removed, added or altered; homes are judged; results printed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import groupby, pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cotacoes.admin.audit import Audit
from cotacoes.admin.audit_rules import standing
from cotacoes.admin.audit_snapshot import CoinAudit
from cotacoes.cli.audit import coin_json, coin_lines, verdict_line
from cotacoes.model.quote import Position
from cotacoes.patterns.sharding.ledger_chain import LedgerChain, total_breaches
from cotacoes.patterns.sharding.ledger_facts import (
    Breach,
    CandleTotal,
    CoinCopy,
    Content,
    CopyState,
    DayRow,
    Discontinuity,
    Piece,
    StoredDay,
)
from cotacoes.patterns.sharding.shard import Home

FIRST_DAY = date(2026, 11, 24)
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Row:
    """One quote, of which the chain's facts are made; `number` is its place in the true history."""

    position: Position
    day: int
    number: int
    price: int = 1

    @property
    def at(self) -> datetime:
        return NOON + timedelta(days=self.day, seconds=self.number)


@dataclass
class Ledger:
    """A history whose first `dropped` days are only manifests."""

    rows: list[Row]
    predecessors: dict[int, Position]
    manifests: dict[int, DayRow]
    fence: CoinCopy
    dropped: int
    holes: dict[Position, Position | None] = field(default_factory=dict)

    @property
    def held(self) -> list[Row]:
        return [row for row in self.rows if row.day >= self.dropped]

    def breaches(self, held: Iterable[Row]) -> list[Breach]:
        """What the chain returns if these rows are held."""
        chain = LedgerChain(self.predecessors, self.holes)
        by_day = {day: sorted(rows, key=lambda row: row.position) for day, rows in grouped(held).items()}
        found: list[Breach] = []
        for day in sorted({*by_day, *self.manifests}):
            rows = by_day.get(day, [])
            manifest = self.manifests.get(day)
            stored = StoredDay(FIRST_DAY + timedelta(days=day), manifest, pieces(rows), steps(rows), content(rows))
            found += chain.add(stored)
        return [*found, *chain.end(self.fence)]


def grouped(rows: Iterable[Row]) -> dict[int, list[Row]]:
    days: dict[int, list[Row]] = {}
    for row in rows:
        days.setdefault(row.day, []).append(row)
    return days


def pieces(rows: Sequence[Row]) -> list[Piece]:
    epochs = [[*held] for _, held in groupby(rows, key=lambda row: row.position.epoch)]
    return [Piece(held[0].position, held[-1].position, len(held), max(row.at for row in held)) for held in epochs]


def steps(rows: Sequence[Row]) -> list[Discontinuity]:
    return [
        Discontinuity(one.position, one.at, two.position, two.at)
        for one, two in pairwise(rows)
        if two.at < one.at or (one.position.epoch == two.position.epoch and two.position.seq - one.position.seq != 1)
    ]


def content(rows: Sequence[Row]) -> Content | None:
    if not rows:
        return None
    digest = sum(hash((row.position, row.price)) for row in rows)
    return Content(len(rows), Decimal(sum(row.price for row in rows)), Decimal(digest))


def manifest_of(rows: Sequence[Row], *, is_sealed: bool, is_dropped: bool) -> DayRow:
    return DayRow(
        day=FIRST_DAY + timedelta(days=rows[0].day),
        first=rows[0].position,
        last=rows[-1].position,
        count=len(rows),
        manifest=content(rows) if is_sealed else None,
        dropped_at=NOON if is_dropped else None,
    )


def fence_of(floor: Position | None, last: Position | None, last_at: datetime | None) -> CoinCopy:
    return CoinCopy(1, "open", 1, floor=floor, last=last, last_at=last_at)


@st.composite
def ledgers(draw: st.DrawFn) -> Ledger:
    """Epochs of a few quotes over a few days, some of which are sealed and the first perhaps dropped."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=6))
    rows: list[Row] = []
    predecessors: dict[int, Position] = {}
    epoch = day = 0
    for size in sizes:
        epoch += draw(st.integers(1, 3))
        if rows:
            predecessors[epoch] = rows[-1].position
        for seq in range(1, size + 1):
            day += draw(st.sampled_from([0, 0, 0, 1, 2]))
            rows.append(Row(Position(epoch, seq), day, len(rows)))
    days = grouped(rows)
    dropped = draw(st.sampled_from([0, *days]))
    sealed = draw(st.integers(dropped, day))
    manifests = {day: manifest_of(rows, is_sealed=day < sealed, is_dropped=day < dropped) for day, rows in days.items()}
    held = [row for row in rows if row.day >= dropped]
    fence = fence_of(held[0].position, rows[-1].position, rows[-1].at)
    return Ledger(rows, predecessors, manifests, fence, dropped)


@st.composite
def holed_ledgers(draw: st.DrawFn) -> Ledger:
    """The same with at least one noted hole of quotes that could no longer be stored."""
    whole = draw(ledgers())
    lost = draw(st.sets(st.sampled_from(range(len(whole.rows))), min_size=1))
    rows = [row for row in whole.rows if row.number not in lost]
    assume(rows)
    previous = [None, *(row.position for row in rows)]
    holes = {
        row.position: before
        for row, before in zip(rows, previous, strict=False)
        if before != (whole.rows[row.number - 1].position if row.number else None)
    }
    assume(holes)
    firsts = {row.position.epoch for row in rows if row.position.seq == 1}
    days = grouped(rows)
    dropped = draw(st.sampled_from([0, *days]))
    manifests = {
        day: manifest_of(held, is_sealed=day <= dropped, is_dropped=day < dropped) for day, held in days.items()
    }
    fence = fence_of(next(row.position for row in rows if row.day >= dropped), rows[-1].position, rows[-1].at)
    predecessors = {epoch: prev for epoch, prev in whole.predecessors.items() if epoch in firsts}
    return Ledger(rows, predecessors, manifests, fence, dropped, holes)


def pick(draw: st.DataObject, rows: Sequence[Row]) -> Row:
    return draw.draw(st.sampled_from(rows))


@given(ledgers())
def test_a_whole_history_has_no_breach(ledger: Ledger) -> None:
    assert ledger.breaches(ledger.held) == []


@given(ledgers())
def test_quotes_of_dropped_days_that_are_not_erased_yet_are_no_breach(ledger: Ledger) -> None:
    assert ledger.breaches(ledger.rows) == []


@pytest.mark.slow
@given(holed_ledgers(), st.booleans())
def test_a_history_with_noted_holes_has_no_breach(ledger: Ledger, erased: bool) -> None:
    assert ledger.breaches(ledger.held if erased else ledger.rows) == []


@given(holed_ledgers(), st.data())
@pytest.mark.slow
def test_a_hole_that_was_not_noted_or_was_noted_elsewhere_is_found(ledger: Ledger, data: st.DataObject) -> None:
    behind = data.draw(st.sampled_from(sorted(ledger.holes)))
    after = ledger.holes.pop(behind)
    assert ledger.breaches(ledger.held) != []
    other = data.draw(st.sampled_from([None, *(row.position for row in ledger.rows if row.position < behind)]))
    assume(other != after)
    ledger.holes[behind] = other
    assert ledger.breaches(ledger.held) != []


@pytest.mark.slow
@given(ledgers(), st.data())
def test_a_noted_hole_at_which_nothing_is_missing_is_found(ledger: Ledger, data: st.DataObject) -> None:
    row = pick(data, ledger.rows)
    before = ledger.rows[row.number - 1].position if row.number else None
    assume(before is not None)
    ledger.holes[row.position] = before
    ledger.predecessors.pop(row.position.epoch, None)
    ledger.holes[Position(row.position.epoch, row.position.seq + 99)] = row.position
    assert ledger.breaches(ledger.held) != []


@given(ledgers(), st.data(), st.booleans())
def test_any_missing_run_of_quotes_is_found_even_if_the_day_rows_omit_it(
    ledger: Ledger, data: st.DataObject, forgotten: bool
) -> None:
    first, last = sorted((pick(data, ledger.held).number, pick(data, ledger.held).number))
    left = [row for row in ledger.held if not first <= row.number <= last]
    if forgotten:
        kept = {day: one for day, one in ledger.manifests.items() if one.is_dropped}
        ledger.manifests = kept | {
            day: manifest_of(rows, is_sealed=False, is_dropped=False) for day, rows in grouped(left).items()
        }
    assert ledger.breaches(left) != []


@given(ledgers(), st.data())
def test_one_missing_quote_is_named(ledger: Ledger, data: st.DataObject) -> None:
    """The quote after it names it, or the fence if there is none."""
    gone = pick(data, ledger.held)
    after = next((row for row in ledger.rows if row.number == gone.number + 1), None)
    found = ledger.breaches([row for row in ledger.held if row != gone])
    places = {breach.place for breach in found if breach.what != "first position held"}
    if after is not None and after.position.seq != 1:
        assert str(after.position) in places
    elif after is not None:
        before = "none" if gone.number == 0 else str(ledger.rows[gone.number - 1].position)
        assert Breach(str(after.position), "position before its epoch", str(gone.position), before) in found
    else:
        assert "fence" in places


@pytest.mark.slow
@given(ledgers(), st.data())
def test_a_quote_that_is_on_two_days_is_found(ledger: Ledger, data: st.DataObject) -> None:
    double = pick(data, ledger.held)
    other = data.draw(st.sampled_from([*ledger.manifests, ledger.rows[-1].day + 1]))
    assume(other != double.day and other >= ledger.dropped)
    found = ledger.breaches([*ledger.held, replace(double, day=other)])
    assert found != []
    if other > double.day:
        named = [breach.place for breach in found if breach.what.startswith("position that should rise above")]
        assert str(double.position) in named


@pytest.mark.slow
@given(ledgers(), st.data())
def test_a_quote_at_a_position_that_was_never_assigned_is_found(ledger: Ledger, data: st.DataObject) -> None:
    epoch = pick(data, ledger.held).position.epoch
    last = [row for row in ledger.held if row.position.epoch == epoch][-1]
    given_to_none = Position(epoch, last.position.seq + 1)
    assert ledger.breaches([*ledger.held, replace(last, position=given_to_none)]) != []


@pytest.mark.slow
@given(ledgers(), st.data())
def test_another_price_in_a_sealed_day_is_found(ledger: Ledger, data: st.DataObject) -> None:
    sealed = [row for row in ledger.held if ledger.manifests[row.day].manifest]
    assume(sealed)
    row = pick(data, sealed)
    found = ledger.breaches([replace(one, price=2) if one == row else one for one in ledger.held])
    assert {breach.place for breach in found} == {str(FIRST_DAY + timedelta(days=row.day))}
    assert {breach.what for breach in found} == {"sum of the sealed day", "digest of the sealed day"}


@pytest.mark.slow
@given(ledgers(), st.data())
def test_a_wrong_or_missing_day_row_is_found(ledger: Ledger, data: st.DataObject) -> None:
    day = data.draw(st.sampled_from(sorted(ledger.manifests)))
    true = ledger.manifests.pop(day)
    assert ledger.breaches(ledger.held) != []
    beyond = Position(true.last.epoch, true.last.seq + 1)
    for false in (
        replace(true, count=true.count + 1),
        replace(true, last=beyond),
        replace(true, first=beyond),
        replace(true, dropped_at=None if true.is_dropped else NOON),
    ):
        ledger.manifests[day] = false
        assert ledger.breaches(ledger.held) != [], false


@pytest.mark.slow
@given(ledgers(), st.data())
def test_an_epoch_with_a_wrong_or_missing_predecessor_is_found(ledger: Ledger, data: st.DataObject) -> None:
    assume(ledger.predecessors)
    epoch = data.draw(st.sampled_from(sorted(ledger.predecessors)))
    is_held = Position(epoch, 1) in {row.position for row in ledger.held}  # otherwise the count of its day shows it
    true = ledger.predecessors.pop(epoch)
    assert ledger.breaches(ledger.held) != []
    for false in (Position(true.epoch, true.seq + 1), Position(true.epoch - 1, true.seq), Position(epoch, 1)):
        ledger.predecessors[epoch] = false
        found = ledger.breaches(ledger.held)
        assert f"{epoch}-1" in {breach.place for breach in found} if is_held else found


@given(ledgers())
def test_an_epoch_without_quotes_and_a_predecessor_of_the_first_epoch_are_found(ledger: Ledger) -> None:
    last = ledger.rows[-1].position
    ledger.predecessors[last.epoch + 1] = last
    assert [breach.place for breach in ledger.breaches(ledger.held)] == [f"{last.epoch + 1}-1"]
    del ledger.predecessors[last.epoch + 1]
    first = ledger.rows[0].position.epoch
    ledger.predecessors[first] = Position(0, 7)
    assert [breach.place for breach in ledger.breaches(ledger.held)] == [f"{first}-1"]


@given(ledgers())
def test_a_wrong_fence_is_found(ledger: Ledger) -> None:
    true = ledger.fence
    assert true.last is not None
    assert true.last_at is not None
    beyond = Position(true.last.epoch, true.last.seq + 1)
    for false in (
        replace(true, last=beyond),
        replace(true, last=None),
        replace(true, last_at=true.last_at + timedelta(seconds=1)),
        replace(true, last_at=None),
        replace(true, floor=beyond),
        replace(true, floor=None),
    ):
        ledger.fence = false
        assert [breach.place for breach in ledger.breaches(ledger.held)] == ["fence"]


def test_the_fence_of_a_coin_without_quotes_must_be_empty() -> None:
    assert LedgerChain({}).end(fence_of(None, None, None)) == []
    assert [breach.what for breach in LedgerChain({}).end(fence_of(Position(5, 1), Position(5, 1), NOON))] == [
        "last position",
        "time of the last position",
        "first position held",
    ]


def test_a_time_that_falls_is_named_with_both_times() -> None:
    rows = [Row(Position(5, 1), 0, 1), Row(Position(5, 2), 0, 0)]
    found = LedgerChain({}).add(StoredDay(FIRST_DAY, None, pieces(rows), steps(rows)))
    assert str(found[-1]) == (
        "5-2  time, which falls after 5-1: 2026-11-24T12:00:00.000000Z, not 2026-11-24T12:00:01.000000Z or later"
    )


def test_more_rows_than_positions_are_found_without_a_discontinuity() -> None:
    found = LedgerChain({}).add(StoredDay(FIRST_DAY, None, [Piece(Position(5, 1), Position(5, 4), 5, NOON)]))
    assert Breach("2026-11-24", "number of positions from 5-1 to 5-4", "5", "4") in found


def test_the_candles_of_a_dropped_day_add_up_to_its_manifest() -> None:
    row = DayRow(
        FIRST_DAY,
        Position(5, 1),
        Position(5, 4),
        4,
        Content(4, Decimal(10), Decimal(0)),
        sealed_at=NOON,
        dropped_at=NOON,
    )
    right = [CandleTotal(1, 3, 4, Decimal("10.00")), CandleTotal(60, 1, 4, Decimal(10))]
    assert [*total_breaches(row, right)] == []
    assert [breach.what for breach in total_breaches(row, right[:1])] == [
        "quotes of the candles of 60 min",
        "sum of the candles of 60 min",
    ]
    wrong = [CandleTotal(1, 3, 4, Decimal(11)), CandleTotal(60, 1, 3, Decimal(10))]
    assert [breach.what for breach in total_breaches(row, wrong)] == [
        "sum of the candles of 1 min",
        "quotes of the candles of 60 min",
    ]


def fence(state: CopyState, placement: int, *, moved_to: str | None = None, coin_id: int = 1) -> CoinCopy:
    return CoinCopy(coin_id, state, placement, moved_to=moved_to)


def judge(
    entry: Home | None, fences: Mapping[str, CoinCopy], away: Iterable[str] = ()
) -> tuple[str | None, str | None, list[str]]:
    found = standing(entry, fences, away=set(away), directory_shard="shard1")
    return found.home, found.away, [f"{shard} {breach}" for shard, breach in found.breaches]


MOVED = {"shard1": fence("moved", 1, moved_to="shard2"), "shard2": fence("open", 2)}


@pytest.mark.parametrize(
    ("entry", "fences", "expected"),
    [
        (Home(1, "shard1", 1), {"shard1": fence("open", 1)}, []),
        (Home(1, "shard1", 1), {"shard1": fence("closed", 1), "shard2": fence("incoming", 2)}, []),
        (Home(1, "shard2", 2), MOVED, []),
        (Home(1, "shard1", 1), MOVED, ["directory  shard: shard1, not shard2", "directory  placement: 1, not 2"]),
        (Home(2, "shard2", 2), MOVED, ["directory  id of the coin: 2, not 1"]),
        (None, MOVED, ["directory  entry: none, not one for shard2, placement 2"]),
        (
            Home(1, "shard2", 2),
            {"shard1": fence("closed", 1), "shard2": fence("open", 2)},
            ["fence  state beside the home: closed, not moved to shard2"],
        ),
        (
            Home(1, "shard2", 1),
            {"shard1": fence("open", 1), "shard2": fence("open", 1)},
            ["fence  state beside the home: open, not moved to shard2"],
        ),
        (Home(1, "shard1", 1), {}, ["fence  home of the coin: none, not one open fence"]),
        (
            Home(1, "shard1", 1),
            {"shard1": fence("moved", 1, moved_to="shard2")},
            ["fence  home of the coin: none, not one open fence"],
        ),
        (
            None,
            {"shard1": fence("incoming", 2)},
            ["fence  home of the coin: none, not one open fence", "directory  entry: none, not one"],
        ),
        (
            Home(1, "shard2", 2),
            {"shard1": fence("moved", 2, moved_to="shard2"), "shard2": fence("open", 2)},
            ["fence  placement of a copy that moved: 2, not less than 2, the home's"],
        ),
        (
            Home(1, "shard2", 2),
            {"shard1": fence("moved", 1, moved_to="shard2", coin_id=3), "shard2": fence("open", 2)},
            ["fence  id of the coin: 3, not 1"],
        ),
    ],
)
def test_a_coin_has_one_home_and_the_directory_knows_it(
    entry: Home | None, fences: dict[str, CoinCopy], expected: list[str]
) -> None:
    assert [line.partition(" ")[2] for line in judge(entry, fences)[2]] == expected


def test_a_coin_whose_home_may_be_on_an_absent_shard_is_not_judged() -> None:
    assert judge(Home(1, "shard2", 2), {}, ["shard2"]) == (None, "shard2", [])
    assert judge(None, {"shard2": fence("moved", 1, moved_to="shard1")}, ["shard1"]) == (None, "shard1", [])
    assert judge(Home(1, "shard2", 2), MOVED, ["shard3"]) == ("shard2", None, [])


def test_the_audit_prints_a_line_for_each_coin_each_breach_and_each_note() -> None:
    right = CoinAudit("bitcoin", "shard1", 2, 3, 0, 12_345, 1_234, pending=12)
    assert [*coin_lines(right)] == ["bitcoin  shard1  2 epochs, 3 days, 12,345 quotes, 1,234 candles  ok, 12 pending"]
    wrong = CoinAudit("ethereum", "shard2", 1, 1, 1, 1, 1, conflicts=1, notes=[("shard1", "a copy")])
    wrong.add("shard2", [Breach("5-3", "position after 5-1", "5-3", "5-2")], 7)
    assert [*coin_lines(wrong)] == [
        (
            "ethereum  shard2  1 epoch, 1 day (1 dropped), 1 quote, 1 candle  "
            "7 wrong, pending unknown, 1 conflict kept aside"
        ),
        "ethereum  shard2  wrong  5-3  position after 5-1: 5-3, not 5-2",
        "ethereum  shard2  wrong  and 6 more",
        "ethereum  shard1  noted  a copy",
    ]
    away = CoinAudit("solana", away="shard3 is not reachable")
    assert [*coin_lines(away)] == ["solana  -  not audited: shard3 is not reachable"]
    fields = coin_json(wrong)
    assert (fields["type"], fields["coin"], fields["wrong"], fields["pending"]) == ("audit", "ethereum", 7, None)
    assert fields["breaches"] == [
        {"shard": "shard2", "place": "5-3", "what": "position after 5-1", "found": "5-3", "wanted": "5-2"}
    ]


def test_the_verdict_names_the_worst_first_and_calls_nothing_right_that_was_not_read() -> None:
    right = CoinAudit("bitcoin", "shard1", 2, 3, 0, 10, 4, pending=12)
    wrong = CoinAudit("ethereum", "shard2", 1, 1, 0, 1, 1)
    wrong.add("shard2", [Breach("5-3", "position after 5-1", "5-3", "5-2")])
    audit = Audit(shards=2)
    audit.add(right)
    assert (audit.verdict, verdict_line(audit)) == (
        "right",
        "nothing is wrong: 10 quotes and 4 candles of 1 coin, on 2 shards; 12 pending",
    )
    audit.away = {"shard3": "shard3 is not reachable"}
    assert (audit.verdict, verdict_line(audit)) == (
        "incomplete",
        (
            "the audit is not complete: shard3 is not reachable; nothing is wrong in the rest: "
            "10 quotes and 4 candles of 1 coin; 12 pending"
        ),
    )
    audit.add(wrong)
    assert (audit.verdict, verdict_line(audit)) == (
        "wrong",
        (
            "1 thing wrong, in ethereum: of 11 quotes and 5 candles of 2 coins; 12 pending; "
            "what is pending is unknown for 1 coin, as quote_service does not say; "
            "the audit is not complete: shard3 is not reachable"
        ),
    )
