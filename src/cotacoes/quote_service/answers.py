"""What quote_service answers: the current quote, the mean of the last ten, and a page of the history.

The one read: shard rows, then log entries, checked to be without a hole by their positions. Where the log alone covers
the question it alone is asked. Never a short list: what can not be answered in full is refused, by name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from cotacoes.errors import (
    CoinMovedError,
    HistoryUnavailableError,
    LogUnavailableError,
    NoQuoteError,
    PositionBeyondEndError,
    PositionGoneError,
    ShardUnavailableError,
)
from cotacoes.patterns.sharding import Shard
from cotacoes.quote import (
    Position,
    Quote,
    QuoteJson,
    computed_price,
    exact_sum,
    first_gap,
    format_price,
)
from cotacoes.quote_service.history import CoinHistory
from cotacoes.quote_service.recorder import Recorder

MEAN_QUOTES = 10
MEAN_READ_QUOTES = 100  # so that ten of one origin and currency are found soon after a change
READ_ATTEMPTS = 2
LOG_READS_MAX = 2  # at once: the log has one thread, and a commit must not wait behind a crowd of readers
_encode = msgspec.json.Encoder().encode


class CurrentJson(msgspec.Struct, frozen=True):
    """The answer of `/cotacao_atual/{coin}`."""

    coin: str
    currency: str
    price: str
    epoch: int
    seq: int
    observed_at: str
    at: str
    age_ms: int
    status: str
    source: str
    origin: str
    breaker: str


class PageJson(msgspec.Struct, frozen=True):
    """The answer of `/v1/quotes/{coin}`: ascending; `next` goes into `after`; `floor` is the oldest position held."""

    coin: str
    quotes: list[QuoteJson]
    next: str | None
    more: bool
    floor: str | None


class MeanJson(msgspec.Struct, frozen=True):
    """The answer of `/media_ultimos_10_logs/{coin}`."""

    coin: str
    currency: str
    average: str
    count: int
    from_: str = msgspec.field(name="from")
    to: str


@dataclass(frozen=True)
class AgeLimits:
    """In milliseconds: up to `fresh` a quote is fresh, beyond `most` it is no price at all."""

    fresh: int
    most: int


class Answers:
    """See the head of this file. `is_live` tells whether the last poll brought the coin's price."""

    def __init__(
        self,
        recorder: Recorder,
        shards: Mapping[str, Shard],
        limits: AgeLimits,
        *,
        is_live: Callable[[str], bool],
        breaker_state: Callable[[], str],
    ) -> None:
        self._recorder = recorder
        self._histories = recorder.histories
        self._shards = shards
        self._limits = limits
        self._log_reads = asyncio.Semaphore(LOG_READS_MAX)
        self._is_live = is_live
        self._breaker_state = breaker_state
        self._texts: dict[str, tuple[Quote, QuoteJson]] = {}

    def current(self, coin: str) -> bytes:
        """The newest durable quote with its honest age; NoQuoteError where there is none young enough."""
        history = self._histories[coin]
        quote = history.newest
        if quote is None:
            raise NoQuoteError(f"no quote of {coin} yet{self._why()}", reason="none_yet")
        age_ms = int(history.age_s * 1000)
        if age_ms > self._limits.most:
            raise NoQuoteError(
                f"the newest quote of {coin} is {age_ms // 1000} s old{self._why()}", reason="too_old", age_ms=age_ms
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
                status="fresh" if age_ms <= self._limits.fresh else "stale",
                source="live" if self._is_live(coin) else "cache",
                origin=text.origin,
                breaker=self._breaker_state(),
            )
        )

    async def mean(self, coin: str) -> bytes:
        """The mean of the last ten quotes that share the newest one's origin and currency."""
        quotes = await self._last(coin, MEAN_QUOTES)
        if not quotes:
            raise NoQuoteError(f"no quote of {coin} yet{self._why()}", reason="none_yet")
        if any(_kind(quote) != _kind(quotes[-1]) for quote in quotes):
            quotes = [q for q in await self._last(coin, MEAN_READ_QUOTES) if _kind(q) == _kind(quotes[-1])]
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
        quotes = await self._last(coin, count)
        return self._page(coin, quotes, None, more=False)

    async def after(self, coin: str, position: Position | None, limit: int) -> bytes:
        """The quotes after a position; PositionGoneError below the floor, PositionBeyondEndError where it never was."""
        newest = self._histories[coin].position
        is_empty = self._is_empty(coin)
        if position is not None and (is_empty or (newest is not None and position > newest)):
            raise PositionBeyondEndError(f"{position} was not given yet", last=None if newest is None else str(newest))
        quotes = [] if is_empty else await self._read(coin, position, limit + 1)
        return self._page(coin, quotes[:limit], position, more=len(quotes) > limit)

    def positions(self) -> bytes:
        """Per coin: the last position, how far its shard has come, and what is still to be delivered."""
        return _encode({"coins": {coin: _progress(history) for coin, history in self._histories.items()}})

    async def _last(self, coin: str, count: int) -> list[Quote]:
        history = self._histories[coin]
        logged = await self._from_log(self._recorder.log.last, coin, count)
        if logged and first_gap(logged, None) is None and (len(logged) == count or _begins_at(logged, history.floor)):
            return logged
        if self._is_empty(coin):
            return []
        for _ in range(READ_ATTEMPTS):
            held = await self._from_shard(coin, lambda shard: shard.last(coin, count))
            later = await self._from_log(self._recorder.log.after, coin, held[-1].position if held else None, count)
            if first_gap([*held, *later], None) is None:
                return [*held, *later][-count:]
        raise HistoryUnavailableError(f"the history of {coin} has a hole that is being filled")

    def _is_empty(self, coin: str) -> bool:
        """Whether there was never a quote of the coin; False as long as nobody could say."""
        history = self._histories[coin]
        return history.is_known and history.newest is None

    async def _read(self, coin: str, position: Position | None, limit: int) -> list[Quote]:
        history = self._histories[coin]
        logged = await self._from_log(self._recorder.log.after, coin, position, limit)
        if position is None:
            covers = _begins_at(logged, history.floor)
        else:
            covers = logged[0].before == position if logged else position == history.position
        if covers and first_gap(logged, position) is None:
            return logged
        for _ in range(READ_ATTEMPTS):
            quotes = await self._from_shard(coin, lambda shard: shard.after(coin, position, limit))
            if len(quotes) < limit:
                through = quotes[-1].position if quotes else position
                quotes += await self._from_log(self._recorder.log.after, coin, through, limit - len(quotes))
            gap = first_gap(quotes, position)
            if gap is None:
                return quotes
            if gap == 0 and position is not None:
                await self._refuse_position(coin, position)
        raise HistoryUnavailableError(f"the history of {coin} has a hole that is being filled")

    async def _refuse_position(self, coin: str, position: Position) -> None:
        """The first quote does not follow `position`: say why, or return where `position` exists after all."""
        floor = self._histories[coin].floor
        if floor is not None and position < floor:
            raise PositionGoneError(f"quotes right after {position} are no longer held", floor=str(floor))
        before = Position(position.epoch, position.seq - 1)
        found = await self._from_shard(coin, lambda shard: shard.after(coin, before, 1))
        if not found or found[0].position != position:
            raise PositionBeyondEndError(f"{position} was never given", last=str(self._histories[coin].position))

    async def _from_shard(self, coin: str, ask: Callable[[Shard], Any]) -> list[Quote]:
        try:
            quotes: list[Quote] = await ask(self._shards[self._histories[coin].shard])
        except (ShardUnavailableError, CoinMovedError) as error:
            raise HistoryUnavailableError(f"the log does not reach back that far, and {error}") from error
        return quotes

    async def _from_log(self, ask: Callable[..., Any], *arguments: Any) -> list[Quote]:
        try:
            async with self._log_reads:
                quotes: list[Quote] = await ask(*arguments)
        except LogUnavailableError as error:
            raise HistoryUnavailableError(error.detail) from error
        return quotes

    def _page(self, coin: str, quotes: Sequence[Quote], after: Position | None, *, more: bool) -> bytes:
        following = quotes[-1].position if quotes else after
        floor = self._histories[coin].floor
        return _encode(
            PageJson(
                coin=coin,
                quotes=[QuoteJson.of(quote) for quote in quotes],
                next=None if following is None else str(following),
                more=more,
                floor=None if floor is None else str(floor),
            )
        )

    def _text(self, quote: Quote) -> QuoteJson:
        kept = self._texts.get(quote.coin)
        if kept is None or kept[0] is not quote:
            kept = self._texts[quote.coin] = (quote, QuoteJson.of(quote))
        return kept[1]

    def _why(self) -> str:
        failure = self._recorder.failure
        return "" if failure is None else f": {failure}"


def _kind(quote: Quote) -> tuple[str, str]:
    return quote.origin, quote.currency


def _begins_at(quotes: Sequence[Quote], floor: Position | None) -> bool:
    return bool(quotes) and floor is not None and quotes[0].position <= floor


def _progress(history: CoinHistory) -> dict[str, object]:
    return {
        "position": None if history.position is None else str(history.position),
        "through": None if history.delivered is None else str(history.delivered),
        "pending": history.pending,
        "shard": history.shard,
    }
