"""Recording: what the system publishes, in a file that `--source replay:FILE` plays again.

    {"v":1,"type":"recording","started_at":"…","coins":["bitcoin","ethereum"]}       first, once
    {"v":1,"type":"quote",…}                                                         as on `cotacoes:<coin>`
    {"v":1,"type":"gap","coin":"bitcoin","after":"E-S","through":"E-S"}              missing for good;
                                                                                     null: an unknown end
    {"v":1,"type":"retracted","coin":"bitcoin","after":"E-S","through":"E-S"}        these lines above are false; what
                                                                                     the history holds comes next

Each line is one JSON object; a file whose name ends in `.gz` is compressed. What the wire lost is fetched from the
history and written in its place: a coin's quotes are in order, and a hole that is being filled delays only its own
coin. So a gap remains only if the history no longer has it, or did not answer by the end; it is then logged too.

A coin's recording begins with the first line received. At the end, what the history has beyond that is written too,
since the last messages may have been lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import SystemRandom
from types import TracebackType
from typing import IO, Any, Self

import msgspec

from cotacoes.adapters.redis_bus import RedisBus
from cotacoes.config import Settings
from cotacoes.errors import BusUnavailableError, SettingError, setting_error_in
from cotacoes.feed.consumer import FeedConsumer, log_change
from cotacoes.feed.feeds import FeedEvent, Feeds
from cotacoes.feed.history import History, ServiceHistory
from cotacoes.model.live_message import CHANNEL_PREFIX, encode_quote
from cotacoes.model.quote import Position, format_time
from cotacoes.observability.logs import get_logger
from cotacoes.patterns.pub_sub.bus import Bus
from cotacoes.patterns.pub_sub.recovery_events import Dismissed, GapLost, QuoteReceived, Retracted
from cotacoes.web.background import background
from cotacoes.web.process import Stop
from cotacoes.web.service_client import Addresses, ServiceClient

FLUSH_S = 1.0
FINISH_S = 5.0  # for the history to answer at the end: the deadline of a request
_encode = msgspec.json.Encoder().encode


async def record(settings: Settings, stop: Stop, path: Path, coins: Sequence[str], for_s: float | None = None) -> int:
    """Write to a new file until `stop`, or for `for_s`; return the number of quotes.

    SettingError if the file cannot be written. BusUnavailableError, and no file, if nothing was received at all.
    """
    addresses = Addresses(quote_service=settings.url("quote_service"))
    with RecordingFile(path, coins) as file:
        async with (
            RedisBus(settings.redis, deadline_s=settings.publish_deadline_ms / 1000) as bus,
            ServiceClient(addresses) as client,
        ):
            recorder = StreamRecorder(coins, file, bus, ServiceHistory(client), prefix=settings.channel_prefix)
            async with background(recorder.run()):
                with contextlib.suppress(TimeoutError):  # the requested time is over
                    async with asyncio.timeout(for_s):
                        await stop.event.wait()
            await recorder.finish()
            if not recorder.has_heard:
                file.discard()
                await bus.ping()
                raise BusUnavailableError("nothing was published meanwhile: check `cotacoes status`")
    return recorder.quotes


class RecordingFile:
    """The recording's file, open within the context."""

    def __init__(self, path: Path, coins: Sequence[str]) -> None:
        self._path = path
        self._coins = coins
        self._flushed_at = time.monotonic()

    def __enter__(self) -> Self:
        try:
            plain: IO[bytes] = self._path.open("xb")
        except FileExistsError as error:
            raise SettingError(f"{self._path} exists already: name another file") from error
        except OSError as error:
            raise SettingError(f"{self._path} cannot be written ({error.strerror}): name another file") from error
        self._plain = plain
        self._file: Any = gzip.GzipFile(fileobj=plain, mode="wb") if self._path.suffix == ".gz" else plain
        head = {"v": 1, "type": "recording", "started_at": format_time(datetime.now(UTC)), "coins": self._coins}
        self.write(_encode(head))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()
        except OSError as failure:
            if error is None:
                raise self._not_written(failure) from failure
        finally:
            with contextlib.suppress(OSError):
                self._plain.close()

    def discard(self) -> None:
        """Delete the file, which holds nothing."""
        self._path.unlink(missing_ok=True)

    def write(self, line: bytes) -> None:
        """Write one line, given without its line feed; SettingError if that fails."""
        try:
            self._file.write(line + b"\n")
            if time.monotonic() - self._flushed_at > FLUSH_S:  # a kill loses a second, not the file
                self._file.flush()
                self._flushed_at = time.monotonic()
        except OSError as error:
            raise self._not_written(error) from error

    def _not_written(self, error: OSError) -> SettingError:
        return SettingError(f"{self._path} cannot be written ({error.strerror}): make room")


class StreamRecorder:
    """Writes the feeds of the coins to the file: `run` until cancelled, then `finish`."""

    def __init__(
        self,
        coins: Sequence[str],
        file: RecordingFile,
        bus: Bus,
        history: History,
        *,
        prefix: str = CHANNEL_PREFIX,
    ) -> None:
        self.quotes = 0
        self._file = file
        self._feeds = Feeds(coins, time.monotonic(), prefix=prefix)
        for coin in coins:
            self._feeds[coin].skip_start()
        self._consumer = FeedConsumer(
            self._feeds, bus, history, self._write, clock=time.monotonic, random=SystemRandom()
        )

    @property
    def has_heard(self) -> bool:
        """Whether anything was received for any coin."""
        return any(self._feeds[coin].last_received is not None for coin in self._feeds.coins)

    async def run(self) -> None:
        await self._consumer.run()

    async def finish(self) -> None:
        """Write what the history has beyond the last line; without an answer in time, the held quotes and a gap."""
        left = {coin for coin in self._feeds.coins if self._feeds[coin].last_received is not None}

        async def catch_up(coin: str) -> None:
            await self._consumer.catch_up(coin)
            left.discard(coin)

        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FINISH_S), asyncio.TaskGroup() as group:
                    for coin in left:
                        group.create_task(catch_up(coin))
        except ExceptionGroup as several:
            raise setting_error_in(several) or several from None
        for coin in left:
            recovery = self._feeds[coin]
            await self._write([*recovery.skip_start(), *recovery.gone(None)])
            self._write_gap(coin, recovery.last_emitted, None, "the history did not answer")
        self._consumer.log_ignored()

    async def _write(self, events: Sequence[FeedEvent]) -> None:
        for event in events:
            match event:
                case QuoteReceived(quote):
                    self._file.write(encode_quote(quote))
                    self.quotes += 1
                case GapLost(gap) if gap.after != gap.through:
                    self._write_gap(gap.coin, gap.after, gap.through, gap.reason.value)
                case Retracted(gap):
                    log_change(event)
                    fields = {"coin": gap.coin, "after": _text(gap.after), "through": str(gap.through)}
                    self._file.write(_encode({"v": 1, "type": "retracted", **fields}))
                case Dismissed():
                    log_change(event)
                case _:
                    pass  # silence is no content, and gaps are filled or lost

    def _write_gap(self, coin: str, after: Position | None, through: Position | None, reason: str) -> None:
        fields = {"coin": coin, "after": _text(after), "through": _text(through)}
        get_logger().warning("gap.remained", **fields, reason=reason)
        self._file.write(_encode({"v": 1, "type": "gap", **fields}))


def _text(position: Position | None) -> str | None:
    return None if position is None else str(position)
