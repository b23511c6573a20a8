"""The tape: every price of the source, in order and once. It takes the place of the poll if no price may be lost.

    cursor ──▶ fetch the page after it ──▶ validate ──▶ record, with the cursor in the same commit

Hands on each page to `Intake` (intake.py). Each coin's cursor is in the log, so after a restart the tape is read on
from the lowest one, and what a coin has already is skipped. Prices that the source no longer has are a source gap: it
is committed to the log, counted and logged. The tape waits for the publisher, which never waits for long, and for
nothing else: a shard that is away does not hold it up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol, Self

from cotacoes.errors import LogUnavailableError, SettingError, SourceError, SourceGoneError
from cotacoes.model.quote import Observation, Position
from cotacoes.observability.logs import get_logger
from cotacoes.observability.metrics import QuoteMetrics
from cotacoes.patterns.resilience import CircuitOpenError
from cotacoes.quote_service.history import CoinHistory
from cotacoes.quote_service.intake import Intake
from cotacoes.quote_service.source_pages import TapePage

PAGE_QUOTES = 4_000  # gains nothing beyond; two pages fit into a publish queue
PAUSE_S = 0.05  # after a page that was not full, so that a trickle of prices does not become a flood of calls
WAIT_S = 1.0  # how long the source may wait for a new price


class TapeSource(Protocol):
    """A source of every price."""

    async def after(self, cursor: str | None, limit: int, wait_s: float) -> TapePage:
        """The prices after a cursor (None: from the first); SourceError if there is no answer."""


class TapeCursor(NamedTuple):
    """`RUN-INDEX`: the prices of the run up to this index have been read."""

    run: str
    number: int

    def __str__(self) -> str:
        return f"{self.run}-{self.number}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """SourceError if the text is no cursor."""
        run, _, index = text.rpartition("-")
        try:
            return cls(run, int(index))
        except ValueError as error:
            raise SourceError("the source gives an invalid cursor") from error


class TapeReader:
    """Reads the tape of one source; `run` is its task.

    `keeps_times`: quotes bear the times that were recorded. `is_live`: the tape begins at now, so a coin without a
    cursor in it joins the others at theirs, whatever it has from elsewhere.
    """

    def __init__(
        self,
        tape: TapeSource,
        intake: Intake,
        metrics: QuoteMetrics,
        *,
        interval_s: float,
        keeps_times: bool = False,
        is_live: bool = False,
    ) -> None:
        self._tape = tape
        self._intake = intake
        self._recorder = intake.recorder
        self._metrics = metrics
        self._interval_s = interval_s
        self._keeps_times = keeps_times
        self._is_live = is_live
        self._seen: frozenset[str] = frozenset()  # the coins that this run has brought so far

    async def run(self) -> None:
        """Read until cancelled; SettingError if the tape's own times cannot follow what is stored."""
        while True:
            try:
                pause_s = await self.read_page()
            except (SourceError, CircuitOpenError, TimeoutError, LogUnavailableError):
                self._intake.note_live((), {})  # counted and logged already
                pause_s = self._interval_s
            await asyncio.sleep(pause_s)

    async def read_page(self) -> float:
        """Read the next page; returns how many seconds to wait before the one after it."""
        await self._recorder.ensure_open()
        able = [history for history in self._recorder.histories.values() if history.can_draft]
        if not able:
            return self._interval_s
        if not self._is_live:
            _refuse_unknown_beginning(able)
        cursor = _lowest_cursor(able, is_live=self._is_live)
        limit = min(PAGE_QUOTES, *(history.room for history in able))
        after = None if cursor is None else str(cursor)
        try:
            page = await self._intake.call(lambda: self._tape.after(after, limit, WAIT_S))
        except SourceGoneError as gone:
            await self._go_on_from(cursor, TapeCursor.parse(gone.cursor))
            return 0.0
        following = TapeCursor.parse(page.next)
        self._refuse_earlier(page, cursor, able)
        if cursor is not None and page.first > cursor.number + 1:
            await self._note_gap(cursor, TapeCursor(following.run, page.first - 1))
        await self._record(page, following, able)
        # a live source has waited already, and its prices are late by every pause
        return 0.0 if page.count == limit or (self._is_live and page.count) else PAUSE_S

    async def _record(self, page: TapePage, following: TapeCursor, able: Sequence[CoinHistory]) -> None:
        accepted, _ = await self._intake.validate(self._new_prices(page, able), page.unreadable, page.unknown)
        cursors = {
            history.coin: str(following)  # a coin that was further stays there
            for history in able
            if _index_in(following.run, history.cursor) < following.number
        }
        recorded = await self._intake.record(accepted, cursors)
        self._seen |= {quote.coin for quote in recorded}
        self._intake.note_live(self._seen - page.reasons.keys(), page.reasons)
        if recorded:
            await self._intake.wait_room(PAGE_QUOTES)

    def _new_prices(self, page: TapePage, able: Sequence[CoinHistory]) -> Iterable[Observation]:
        """The prices of the page, except those that a coin has already and those of a coin that cannot record now."""
        had = {history.coin: _index_in(page.run, history.cursor) for history in able}
        for index, observation in page.entries:
            coin = observation.coin
            if coin not in self._recorder.histories or (coin in had and index > had[coin]):
                yield observation

    async def _go_on_from(self, cursor: TapeCursor | None, following: TapeCursor) -> None:
        if cursor is not None:
            if cursor.run == following.run:
                raise SourceError("the source has forgotten its own run")  # to go back in it would record twice
            await self._note_gap(cursor, following)
        for history in self._recorder.histories.values():
            history.note_cursor(str(following))
        self._seen = frozenset()

    async def _note_gap(self, cursor: TapeCursor, following: TapeCursor) -> None:
        await self._recorder.note_source_gap(str(cursor), str(following))
        self._metrics.source_gaps.inc()
        get_logger().warning("source.gapped", after=str(cursor), next=str(following))

    def _refuse_earlier(self, page: TapePage, cursor: TapeCursor | None, able: Sequence[CoinHistory]) -> None:
        """SettingError if a run that begins with this page bears times before those of a stored quote."""
        is_first = cursor is None or cursor.number == 0 or cursor.run != page.run
        if not (self._keeps_times and page.entries and is_first):
            return
        first = page.entries[0][1].observed_at
        for history in able:
            newest = history.newest if _index_in(page.run, history.cursor) == 0 else None
            if newest is not None and newest.at > first:
                raise SettingError(
                    f"COTACOES_REPLAY_TIMES=original: {newest.coin} has quotes up to {newest.at:%Y-%m-%d %H:%M:%S}, "
                    f"later than the recording's first of {first:%Y-%m-%d %H:%M:%S}: set --data to another folder"
                )


