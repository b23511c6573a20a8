"""The tape: every price of the source, in order, once; instead of the poll, where no price may be lost.

    cursor ──▶ fetch a page after it ──▶ screen ──▶ record, the cursor in the same commit ──▶ hand on

The cursor of each coin stands in the log, so after a restart the tape is asked from the lowest one, and what a coin has
already is skipped. What the tape can not give any more is a source gap: noted in the log, counted, and said. Taking
waits for the publisher, which never waits for long, and for nobody else: a shard that is away holds nothing up.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol, Self

from cotacoes.errors import LogUnavailableError, SettingError, SourceError, SourceGoneError
from cotacoes.model.quote import Observation, Position, Quote
from cotacoes.observability.logs import get_logger
from cotacoes.observability.metrics import QuoteMetrics
from cotacoes.patterns.resilience import CircuitOpenError, ResiliencePolicy
from cotacoes.quote_service.history import CoinHistory
from cotacoes.quote_service.publisher import Publisher
from cotacoes.quote_service.recent_prices import RecentPrices
from cotacoes.quote_service.recorder import Recorder
from cotacoes.quote_service.source_tape import STEP_PRICES, TapePage
from cotacoes.quote_service.validation import Refusals, Validator

PAGE_QUOTES = 4_000  # gains nothing beyond; two of them find room in a publish queue
PAUSE_S = 0.05  # between two pages of which the first was not full, so that a trickle does not become a flood of calls
WAIT_S = 1.0  # the source may wait so long for something new


class Tape(Protocol):
    """Where the prices come from."""

    async def after(self, cursor: str | None, limit: int, wait_s: float) -> TapePage:
        """The prices after a cursor (None: from the first); SourceError where there is no answer."""


class Cursor(NamedTuple):
    """`RUN-INDEX`: of the run the prices up to this index are dealt with."""

    run: str
    number: int

    def __str__(self) -> str:
        return f"{self.run}-{self.number}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """ValueError where it is none."""
        run, _, index = text.rpartition("-")
        return cls(run, int(index))


class TapeTaker:
    """Takes the tape; `live` are the coins of which the last page, or one before it in this run, brought a price."""

    def __init__(
        self,
        tape: Tape,
        calls: ResiliencePolicy,
        screen: Validator,
        recorder: Recorder,
        publisher: Publisher,
        metrics: QuoteMetrics,
        *,
        interval_s: float,
        keeps_times: bool,
        now: Callable[[], datetime],
        on_recorded: Callable[[list[Quote]], None],
    ) -> None:
        self.live: frozenset[str] = frozenset()
        self._tape = tape
        self._calls = calls
        self._screen = screen
        self._recorder = recorder
        self._publisher = publisher
        self._metrics = metrics
        self._interval_s = interval_s
        self._keeps_times = keeps_times
        self._now = now
        self._on_recorded = on_recorded
        self.refusals = Refusals(recorder.histories, metrics)
        self._told: frozenset[str] = frozenset()  # the coins that this run has brought so far

    async def run(self) -> None:
        """Take until cancelled; SettingError where the tape's own times can not follow what is stored."""
        while True:
            try:
                pause_s = await self.take_page()
            except (SourceError, CircuitOpenError, TimeoutError, LogUnavailableError):
                self.live = frozenset()  # counted and logged where it failed
                pause_s = self._interval_s
            await asyncio.sleep(pause_s)

    async def take_page(self) -> float:
        """Take the next page; how many seconds to wait before the one after it."""
        await self._recorder.ensure_open()
        able = [history for history in self._recorder.histories.values() if history.can_draft]
        if not able:
            return self._interval_s
        _refuse_unknown_beginning(able)
        cursor = _lowest_cursor(able)
        limit = min(PAGE_QUOTES, *(history.room for history in able))
        try:
            after = None if cursor is None else str(cursor)
            answer = await self._calls.call(lambda: self._tape.after(after, limit, WAIT_S), idempotent=True)
        except SourceGoneError as gone:
            await self._go_on_from(cursor, _parsed(gone.cursor))
            return 0.0
        page = answer.value
        following = _parsed(page.next)
        is_first = cursor is None or cursor.number == 0 or cursor.run != page.run
        if self._keeps_times and page.entries and is_first:
            beginning = [history for history in able if _index_in(page.run, history.cursor) == 0]
            _refuse_later(beginning, page.entries[0][1])
        if cursor is not None and page.first > cursor.number + 1:
            await self._note_gap(cursor, Cursor(following.run, page.first - 1))
        accepted = await self._judge(page, able)
        recorded = await self._recorder.record(accepted, _cursors(able, following))
        self._told |= {quote.coin for quote in recorded}
        self.live = self._told
        if recorded:
            self._on_recorded(recorded)
            await self._publisher.wait_room(PAGE_QUOTES)
        return 0.0 if page.count == limit else PAUSE_S

    async def _go_on_from(self, cursor: Cursor | None, following: Cursor) -> None:
        if cursor is not None:
            if cursor.run == following.run:
                raise SourceError("the source has forgotten its own run")  # to go back in it would record twice
            await self._note_gap(cursor, following)
        for history in self._recorder.histories.values():
            history.cursor = str(following)
        self._told = frozenset()

    async def _note_gap(self, cursor: Cursor, following: Cursor) -> None:
        await self._recorder.note_source_gap(str(cursor), str(following))
        self._metrics.source_gaps.inc()
        get_logger().warning("source.gapped", after=str(cursor), next=str(following))

    async def _judge(self, page: TapePage, able: Sequence[CoinHistory]) -> Mapping[str, list[Observation]]:
        """What is to be recorded of the coins that can be: what they have already is skipped, poison is refused."""
        now = self._now()
        refused = Counter(page.rejected)
        facts: dict[tuple[str, str], Mapping[str, str]] = {}
        had = {history.coin: _index_in(page.run, history.cursor) for history in able}
        recents: dict[str, RecentPrices] = {}  # with what this page adds
        accepted: dict[str, list[Observation]] = {coin: [] for coin in had}
        for number, (index, observation) in enumerate(page.entries):
            if number % STEP_PRICES == 0:
                await asyncio.sleep(0)
            coin = observation.coin
            if coin in self._recorder.histories and (coin not in had or index <= had[coin]):
                continue
            recent = recents.get(coin)
            if recent is None and coin in had:
                recent = recents[coin] = self._recorder.histories[coin].recent.copy()
            refusal = self._screen.judge(observation, recent, now)
            if recent is not None and refusal is None:
                accepted[coin].append(observation)
                recent.add(observation, recent.recorded_at(observation.observed_at, now))
            elif refusal is not None:
                refused[coin, refusal.reason] += 1
                facts[coin, refusal.reason] = refusal.facts
        self.refusals.count(refused, facts, unknown=page.unknown)
        return accepted


