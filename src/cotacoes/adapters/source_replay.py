"""A recorded market: raw exchange frames, played again at their own pace, shifted to now.

A line is the receive time in ns (UTC), a space, and the frame as JSON, as the exchange sent it. Each `bookTicker` frame
gives one price, the exact mid of bid and ask; it carries no time of its own, so the receive time is the quote's. Other
frames are skipped, a line that is no frame is counted.

Files are read side by side in the order of receive time, a batch at a time, in a thread: memory does not grow with the
recording and no request waits for a disk. When the first price of a batch is due, the next batch is read, so at most
two are held. A price becomes current when its time has come, `(received - first received) / speed` after the start. At
the end the last prices stay, with their times, and grow old: that is what a recording that is over looks like.
"""

from __future__ import annotations

import asyncio
import gzip
import heapq
import itertools
import re
import zlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec
from prometheus_client import Counter

from cotacoes import telemetry
from cotacoes.errors import SettingError
from cotacoes.quote import ORIGIN_PATTERN, Observation, PriceError, computed_price, exact_sum, parse_price

COINS = {"BTCUSDT": "bitcoin", "ETHUSDT": "ethereum"}
CURRENCY = "USDT"

LINE_BYTES_MAX = 1_048_576  # a full book of 5,000 levels a side has about 350,000
HEAD_LINES_MAX = 100_000  # how far `check` looks for the first price
BATCH_LINES = 2_000  # of the files together: some 10 ms of work
ORIGIN_NAME_MAX = 90  # of the 100 characters an origin may have

_GZIP_MAGIC = b"\x1f\x8b"
_LINE = re.compile(rb"([0-9]{1,19}) (\{.*)", re.DOTALL)
_READ_ERRORS = (OSError, EOFError, zlib.error)  # gzip's own errors are among them


class _Frame(msgspec.Struct):
    stream: str = ""
    data: msgspec.Raw = msgspec.Raw(b"{}")


class _BookTicker(msgspec.Struct):
    s: str
    b: str
    a: str


_frame = msgspec.json.Decoder(_Frame)
_book_ticker = msgspec.json.Decoder(_BookTicker)


class Mid(NamedTuple):
    """One price of the recording; `received_ns` since 1970."""

    received_ns: int
    coin: str
    price: Decimal


class _MalformedError(Exception):
    """A line that is no frame of a recording."""


def read_line(line: bytes) -> Mid | None:
    """The mid in a line, None where the frame is another one; _MalformedError where it is no frame."""
    match = _LINE.match(line)
    if match is None:
        raise _MalformedError
    try:
        frame = _frame.decode(match[2])
        if not frame.stream.endswith("@bookTicker"):
            return None
        ticker = _book_ticker.decode(frame.data)
        coin = COINS.get(ticker.s)
        if coin is None:
            return None
        mid = computed_price(exact_sum([parse_price(ticker.b), parse_price(ticker.a)]), 2)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, PriceError) as error:
        raise _MalformedError from error
    return Mid(int(match[1]), coin, mid)


def check(paths: Sequence[Path]) -> None:
    """SettingError, naming the file and what is wrong, unless each one can be read and holds a price near its head."""
    for path in paths:
        try:
            lines = itertools.islice(_lines(path), HEAD_LINES_MAX)
            if not any(_is_mid(line) for line in lines):
                raise SettingError(
                    f"COTACOES_SOURCE: {path} has no bookTicker frame of {' or '.join(COINS)} in its head"
                )
        except _READ_ERRORS as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise SettingError(f"COTACOES_SOURCE: {path} can not be read as a recording: {reason}") from error


def _is_mid(line: bytes) -> bool:
    try:
        return read_line(line) is not None
    except _MalformedError:
        return False


def origin_of(paths: Sequence[Path]) -> str:
    """`replay:` and the names of the files, without folders and endings."""
    names = "+".join(path.name.removesuffix(".gz").partition(".")[0] for path in paths)
    origin = f"replay:{re.sub(r'[^A-Za-z0-9_+-]', '_', names)[:ORIGIN_NAME_MAX]}"
    assert ORIGIN_PATTERN.match(origin)
    return origin


@dataclass(frozen=True)
class _Batch:
    mids: list[Mid]
    malformed: int
    skipped: int


