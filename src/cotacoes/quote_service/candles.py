"""The candles that quote_service answers: those stored on the shard, plus the quotes that only the log has yet.

A shard gives its candles and the position up to which they count every quote; the log's entries after exactly that
position are added. So no quote is missing or counted twice, however far delivery comes meanwhile.

A candle is closed when the answer counts a quote of the coin, of any origin, at or beyond its end. No clock decides it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from cotacoes.errors import HistoryUnavailableError, NoQuoteError
from cotacoes.model.candle import INTERVALS, Candle, CandleJson, candles_of, interval_start, interval_starts, merged
from cotacoes.model.payloads import CandlesJson
from cotacoes.model.quote import Position, Quote, format_time
from cotacoes.patterns.sharding.shard import CandleView
from cotacoes.quote_service.history import CoinHistory
from cotacoes.quote_service.reading import READ_ATTEMPTS, TIME_MAX, TIME_MIN, HistoryReader, follows, hole_error

CANDLES_MAX = 1_000  # of one answer
LOG_PAGE_QUOTES = 2_000  # about 10 ms of the log's one thread, for which a commit waits
LOG_QUOTES_MAX = 100_000  # of one answer, about a second of work; beyond it the shard must catch up first
BEHIND_RETRY_S = 5.0
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class CandleQuestion:
    """Candles that begin in [start, end), both widened to whole intervals.

    Without a start: the last `limit` intervals, up to the newest quote's or the end. Without `origin` or `currency`:
    those of the newest quote. With `empty`, intervals without a quote are included.
    """

    interval: str = "1m"
    start: datetime | None = None
    end: datetime | None = None
    limit: int = 100
    empty: bool = False
    origin: str | None = None
    currency: str | None = None

    @property
    def minutes(self) -> int:
        """The length of the interval."""
        return INTERVALS[self.interval]


@dataclass(frozen=True)
class _Wanted:
    """A question with a definite range: up to `limit` candles of one kind (origin and currency)."""

    coin: str
    kind: tuple[str, str]
    minutes: int
    start: datetime
    end: datetime
    limit: int

    def is_answered(self, candles: Sequence[Candle], at: datetime | None) -> bool:
        """Whether quotes from `at` on cannot change the answer."""
        return len(candles) >= self.limit or (at is not None and at >= self.end)

    def of_quotes(self, quotes: Sequence[Quote]) -> list[Candle]:
        """The candles of the quotes that belong to the answer."""
        ours = [one for one in quotes if (one.origin, one.currency) == self.kind and self.start <= one.at < self.end]
        return candles_of(ours, self.minutes)


class CandleAnswers:
    """See the head of this file."""

    def __init__(
        self,
        reader: HistoryReader,
        histories: Mapping[str, CoinHistory],
        *,
        log_page_quotes: int = LOG_PAGE_QUOTES,
        log_quotes_max: int = LOG_QUOTES_MAX,
    ) -> None:
        self._reader = reader
        self._log_page_quotes = log_page_quotes
        self._log_quotes_max = log_quotes_max
        self._histories = histories

    async def answer(self, coin: str, question: CandleQuestion) -> bytes:
        """NoQuoteError if the coin never had a quote; HistoryUnavailableError if the candles would not be exact."""
        newest = self._histories[coin].newest
        if newest is None:
            if self._reader.is_empty(coin):
                raise NoQuoteError(f"no quote of {coin} yet", reason="none_yet")
            raise HistoryUnavailableError(f"the history of {coin} is not known yet: log and shard are away")
        start, end = _range(question, newest.at)
        page_end = min(end, _moved(start, question.limit, question.minutes)) if question.empty else end
        wanted = _Wanted(
            coin,
            (question.origin or newest.origin, question.currency or newest.currency),
            question.minutes,
            start,
            page_end,
            question.limit + 1,  # one more, to know whether there are more
        )
        view = await self._read(wanted, newest.position)
        return _encode(_page(wanted, question, view, end))

    async def _read(self, wanted: _Wanted, newest: Position) -> CandleView:
        """The candles, exact up to the answer's own `through`, which reaches `newest` or the end of the range."""
        for _ in range(READ_ATTEMPTS):
            view = await self._continued(wanted, await self._begun(wanted))
            is_all = view is not None and wanted.is_answered(view.candles, view.through_at)
            if view is not None and (is_all or (view.through is not None and view.through >= newest)):
                return view
        raise hole_error(wanted.coin)

    async def _begun(self, wanted: _Wanted) -> CandleView:
        """The shard's candles; none if it is away and the log covers the range from its start."""
        coin = wanted.coin
        try:
            return await self._reader.from_shard(
                coin,
                lambda shard: shard.candles(coin, wanted.minutes, wanted.start, wanted.end, wanted.limit, wanted.kind),
            )
        except HistoryUnavailableError:
            before = await self._reader.log_before(coin, wanted.start)
            if before is None:
                oldest = await self._reader.log_after(coin, None, 1)
                if not oldest or oldest[0].before is not None:
                    raise
                return CandleView(None, None, [])
            return CandleView(before.position, before.at, [])

    async def _continued(self, wanted: _Wanted, view: CandleView) -> CandleView | None:
        """The view with the log's entries after `view.through` added, page by page; None at a hole."""
        through, at, candles = view.through, view.through_at, list(view.candles)
        read = 0
        while not wanted.is_answered(candles, at):
            quotes = await self._reader.log_after(wanted.coin, through, self._log_page_quotes)
            if not follows(quotes, through):
                return None
            read += len(quotes)
            if read > self._log_quotes_max:
                raise HistoryUnavailableError(
                    f"more than {self._log_quotes_max} quotes of {wanted.coin} in this range are only in the log",
                    retry_after_s=BEHIND_RETRY_S,
                    reason="too_far_behind",
                )
            if quotes:
                candles = merged([*candles, *wanted.of_quotes(quotes)], wanted.minutes)
                through, at = quotes[-1].position, quotes[-1].at
            if len(quotes) < self._log_page_quotes:
                break
        return CandleView(through, at, candles)


