"""The history as a source for recovery: pages of quotes, from `GET /v1/quotes/{coin}`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from cotacoes.errors import PositionBeyondEndError, ServiceUnavailableError
from cotacoes.model.live_message import require_valid
from cotacoes.model.payloads import PageJson
from cotacoes.model.quote import Position, Quote
from cotacoes.patterns.pub_sub.bus import Gap, Reason
from cotacoes.patterns.pub_sub.recovery_events import Wanted

PAGE_QUOTES = 1_000  # some 250 KB


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Quotes, ascending, with no holes other than `gaps`; `more` if further ones follow."""

    quotes: Sequence[Quote]
    more: bool
    gaps: Sequence[Gap] = ()

    @property
    def gap_before(self) -> dict[Position | None, Gap]:
        """The gap before each quote that has one, by the position before that quote."""
        return {gap.through: gap for gap in self.gaps}


class History(Protocol):
    """The source of missing quotes."""

    async def read(self, coin: str, wanted: Wanted, limit: int = PAGE_QUOTES) -> HistoryPage:
        """The requested page.

        UnavailableError without an answer, PositionGoneError if some of the quotes are no longer held,
        PositionBeyondEndError if the position does not exist.
        """


def read_page(coin: str, answer: Mapping[str, Any]) -> HistoryPage:
    """Read and check an answer; ValueError unless it is a page of this coin."""
    fields = msgspec.convert(answer, PageJson)
    quotes = [quote.quote() for quote in fields.quotes]
    for quote in quotes:
        if quote.coin != coin:
            raise ValueError("a quote of another coin")
        require_valid(quote)
    gaps = (
        Gap(coin, Position.parse(gap.after), Position.parse(gap.through), Reason(gap.reason)) for gap in fields.gaps
    )
    return HistoryPage(quotes, fields.more, tuple(gaps))


class PageClient(Protocol):
    """The one method of a client that the history needs."""

    async def quotes(
        self, coin: str, *, after: str | None = None, last: int | None = None, limit: int | None = None
    ) -> dict[str, Any]:
        """A decoded page of the history, as from `ServiceClient.quotes`."""


class ServiceHistory:
    """The history of quote_service, or of a gateway that passes it on."""

    def __init__(self, client: PageClient) -> None:
        self._client = client

    async def read(self, coin: str, wanted: Wanted, limit: int = PAGE_QUOTES) -> HistoryPage:
        after = None if wanted.after is None else str(wanted.after)
        if wanted.last is None:
            answer = await self._client.quotes(coin, after=after, limit=limit)
        else:
            answer = await self._client.quotes(coin, last=wanted.last)
        try:
            return read_page(coin, answer)
        except ValueError as error:  # msgspec's own are that too
            raise ServiceUnavailableError("the history gave an invalid answer") from error


async def floor_of(history: History, coin: str) -> Quote | None:
    """The oldest quote held, None if there is none."""
    page = await history.read(coin, Wanted(None), 1)
    return page.quotes[0] if page.quotes else None


def has_later(error: PositionBeyondEndError) -> bool:
    """Whether the history holds quotes after the position that does not exist; they begin after `resume_of`."""
    return "resume" in error.extra


def resume_of(error: PositionBeyondEndError) -> Position | None:
    """The position after which to continue (None: from the first quote); ServiceUnavailableError if malformed."""
    resume = error.extra["resume"]
    try:
        return None if resume is None else Position.parse(str(resume))
    except ValueError as malformed:
        raise ServiceUnavailableError("the history gave an invalid answer") from malformed