class Replay:
    """Plays recordings once. `clock` gives monotonic seconds, `now` the wall time; `frames` counts lines by outcome."""

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        speed: float,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        frames: Counter,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.origin = origin_of(paths)
        self._paths = paths
        self._speed = speed
        self._clock = clock
        self._now = now
        self._frames = frames
        self._sleep = sleep
        self._coming: deque[tuple[float, Mid]] = deque()  # with the monotonic second at which each is due
        self._newest: dict[str, Observation] = {}

    def quotes(self) -> Mapping[str, Observation]:
        """Coin to the newest mid whose time has come."""
        passed: dict[str, tuple[float, Mid]] = {}
        moment = self._clock()
        while self._coming and self._coming[0][0] <= moment:
            due, mid = self._coming.popleft()
            passed[mid.coin] = (due, mid)
        for coin, (due, mid) in passed.items():
            # Counted back from now: a wall clock that was set anew, or a machine that slept, leaves no lasting shift.
            observed_at = self._now() - timedelta(seconds=moment - due)
            self._newest[coin] = Observation(coin, CURRENCY, mid.price, observed_at, self.origin)
        return self._newest

    async def run(self) -> None:
        """Play to the end; run it once, beside whoever asks for `quotes`."""
        lines = heapq.merge(*(self._timed_lines(path) for path in self._paths), key=_received_ns)
        first_ns, started = None, self._clock()
        total = 0
        while batch := await asyncio.to_thread(_read_batch, lines):
            self._count(batch)
            total += len(batch.mids)
            if not batch.mids:
                continue
            if first_ns is None:
                first_ns, started = batch.mids[0].received_ns, self._clock()
            dues = [started + (mid.received_ns - first_ns) / 1e9 / self._speed for mid in batch.mids]
            self._coming.extend(zip(dues, batch.mids, strict=True))
            await self._until(dues[0])
        if self._coming:
            await self._until(self._coming[-1][0])
        telemetry.get_logger().info("replay.ended", origin=self.origin, prices=total)

    async def _until(self, due: float) -> None:
        """Sleep to that second, dropping what is past."""
        await self._sleep(max(0.0, due - self._clock()))
        self.quotes()

    def _count(self, batch: _Batch) -> None:
        for outcome, count in (("price", len(batch.mids)), ("malformed", batch.malformed), ("skipped", batch.skipped)):
            self._frames.labels(outcome=outcome).inc(count)

    def _timed_lines(self, path: Path) -> Iterator[tuple[int, bytes]]:
        """The lines of a file with their receive times; a file that breaks off ends here, and that is said."""
        received_ns = 0
        try:
            for line in _lines(path):
                match = _LINE.match(line)
                received_ns = int(match[1]) if match else received_ns  # a malformed line keeps its place in the file
                yield received_ns, line
        except _READ_ERRORS as error:
            telemetry.get_logger().warning("replay.broken", file=path.name, reason=str(error))


def _received_ns(timed: tuple[int, bytes]) -> int:
    return timed[0]


def _read_batch(lines: Iterator[tuple[int, bytes]]) -> _Batch | None:
    """The next lines, read; None at the end."""
    mids: list[Mid] = []
    malformed = read = 0
    for _, line in itertools.islice(lines, BATCH_LINES):
        read += 1
        try:
            mid = read_line(line)
        except _MalformedError:
            malformed += 1
        else:
            if mid is not None:
                mids.append(mid)
    return _Batch(mids, malformed, read - malformed - len(mids)) if read else None


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a plain or packed file, each cut at `LINE_BYTES_MAX`; raises what `_READ_ERRORS` names."""
    with path.open("rb") as plain:
        is_packed = plain.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        plain.seek(0)
        if not is_packed:
            if not path.stat().st_size:
                raise EOFError("it is empty")
            if path.suffix == ".gz":
                raise gzip.BadGzipFile("it is named .gz and is not packed with gzip")
            yield from _bounded_lines(plain)
            return
        with gzip.open(plain) as unpacked:
            yield from _bounded_lines(unpacked)


def _bounded_lines(file: BinaryIO | gzip.GzipFile) -> Iterator[bytes]:
    while line := file.readline(LINE_BYTES_MAX):
        yield line
        while not line.endswith(b"\n") and len(line) == LINE_BYTES_MAX:
            line = file.readline(LINE_BYTES_MAX)  # the rest of a line too long is no line
