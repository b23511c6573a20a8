"""The tape: every price of the playback session, by its index, a page at a time; the answer of `GET /quotes`.

A poll of `/quote` sees only the newest price. A client that must miss none asks for pages here, each after the cursor
of the page before.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from cotacoes.errors import BadRequestError, CursorGoneError
from cotacoes.external_service.playback_session import PlaybackSession, parse_cursor
from cotacoes.model.payloads import SourcePageJson, SourcePriceJson
from cotacoes.model.quote import Observation, agreement_fields, format_price, format_time

POLL_S_MAX = 0.25  # how often the tape is asked for a price whose time is not known yet


class Tape(Protocol):
    """The prices of a session by their indices 1, 2, 3 …"""

    async def after(self, index: int, limit: int) -> list[tuple[int, Observation]]:
        """The prices after `index` whose time has come, in order; LookupError if the tape ends before `index`."""
        ...

    def next_due_s(self) -> float:
        """In how many seconds there is more than in the last answer; infinite if that is not known."""
        ...


class TapePages:
    """Pages of one session's tape; `origin` is that of all its prices."""

    def __init__(self, session: PlaybackSession, tape: Tape, origin: str) -> None:
        self._session = session
        self._tape = tape
        self._origin = origin

    async def page(self, after: str | None, limit: int, wait_s: float) -> SourcePageJson:
        """The prices after a cursor (None: from the first), for which it waits up to `wait_s` if there are none yet.

        CursorGoneError if the cursor is of another session.
        """
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
        prices = [
            SourcePriceJson(
                number,
                one.coin,
                one.currency,
                format_price(one.price),
                format_time(one.observed_at),
                **agreement_fields(one.agreement),
            )
            for number, one in found
        ]
        following = self._session.cursor(found[-1][0] if found else index)
        return SourcePageJson(self._session.name, self._origin, prices, following)

    def _index(self, after: str | None) -> int:
        if after is None:
            return 0
        try:
            name, index = parse_cursor(after)
        except ValueError as error:
            raise BadRequestError(f"after: {error}") from error
        if name != self._session.name:
            raise self._gone()
        return index

    def _gone(self) -> CursorGoneError:
        return CursorGoneError("the cursor belongs to another run", first=1, next=self._session.cursor(0))