def _range(question: CandleQuestion, newest: datetime) -> tuple[datetime, datetime]:
    """The start and end of the candles; `newest` is the time of the newest quote, whose candle is the open one."""
    minutes = question.minutes
    past_open = _moved(interval_start(newest, minutes), 1, minutes)
    end = past_open if question.start is None else TIME_MAX
    if question.end is not None:
        begun = interval_start(question.end, minutes)
        end = begun if begun == question.end else _moved(begun, 1, minutes)
    if question.start is not None:
        return interval_start(question.start, minutes), end
    return _moved(min(end, past_open), -question.limit, minutes), end


def _moved(at: datetime, intervals: int, minutes: int) -> datetime:
    """So many intervals later or earlier, within the range of times."""
    try:
        return min(at + timedelta(minutes=minutes * intervals), TIME_MAX)
    except OverflowError:
        return TIME_MAX if intervals > 0 else TIME_MIN


def _page(wanted: _Wanted, question: CandleQuestion, view: CandleView, end: datetime) -> CandlesJson:
    """The answer; `end` is that of the whole range, of which `wanted` may be a part."""
    assert view.through is not None
    assert view.through_at is not None
    known, step = view.through_at, timedelta(minutes=wanted.minutes)
    shown: list[tuple[datetime, Candle | None]] = [(one.at, one) for one in view.candles[: question.limit]]
    following = view.candles[question.limit].at if len(view.candles) > question.limit else None
    if question.empty:
        held = {one.at: one for one in view.candles}
        starts = interval_starts(wanted.start, wanted.end, wanted.minutes)
        shown = [(at, held.get(at)) for at in starts if at <= known]
        following = wanted.end if wanted.end < end and wanted.end <= known else None
    candles = [
        CandleJson.empty(at, closed=at + step <= known)
        if one is None
        else CandleJson.of(one, closed=at + step <= known)
        for at, one in shown
    ]
    origin, currency = wanted.kind
    return CandlesJson(
        coin=wanted.coin,
        currency=currency,
        origin=origin,
        interval=question.interval,
        candles=candles,
        next=None if following is None else format_time(following),
        more=following is not None,
        through=str(view.through),
    )
