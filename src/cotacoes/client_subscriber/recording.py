"""Recording: what the system publishes, in a file that `--source replay:FILE` plays again.

    {"v":1,"type":"recording","started_at":"…","coins":["bitcoin","ethereum"]}       first, once
    {"v":1,"type":"quote",…}                                                         as on `cotacoes:<coin>`
    {"v":1,"type":"gap","coin":"bitcoin","after":"E-S","through":"E-S"}              what could not be had;
                                                                                     null: to an end unknown

One JSON object a line; a name that ends in `.gz` is packed with gzip. What the wire lost is fetched from the history
and written in its place, so a gap stands only where the history could not be asked either; then it is said as well.
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

from cotacoes.adapters.bus_redis import RedisBus
from cotacoes.client import Addresses, ServiceClient
from cotacoes.client_subscriber.feeds import Event, Feeds, Missed, Seen
from cotacoes.config import Settings
from cotacoes.errors import BusUnavailableError, ProblemError, SettingError, UnavailableError
from cotacoes.live import encode_quote
from cotacoes.patterns.backoff import Backoff
from cotacoes.patterns.pub_sub import Bus, Gap, Reason
from cotacoes.quote import Position, Quote, QuoteJson, format_time
from cotacoes.service import Stop, background
from cotacoes.telemetry import get_logger

FLUSH_S = 1.0
PAGE_QUOTES = 1_000
FILL_TRIES = 5  # of a history that is not to be had just now
FILL_WAIT_S_MAX = 2.0
_encode = msgspec.json.Encoder().encode


async def record(settings: Settings, stop: Stop, path: Path, coins: Sequence[str], for_s: float | None = None) -> int:
    """Write to a new file until `stop`, or for so long; how many quotes. SettingError where it can not be written."""
    addresses = Addresses(quote_service=settings.url("quote_service"))
    with RecordingFile(path, coins) as file:
        recorder = _Recorder(Feeds(coins, time.monotonic()), file)
        async with (
            RedisBus(settings.redis, deadline_s=settings.publish_deadline_ms / 1000) as bus,
            ServiceClient(addresses) as client,
        ):
            async with background(recorder.run(bus, client)):
                with contextlib.suppress(TimeoutError):  # the time that was asked for is over
                    async with asyncio.timeout(for_s):
                        await stop.event.wait()
            await recorder.finish(client)
    return recorder.quotes


class RecordingFile:
    """The file, while the context is open."""

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
            raise SettingError(f"{self._path} can not be written ({error.strerror}): name another file") from error
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

    def write(self, line: bytes) -> None:
        """One line, without its line feed; SettingError where the disk does not take it."""
        try:
            self._file.write(line + b"\n")
            if time.monotonic() - self._flushed_at > FLUSH_S:  # a kill costs a second, not the file
                self._file.flush()
                self._flushed_at = time.monotonic()
        except OSError as error:
            raise self._not_written(error) from error

    def _not_written(self, error: OSError) -> SettingError:
        return SettingError(f"{self._path} can not be written ({error.strerror}): make room")


class _Recorder:
    def __init__(self, feeds: Feeds, file: RecordingFile) -> None:
        self.quotes = 0
        self._feeds = feeds
        self._file = file

    async def run(self, bus: Bus, client: ServiceClient) -> None:
        backoff = Backoff(SystemRandom())
        while True:
            try:
                async with bus.subscribe(self._feeds.channels) as messages:
                    async for channel, message in messages:
                        try:
                            events = self._feeds.take(channel, message, time.monotonic())
                        except ValueError as error:
                            get_logger().warning("message.refused", channel=channel, reason=str(error))
                            continue
                        backoff.reset()
                        for event in events:
                            await self._write(event, client)
            except BusUnavailableError as error:
                get_logger().warning("bus.away", reason=error.detail)
            await asyncio.sleep(backoff.next_s())

    async def _write(self, event: Event, client: ServiceClient) -> None:
        match event:
            case Seen(quote):
                self._write_quote(quote)
            case Missed(gap):
                await self._fill(gap, client)
            case _:
                pass  # silence is no content

    async def finish(self, client: ServiceClient) -> None:
        """Write what the history has beyond what was heard: nobody may have heard the last ones."""
        for coin, known in self._feeds.known.items():
            if known is not None:
                await self._write_after(coin, known, None, client)

    async def _fill(self, gap: Gap, client: ServiceClient) -> None:
        if gap.reason is not Reason.REWRITTEN:
            await self._write_after(gap.coin, gap.after, gap.through, client)

    async def _write_after(
        self, coin: str, after: Position | None, through: Position | None, client: ServiceClient
    ) -> None:
        """Write the history from one position to another, or to its end; a gap where it can not be had."""
        tries = 0
        while through is None or after is None or after < through:
            try:
                page = await client.quotes(coin, after=None if after is None else str(after), limit=PAGE_QUOTES)
                found = [msgspec.convert(told, QuoteJson).quote() for told in page["quotes"]]
            except UnavailableError as error:
                tries += 1
                if tries < FILL_TRIES:
                    await asyncio.sleep(min(FILL_WAIT_S_MAX, error.retry_after_s or FILL_WAIT_S_MAX))
                    continue
                return self._write_gap(coin, after, through, error)
            except (ProblemError, ValueError, KeyError, msgspec.MsgspecError) as error:
                return self._write_gap(coin, after, through, error)
            found = [quote for quote in found if through is None or quote.position <= through]
            for quote in found:
                self._write_quote(quote)
                after = quote.position
            if not found:
                break
        return None

    def _write_gap(self, coin: str, after: Position | None, through: Position | None, error: Exception) -> None:
        told = {
            "coin": coin,
            "after": None if after is None else str(after),
            "through": None if through is None else str(through),
        }
        get_logger().warning("gap.stayed", **told, reason=str(error))
        self._file.write(_encode({"v": 1, "type": "gap", **told}))

    def _write_quote(self, quote: Quote) -> None:
        self._file.write(encode_quote(quote))
        self.quotes += 1
