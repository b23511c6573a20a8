"""One coin's history, partly on a shard and partly in the log, changed in steps by a test, even between two reads."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.unit.harness_quote_service import COIN, NOON, QUOTA, QuoteServiceCore

from cotacoes.adapters.quote_log.log import QuoteLog
from cotacoes.adapters.quote_log.trim import Retention
from cotacoes.model.quote import Observation, Position, Quote
from cotacoes.testing.memory_shard import MemoryShard


class SeamShard(MemoryShard):
    """A shard on which `meanwhile` happens after each read, and whose oldest quotes can be dropped."""

    def __init__(self) -> None:
        super().__init__("shard1", [COIN])
        self.meanwhile: Callable[[], Awaitable[None]] | None = None
        self.reads: list[str] = []
        self.dropped: Position | None = None
        self._is_within = False

    async def newest(self, *arguments: Any) -> Any:
        views = await self._read("newest", super().newest(*arguments))
        return {coin: view if view.quotes else replace(view, through=self.dropped) for coin, view in views.items()}

    async def after(self, *arguments: Any) -> Any:
        return await self._read("after", super().after(*arguments))

    async def last(self, *arguments: Any) -> Any:
        return await self._read("last", super().last(*arguments))

    async def between(self, *arguments: Any) -> Any:
        return await self._read("between", super().between(*arguments))

    async def candles(self, *arguments: Any) -> Any:
        return await self._read("candles", super().candles(*arguments))

    def drop(self, before: datetime) -> None:
        """Drop whole days, as retention does."""
        copy = self.copies[COIN]
        self.dropped = copy.last  # the fence keeps the end even if no quote is left
        copy.quotes = {position: one for position, one in copy.quotes.items() if one.at >= before}

    async def _read(self, name: str, answer: Awaitable[Any]) -> Any:
        if self._is_within:  # one read of the fake uses another
            return await answer
        self._is_within = True
        try:
            answered = await answer
        finally:
            self._is_within = False
        self.reads.append(name)
        if self.meanwhile is not None:
            await self.meanwhile()
        return answered


class Seam:
    """`quotes` are all quotes ever recorded; only `deliver` delivers them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shard = SeamShard()
        self.core = QuoteServiceCore(folder, self.shard)
        self.quotes: list[Quote] = []

    async def start(self) -> "Seam":
        await self.core.recorder.start()
        await self._become_writer()
        return self

    async def close(self) -> None:
        await self.core.recorder.close()

    async def record(self, *seconds: float, origin: str = "sim", currency: str = "USD") -> list[Quote]:
        """Record one quote at each of these seconds after noon, in one commit."""
        seen = []
        for number, offset in enumerate(seconds, start=len(self.quotes) + 1):
            at = NOON + timedelta(seconds=offset)
            self.core.wall = max(self.core.wall, at)
            price = Decimal(f"{100 + number * 7919 % 89}.{number:04}0")
            seen.append(Observation(COIN, currency, price, at, origin))
        quotes = await self.core.recorder.record({COIN: seen})
        self.quotes += quotes
        return quotes

    async def deliver(self, count: int) -> None:
        """Send the next quotes to the shard, as delivery does; none while it is away."""
        if self.shard.away:
            return
        history = self.core.history
        batch = await self.core.recorder.log.after(COIN, history.delivered, count)
        if batch:
            assert history.epoch is not None
            await self.shard.append(COIN, 1, history.epoch, batch, end=self.shard.copies[COIN].last)
            history.note_delivered(batch)

    async def trim(self, kept: int) -> None:
        """Drop delivered quotes from the log, except the newest `kept`."""
        log = QuoteLog(self.folder, quota_bytes=QUOTA, retention=Retention(quotes=kept))
        await log.open()
        await log.mark({COIN: self.core.history.mark()})
        await log.close()

    async def begin_epoch(self) -> None:
        """As after a failure of the log."""
        self.core.history._is_over = True
        self.core.wall += timedelta(milliseconds=1)
        await self.core.recorder.begin_missing_epochs()
        await self._become_writer()

    async def _become_writer(self) -> None:
        assert self.core.history.epoch is not None
        away, self.shard.away = self.shard.away, False
        await self.shard.become_writer(COIN, self.core.history.epoch, self.core.recorder.writer.name)
        self.shard.away = away
