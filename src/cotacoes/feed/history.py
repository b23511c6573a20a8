"""The history as who recovers asks it: pages of quotes, over `GET /v1/quotes/{coin}`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from cotacoes.errors import PositionBeyondEndError, ServiceUnavailableError
from cotacoes.feed.feeds import check
from cotacoes.model.payloads import GapJson
from cotacoes.model.quote import Position, Quote, QuoteJson
from cotacoes.patterns.pub_sub.bus import Gap, Reason
from cotacoes.patterns.pub_sub.recovery_events import Wanted

PAGE_QUOTES = 1_000  # some 250 KB


@dataclass(frozen=True, slots=True)
class Page:
    """Quotes, ascending, without a hole but for `gaps`; `more` tells whether there are further ones."""

    quotes: Sequence[Quote]
    more: bool
    gaps: Sequence[Gap] = ()

    @property
    def gap_before(self) -> dict[Position | None, Gap]:
        """The gap before a quote, by what stood before that quote."""
        return {gap.through: gap for gap in self.gaps}


class History(Protocol):
    """Where missing quotes come from."""

    async def read(self, coin: str, wanted: Wanted, limit: int = PAGE_QUOTES) -> Page:
        """The answer. UnavailableError if there is none now, PositionGoneError if what follows is no longer held,
        PositionBeyondEndError if the position was never given."""


class _Told(msgspec.Struct, frozen=True):
    quotes: list[QuoteJson]
    more: bool
    gaps: list[GapJson] = []


def read_page(coin: str, answer: Mapping[str, Any]) -> Page:
    """A page as it is answered, screened; ValueError where it is none of the coin's."""
    told = msgspec.convert(answer, _Told)
    quotes = [quote.quote() for quote in told.quotes]
    for quote in quotes:
        check(quote, coin)
    gaps = (Gap(coin, Position.parse(gap.after), Position.parse(gap.through), Reason(gap.reason)) for gap in told.gaps)
    return Page(quotes, told.more, tuple(gaps))


class PageClient(Protocol):
    """The one question to a client that the history needs."""

    async def quotes(
        self, coin: str, *, after: str | None = None, last: int | None = None, limit: int | None = None
    ) -> dict[str, Any]:
        """A page of the history, decoded; see `client.service_client.ServiceClient.quotes`."""


class ServiceHistory:
    """The history of quote_service, or of a gateway that passes it on."""

    def __init__(self, client: PageClient) -> None:
        self._client = client

    async def read(self, coin: str, wanted: Wanted, limit: int = PAGE_QUOTES) -> Page:
        after = None if wanted.after is None else str(wanted.after)
        if wanted.last is None:
            answer = await self._client.quotes(coin, after=after, limit=limit)
        else:
            answer = await self._client.quotes(coin, last=wanted.last)
        try:
            return read_page(coin, answer)
        except ValueError as error:  # msgspec's own are that too
            raise ServiceUnavailableError("the history did not answer as it should") from error


async def floor_of(history: History, coin: str) -> Quote | None:
    """The oldest quote that is held, None if nothing is."""
    page = await history.read(coin, Wanted(None), 1)
    return page.quotes[0] if page.quotes else None


def has_later(error: PositionBeyondEndError) -> bool:
    """Whether the history holds quotes later than the position that it never gave: those after `resume_of`."""
    return "resume" in error.extra


def resume_of(error: PositionBeyondEndError) -> Position | None:
    """The position after which to go on (None: from the first quote); ServiceUnavailableError if it is malformed."""
    resume = error.extra["resume"]
    try:
        return None if resume is None else Position.parse(str(resume))
    except ValueError as malformed:
        raise ServiceUnavailableError("the history did not answer as it should") from malformed
