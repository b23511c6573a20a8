"""The tape: every price of the run, by its index, a page at a time; the answer of `GET /quotes`.

A poll of `/quote` sees only the newest price. Whoever must lose none asks here, after the last cursor that it has dealt
with; where nothing is new yet, the answer waits for up to `wait_s` until something is.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from cotacoes.errors import BadRequestError, CursorGoneError
from cotacoes.external_service.playback_session import PlaybackSession, parse_cursor
from cotacoes.model.payloads import SourcePageJson, SourcePriceJson
from cotacoes.model.quote import Observation, format_price, format_time

PAGE_QUOTES_MAX = 10_000
WAIT_MS_MAX = 4_000  # below the deadline of a request
POLL_S_MAX = 0.25  # a next price whose time is not known yet is looked for this often


class Tape(Protocol):
    """Where the prices of a run are kept; indices count 1, 2, 3 …"""

    async def after(self, index: int, limit: int) -> list[tuple[int, Observation]]:
        """The prices after `index` whose time has come, in order; LookupError where the run ends before `index`."""
        ...

    def next_due_s(self) -> float:
        """In how many seconds there is more than the last answer held; infinite where nobody knows."""
        ...


class Pages(Protocol):
    """What answers `/quotes`."""

    async def page(self, after: str | None, limit: int, wait_s: float) -> SourcePageJson:
        """The prices after a cursor, or from the first; CursorGoneError where the cursor is of another run."""
        ...


class TapePages:
    """Pages of one run's tape, `origin` being that of all its prices."""

    def __init__(self, run: PlaybackSession, tape: Tape, origin: str) -> None:
        self._run = run
        self._tape = tape
        self._origin = origin

    async def page(self, after: str | None, limit: int, wait_s: float) -> SourcePageJson:
        """The prices after a cursor, or from the first; CursorGoneError where the cursor is of another run."""
        index = self._index(after)
        try:
            found = await self._tape.after(index, limit)
            loop = asyncio.get_running_loop()
            due = loop.time() + wait_s
            while not found and (left_s := due - loop.time()) > 0:
                await asyncio.sleep(min(max(0.001, self._tape.next_due_s()), POLL_S_MAX, left_s))
                found = await self._tape.after(index, limit)
        except LookupError as error:
            raise self._gone() from error
        entries = [
            SourcePriceJson(
                index, observed.coin, observed.currency, format_price(observed.price), format_time(observed.observed_at)
            )
            for index, observed in found
        ]
        return SourcePageJson(
            self._run.name, self._origin, entries, self._run.cursor(entries[-1].index if entries else index)
        )

    def _index(self, after: str | None) -> int:
        if after is None:
            return 0
        try:
            name, index = parse_cursor(after)
        except ValueError as error:
            raise BadRequestError(f"after: {error}") from error
        if name != self._run.name:
            raise self._gone()
        return index

    def _gone(self) -> CursorGoneError:
        return CursorGoneError("the cursor is of another run", first=1, next=self._run.cursor(0))
