"""What quote_service answers: the current quote, the mean of the last ten, pages of the history, candles.

The history itself is read in `reading.py`; here it becomes JSON.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec
from msgspec.structs import replace

from cotacoes.errors import BadRequestError, NoQuoteError, PositionBeyondEndError
from cotacoes.model.payloads import BreakerStateText, CurrentJson, GapJson, MeanJson, PageJson, PositionsJson, Progress
from cotacoes.model.quote import (
    AgeLimits,
    Position,
    Quote,
    QuoteJson,
    computed_price,
    exact_sum,
    format_price,
    parse_time,
)
from cotacoes.patterns.pub_sub.bus import Reason
from cotacoes.patterns.sharding.shard_directory import ShardDirectory
from cotacoes.quote_service.candles import CandleAnswers, CandleQuestion
from cotacoes.quote_service.reading import HistoryReader
from cotacoes.quote_service.recorder import Recorder

MEAN_QUOTES = 10
MEAN_READ_QUOTES = 100  # so that ten of one origin and currency are found soon after a change
_encode = msgspec.json.Encoder().encode


class Answers:
    """See the head of this file. `is_live` tells whether the last poll brought the coin's price.

    `refusal_of` says why the source's price of the coin is not recorded, None if it is.
    """

    def __init__(
        self,
        recorder: Recorder,
        directory: ShardDirectory,
        limits: AgeLimits,
        *,
        is_live: Callable[[str], bool],
        breaker_state: Callable[[], BreakerStateText],
        refusal_of: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        self._recorder = recorder
        self._histories = recorder.histories
        self._reader = HistoryReader(recorder, directory)
        self._candles = CandleAnswers(self._reader, self._histories)
        self._limits = limits
        self._is_live = is_live
        self._breaker_state = breaker_state
        self._refusal_of = refusal_of
        self._texts: dict[str, tuple[Quote, QuoteJson]] = {}

    def current(self, coin: str) -> bytes:
        """The newest durable quote with its honest age; NoQuoteError where there is none young enough."""
        history = self._histories[coin]
        quote = history.newest
        if quote is None:
            raise NoQuoteError(f"no quote of {coin} yet{self._why(coin)}", reason="none_yet")
        if history.age_s == math.inf:
            raise NoQuoteError(
                f"the newest quote of {coin} bears a time ahead of the clock, so its age is not known{self._why(coin)}",
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
                source="live" if self._is_live(coin) else "cache",
                origin=text.origin,
                breaker=self._breaker_state(),
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
        """The quotes after a position; PositionGoneError below the floor, PositionBeyondEndError where it never was."""
        self._refuse_beyond(coin, position)
        quotes = await self._reader.after(coin, position, limit + 1)
        return _encode(self._page(coin, quotes[:limit], position, more=len(quotes) > limit))

    async def between(
        self, coin: str, start: datetime | None, end: datetime | None, *, after: Position | None, limit: int
    ) -> bytes:
        """The quotes with `at` in [start, end), after a position; PositionGoneError where some are no longer held."""
        self._refuse_beyond(coin, after)
        quotes = await self._reader.between(coin, start, end, after=after, limit=limit + 1)
        page = self._page(coin, quotes[:limit], after, more=len(quotes) > limit)
        return _encode(await self._without_lead(coin, page, after, quotes) if start is not None else page)

    async def _without_lead(
        self, coin: str, page: PageJson, after: Position | None, quotes: Sequence[Quote]
    ) -> PageJson:
        """The page without the gap before its first quote, if that begins later only because the range does."""
        is_led = bool(page.gaps) and page.gaps[0].after == str(after)
        if is_led and after is not None and not await self._reader.leads(coin, after, quotes[0]):
            return replace(page, gaps=page.gaps[1:])
        return page

    async def candles(self, coin: str, question: CandleQuestion) -> bytes:
        """The candles of one origin and currency; NoQuoteError where there never was a quote."""
        return await self._candles.answer(coin, question)

    def positions(self) -> bytes:
        """Per coin: the last position, how far its shard has come, and what is still to be delivered."""
        return _encode(PositionsJson({coin: self.progress(coin) for coin in self._histories}))

    def progress(self, coin: str) -> Progress:
        """The same of one coin."""
        history = self._histories[coin]
        return Progress(
            position=None if history.position is None else str(history.position),
            through=None if history.delivered is None else str(history.delivered),
            pending=history.pending,
            shard=history.shard,
        )

    def _refuse_beyond(self, coin: str, position: Position | None) -> None:
        newest = self._histories[coin].position
        is_beyond = position is not None and newest is not None and position > newest
        if is_beyond or (position is not None and self._reader.is_empty(coin)):
            raise PositionBeyondEndError(f"{position} was not given yet", last=None if newest is None else str(newest))

    def _page(self, coin: str, quotes: Sequence[Quote], after: Position | None, *, more: bool) -> PageJson:
        following = quotes[-1].position if quotes else after
        floor = self._histories[coin].floor
        return PageJson(
            coin=coin,
            quotes=[QuoteJson.of(quote) for quote in quotes],
            next=None if following is None else str(following),
            more=more,
            floor=None if floor is None else str(floor),
            gaps=_gaps(quotes, after),
        )

    def _text(self, quote: Quote) -> QuoteJson:
        kept = self._texts.get(quote.coin)
        if kept is None or kept[0] is not quote:
            kept = self._texts[quote.coin] = (quote, QuoteJson.of(quote))
        return kept[1]

    def _why(self, coin: str) -> str:
        why = self._recorder.failure or self._refusal_of(coin)
        return "" if why is None else f": {why}"


def read_range(start: str | None, end: str | None) -> tuple[datetime | None, datetime | None]:
    """The times of `from` and `to`; BadRequestError names the one that is none."""
    times: list[datetime | None] = []
    for name, text in (("from", start), ("to", end)):
        try:
            times.append(None if text is None else parse_time(text))
        except ValueError as error:
            raise BadRequestError(f"{name}: {error}; a + is written %2B in an address") from error
    first, last = times
    if first is not None and last is not None and first >= last:
        raise BadRequestError("from must lie before to, which is not itself in the range: give a later to")
    return first, last


def _gaps(quotes: Sequence[Quote], after: Position | None) -> list[GapJson]:
    """The holes between quotes of which one is the next that there is after the other, and before the first of them."""
    gaps = []
    before = after
    for quote in quotes:
        if before is not None and quote.before is not None and quote.before > before:
            gaps.append(GapJson(after=str(before), through=str(quote.before), reason=Reason.HOLE.value))
        before = quote.position
    return gaps


def _kind(quote: Quote) -> tuple[str, str]:
    return quote.origin, quote.currency
