"""The answers of quote_service as JSON: the current quote, the mean of the last ten, pages of the history, candles.

`reading.py` reads the history.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Literal

import msgspec
from msgspec.structs import replace

from cotacoes.errors import BadRequestError, NoQuoteError, PositionBeyondEndError
from cotacoes.model.payloads import CurrentJson, GapJson, MeanJson, PageJson, PositionsJson, Progress
from cotacoes.model.quote import (
    AgeLimits,
    Position,
    Quote,
    QuoteJson,
    agreement_fields,
    computed_price,
    exact_sum,
    format_price,
    parse_time,
)
from cotacoes.patterns.pub_sub.bus import Reason
from cotacoes.patterns.sharding.shard_directory import ShardDirectory
from cotacoes.quote_service.candles import CandleAnswers, CandleQuestion
from cotacoes.quote_service.intake import Intake
from cotacoes.quote_service.reading import HistoryReader
from cotacoes.quote_service.recorder import Recorder

MEAN_QUOTES = 10
MEAN_READ_QUOTES = 100  # so that ten of one origin and currency are found soon after a change
_encode = msgspec.json.Encoder().encode


class Answers:
    """See the head of this file. `held` says why the pending quotes of a coin are not delivered just now."""

    def __init__(
        self,
        recorder: Recorder,
        directory: ShardDirectory,
        intake: Intake,
        limits: AgeLimits,
        *,
        held: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        self._recorder = recorder
        self._histories = recorder.histories
        self._directory = directory
        self._reader = HistoryReader(recorder, directory)
        self._candles = CandleAnswers(self._reader, self._histories)
        self._limits = limits
        self._intake = intake
        self._held = held
        self._texts: dict[str, tuple[Quote, QuoteJson]] = {}

    def current(self, coin: str) -> bytes:
        """The newest durable quote with its age; NoQuoteError if the coin has no quote, or only one that is too old."""
        history = self._histories[coin]
        quote = history.newest
        if quote is None:
            raise NoQuoteError(f"no quote of {coin} yet{self._why(coin)}", reason="none_yet")
        if history.age_s == math.inf:
            raise NoQuoteError(
                f"the newest quote of {coin} bears a time ahead of the clock, so its age is unknown{self._why(coin)}",
                reason="too_old",
            )
        age_ms = int(history.age_s * 1000)
        if age_ms > self._limits.most:
            raise NoQuoteError(
                f"the newest quote of {coin} is {age_ms // 1000} s old{self._why(coin)}",
                reason="too_old",
                age_ms=age_ms,
            )
        text = self._text(quote)
        return _encode(
            CurrentJson(
                coin=coin,
                currency=text.currency,
                price=text.price,
                epoch=text.epoch,
                seq=text.seq,
                observed_at=text.observed_at,
                at=text.at,
                age_ms=age_ms,
                status=self._limits.status(age_ms),
                source=self._source(coin),
                origin=text.origin,
                breaker=self._intake.breaker_state,
                **agreement_fields(quote.agreement),
            )
        )

    async def mean(self, coin: str) -> bytes:
        """The mean of the last ten quotes that share the newest one's origin and currency."""
        quotes = await self._reader.last(coin, MEAN_QUOTES)
        if not quotes:
            raise NoQuoteError(f"no quote of {coin} yet{self._why(coin)}", reason="none_yet")
        if any(_kind(quote) != _kind(quotes[-1]) for quote in quotes):
            quotes = [q for q in await self._reader.last(coin, MEAN_READ_QUOTES) if _kind(q) == _kind(quotes[-1])]
            quotes = quotes[-MEAN_QUOTES:]
        mean = computed_price(exact_sum(quote.price for quote in quotes), len(quotes))
        return _encode(
            MeanJson(
                coin=coin,
                currency=quotes[-1].currency,
                average=format_price(mean),
                count=len(quotes),
                from_=str(quotes[0].position),
                to=str(quotes[-1].position),
            )
        )

    async def last(self, coin: str, count: int) -> bytes:
        """The newest quotes."""
        quotes = await self._reader.last(coin, count)
        return _encode(self._page(coin, quotes, None, more=False))

    async def after(self, coin: str, position: Position | None, limit: int) -> bytes:
        """The quotes after a position; PositionGoneError below the floor, PositionBeyondEndError beyond the end."""
        self._refuse_beyond(coin, position)
        quotes = await self._reader.after(coin, position, limit + 1)
        return _encode(self._page(coin, quotes[:limit], position, more=len(quotes) > limit))

    async def between(
        self, coin: str, start: datetime | None, end: datetime | None, *, after: Position | None, limit: int
    ) -> bytes:
        """The quotes with `at` in [start, end) after a position; PositionGoneError if some are no longer held."""
        self._refuse_beyond(coin, after)
        quotes = await self._reader.between(coin, start, end, after=after, limit=limit + 1)
        page = self._page(coin, quotes[:limit], after, more=len(quotes) > limit)
        return _encode(await self._without_lead(coin, page, after, quotes) if start is not None else page)

    async def _without_lead(
        self, coin: str, page: PageJson, after: Position | None, quotes: Sequence[Quote]
    ) -> PageJson:
        """The page without a gap before its first quote that is only due to the start of the range."""
        is_led = bool(page.gaps) and page.gaps[0].after == str(after)
        if is_led and after is not None and not await self._reader.leads(coin, after, quotes[0]):
            return replace(page, gaps=page.gaps[1:])
        return page

    async def candles(self, coin: str, question: CandleQuestion) -> bytes:
        """The candles of one origin and currency; NoQuoteError if the coin never had a quote."""
        return await self._candles.answer(coin, question)

    def listed(self, *, venues: bool) -> list[str]:
        """All coins, and with `venues` also the series of venues."""
        return [coin for coin in self._histories if venues or not self._directory.is_venue_series(coin)]

    def positions(self, *, venues: bool) -> bytes:
        """The progress of all coins, and with `venues` also of the series of venues."""
        return _encode(PositionsJson({coin: self.progress(coin) for coin in self.listed(venues=venues)}))

    def progress(self, coin: str) -> Progress:
        """One coin's last position, the last one on its shard, and how many quotes are still to be delivered."""
        history = self._histories[coin]
        return Progress(
            position=None if history.position is None else str(history.position),
            through=None if history.delivered is None else str(history.delivered),
            pending=history.pending,
            shard=history.shard,
            held=self._held(coin),
            source=None if history.newest is None else self._source(coin),
        )

    def _source(self, coin: str) -> Literal["live", "cache"]:
        return "live" if self._intake.is_live(coin) else "cache"

    def _refuse_beyond(self, coin: str, position: Position | None) -> None:
        newest = self._histories[coin].position
        is_beyond = position is not None and newest is not None and position > newest
        if is_beyond or (position is not None and self._reader.is_empty(coin)):
            raise PositionBeyondEndError(
                f"position {position} does not exist yet", last=None if newest is None else str(newest)
            )

    def _page(self, coin: str, quotes: Sequence[Quote], after: Position | None, *, more: bool) -> PageJson:
        following = quotes[-1].position if quotes else after
        floor = self._histories[coin].floor
        return PageJson(
            coin=coin,
            quotes=[QuoteJson.from_quote(quote) for quote in quotes],
            next=None if following is None else str(following),
            more=more,
            floor=None if floor is None else str(floor),
            gaps=_gaps(quotes, after),
        )

    def _text(self, quote: Quote) -> QuoteJson:
        cached = self._texts.get(quote.coin)
        if cached is None or cached[0] is not quote:
            cached = self._texts[quote.coin] = (quote, QuoteJson.from_quote(quote))
        return cached[1]

    def _why(self, coin: str) -> str:
        reason = self._recorder.failure or self._intake.why_no_price(coin)
        return "" if reason is None else f": {reason}"


def read_range(start: str | None, end: str | None) -> tuple[datetime | None, datetime | None]:
    """The times of `from` and `to`; BadRequestError names the one that is invalid."""
    times: list[datetime | None] = []
    for name, text in (("from", start), ("to", end)):
        try:
            times.append(None if text is None else parse_time(text))
        except ValueError as error:
            raise BadRequestError(f"{name}: {error}; in a URL, write + as %2B") from error
    first, last = times
    if first is not None and last is not None and first >= last:
        raise BadRequestError("from must be before to (the range excludes to): give a later to")
    return first, last


def _gaps(quotes: Sequence[Quote], after: Position | None) -> list[GapJson]:
    """The holes before and between these quotes, if each is the next one that the history has."""
    gaps = []
    before = after
    for quote in quotes:
        if before is not None and quote.before is not None and quote.before > before:
            gaps.append(GapJson(after=str(before), through=str(quote.before), reason=Reason.HOLE.value))
        before = quote.position
    return gaps


def _kind(quote: Quote) -> tuple[str, str]:
    return quote.origin, quote.currency