def _lowest_cursor(able: Sequence[CoinHistory]) -> Cursor | None:
    """Of the coins that can record now, in the run that was taken last; a coin that was not there has nothing of it.

    A coin that can not record yet is not waited for: it catches up from its own cursor, and the others skip what they
    have.
    """
    taken = [history for history in able if history.cursor is not None]
    if not taken:
        return None
    newest = max(taken, key=lambda history: history.position or Position(0, 0))
    run = _parsed(newest.cursor or "").run
    return Cursor(run, min(_index_in(run, history.cursor) for history in able))


def _cursors(able: Sequence[CoinHistory], following: Cursor) -> dict[str, str]:
    """How far each coin has come with a page that leads up to `following`: where it was further, it stays there."""
    return {
        history.coin: str(following) for history in able if _index_in(following.run, history.cursor) < following.number
    }


def _parsed(text: str) -> Cursor:
    try:
        return Cursor.parse(text)
    except ValueError as error:
        raise SourceError("the source gives a cursor that is none") from error


def _index_in(run: str, cursor: str | None) -> int:
    """How far this cursor has come in the run; 0 where it is of another."""
    if cursor is None:
        return 0
    taken = _parsed(cursor)
    return taken.number if taken.run == run else 0


def _refuse_unknown_beginning(able: Sequence[CoinHistory]) -> None:
    """SettingError for a coin with quotes and without a cursor: nobody knows which of the tape's prices it has."""
    for history in able:
        if history.newest is not None and history.cursor is None:
            raise SettingError(
                f"COTACOES_SOURCE_MODE=tape begins with an empty history, and {history.coin} has quotes that no tape "
                "brought: set --data to another folder, or COTACOES_SOURCE_MODE=latest"
            )


def _refuse_later(histories: Iterable[CoinHistory], first: Observation) -> None:
    for newest in (history.newest for history in histories):
        if newest is not None and newest.at > first.observed_at:
            raise SettingError(
                f"COTACOES_REPLAY_TIMES=original: {newest.coin} has quotes up to {newest.at:%Y-%m-%d %H:%M:%S}, later "
                f"than the recording's first of {first.observed_at:%Y-%m-%d %H:%M:%S}: set --data to another folder"
            )