def _lowest_cursor(able: Sequence[CoinHistory], *, is_live: bool) -> TapeCursor | None:
    """The lowest of the coins that can record now, in the run that was read last; a coin new to that run is at 0.

    On a live tape, such a coin joins the others at their cursor.

    A coin that cannot record yet is not waited for: later it is read on from its own cursor, and the others skip what
    they have.
    """
    begun = [history for history in able if history.cursor is not None]
    if not begun:
        return None
    newest = max(begun, key=lambda history: history.position or Position(0, 0))
    run = TapeCursor.parse(newest.cursor or "").run
    indices = [_index_in(run, history.cursor) for history in able]
    return TapeCursor(run, min([index for index in indices if index or not is_live], default=0))


def _index_in(run: str, cursor: str | None) -> int:
    """How far this cursor has come in the run; 0 if it is of another."""
    if cursor is None:
        return 0
    read = TapeCursor.parse(cursor)
    return read.number if read.run == run else 0


def _refuse_unknown_beginning(able: Sequence[CoinHistory]) -> None:
    """SettingError for a coin with quotes and without a cursor: nobody knows which of the tape's prices it has."""
    for history in able:
        if history.newest is not None and history.cursor is None:
            raise SettingError(
                f"COTACOES_SOURCE_MODE=tape begins with an empty history, and {history.coin} has quotes that did not "
                "come from a tape: set --data to another folder, or COTACOES_SOURCE_MODE=latest"
            )
