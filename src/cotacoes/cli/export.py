"""`cotacoes export`: a time range of a coin's quotes as CSV or NDJSON, every digit as stored, whatever fails meanwhile.

Pages are asked for one after the other, each after the last position of the one before, and are checked to follow it.
A service or shard that is away is waited for, up to `PATIENCE_S` without a page.

Into a file: what there is so far stands in FILE.part, and becomes FILE when it is complete and on the disk. The same
command goes on after the last whole line of FILE.part, once it is sure that this is a part of the same answer.
"""

from __future__ import annotations

import asyncio
import csv
import io
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from cotacoes.cli.export_file import PartialFile
from cotacoes.cli.output import HistoryPage, printable, put_text, say, understood
from cotacoes.errors import PositionGoneError, ServiceUnavailableError, SettingError, UnavailableError
from cotacoes.model.payloads import GapJson
from cotacoes.model.quote import Position, QuoteJson, first_gap
from cotacoes.patterns.resilience.backoff import Backoff
from cotacoes.web.service_client import ServiceClient

if TYPE_CHECKING:
    from cotacoes.web.service_client import ServiceClient

COLUMNS = ("coin", "position", "at", "observed_at", "price", "currency", "origin")
PAGE_QUOTES = 2_000
PATIENCE_S = 60.0
SHOW_S, SAY_S = 0.2, 10.0  # between two words of progress, on a terminal and elsewhere

Format = Literal["csv", "ndjson"]


@dataclass(frozen=True)
class ExportRequest:
    """What to export: a coin in lower case, times in RFC 3339 as `format_time` writes them, None where open."""

    coin: str
    start: str | None
    end: str | None
    form: Format

    @property
    def head(self) -> str:
        """What stands before the first quote."""
        return f"{','.join(COLUMNS)}\n" if self.form == "csv" else ""

    @property
    def begins(self) -> str:
        """What every file of this coin and format begins with."""
        return self.head or f'{{"{COLUMNS[0]}":"{self.coin}","{COLUMNS[1]}":"'

    def line(self, one: QuoteJson | GapJson) -> str:
        """One quote; or a gap: AFTER..THROUGH in place of the position, its reason in place of the origin."""
        told: tuple[str, ...]
        if isinstance(one, GapJson):
            told = (self.coin, f"{one.after}..{one.through}", "", "", "", "", one.reason)
        else:
            position = f"{one.epoch}-{one.seq}"
            told = (one.coin, position, one.at, one.observed_at, one.price, one.currency, one.origin)
        cells = [printable(cell) for cell in told]
        if self.form == "ndjson":
            return f"{msgspec.json.encode(dict(zip(COLUMNS, cells, strict=True))).decode()}\n"
        written = io.StringIO()
        csv.writer(written, lineterminator="\n").writerow(cells)
        return written.getvalue()

    def read(self, line: str) -> tuple[str, str]:
        """Position and time in a line that `line` wrote; ValueError if it is none of this coin and format.

        Of a gap the last position, behind which the export goes on, and no time.
        """
        try:
            told = msgspec.json.decode(line, type=dict[str, str]) if self.form == "ndjson" else None
        except msgspec.MsgspecError as error:
            raise ValueError("no line of NDJSON") from error
        cells = list(told.values()) if told is not None else next(csv.reader([line]), [])
        if len(cells) != len(COLUMNS) or cells[0] != self.coin or (told is not None and tuple(told) != COLUMNS):
            raise ValueError("another coin, or other columns")
        return str(Position.parse(cells[1].rpartition("..")[2])), cells[2]


class ExportProgress:
    """Quotes, the time reached and quotes a second, on stderr; silent where nobody would read it."""

    def __init__(self, *, into_file: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._is_terminal = sys.stderr.isatty() and (into_file or not sys.stdout.isatty())
        self._is_shown = self._is_terminal or into_file
        self._clock = clock
        self._begun = self._next = clock()
        self._count = 0
        self._is_open_line = False
        self._reason = ""
        if not self._is_terminal:
            self._next += SAY_S

    def advance(self, quotes: list[QuoteJson]) -> None:
        """So many more are written."""
        self._reason = ""
        self._count += len(quotes)
        if self._is_shown and quotes and self._clock() >= self._next:
            self._show(f"{self._count} quotes, up to {quotes[-1].at}, {self._speed()}")
            self._next = self._clock() + (SHOW_S if self._is_terminal else SAY_S)

    def wait(self, reason: str) -> None:
        """What is waited for; said once, until something comes."""
        if self._is_shown and reason != self._reason:
            self._show(f"waiting: {reason}")
            self._reason = reason

    def end(self, where: str) -> None:
        """All is written."""
        if self._is_shown:
            self._show(f"exported {self._count} quotes{where}, {self._speed()}")

    def close(self) -> None:
        """Leave the line, so that what is said next has its own."""
        if self._is_open_line:
            sys.stderr.write("\n")

    def _speed(self) -> str:
        return f"{self._count / max(self._clock() - self._begun, 0.001):.0f} quotes/s"

    def _show(self, text: str) -> None:
        if self._is_terminal:
            sys.stderr.write(f"\r{printable(text)}\x1b[K")
            sys.stderr.flush()
            self._is_open_line = True
        else:
            say(text)


class Export:
    """One run. `sleep`, `clock` and `dice` are those of the machine, unless a test brings its own."""

    def __init__(
        self,
        client: ServiceClient,
        wanted: ExportRequest,
        progress: ExportProgress,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        dice: random.Random | None = None,
        page_quotes: int = PAGE_QUOTES,
    ) -> None:
        self._client = client
        self._page_quotes = page_quotes
        self._wanted = wanted
        self._progress = progress
        self._sleep = sleep
        self._clock = clock
        self._backoff = Backoff(dice or random.SystemRandom())

    async def to_stdout(self) -> None:
        """All of it, from the beginning."""
        put_text(self._wanted.head)
        async for page in self._pages(None):
            put_text("".join(map(self._wanted.line, page.lines())))
            self._progress.advance(page.quotes)
        self._progress.end("")

    async def to_file(self, file: Path) -> None:
        """Into FILE.part, or what of it is missing there, which then becomes FILE; SettingError where it can not."""
        with PartialFile(file, self._wanted.head.encode(), self._wanted.begins.encode()) as part:
            after = await self._resumed(part)
            async for page in self._pages(after):
                part.write("".join(map(self._wanted.line, page.lines())).encode())
                self._progress.advance(page.quotes)
            part.complete()
        self._progress.end(f" into {file}")

    async def _resumed(self, part: PartialFile) -> str | None:
        """The last position in the part; None where there is none yet. SettingError where it is of something else."""
        if part.first is None or part.last is None:
            return None
        foreign = SettingError(
            f"{part.path} is of another coin, range, format or system: remove it, or give --output another name"
        )
        try:
            self._wanted.read(part.first.decode())
            last, last_at = self._wanted.read(part.last.decode())
        except ValueError as error:
            raise foreign from error
        if self._wanted.end is not None and last_at >= self._wanted.end:
            raise foreign
        try:
            (page,) = [page async for page in self._pages(None, first_only=True)]
        except PositionGoneError:  # dropped since: what follows the part may still be held, and is asked for then
            pass
        else:
            if [self._wanted.line(quote) for quote in page.quotes] != [part.first.decode()]:
                raise foreign
        say(f"going on after {last}")
        return last

    async def _pages(self, after: str | None, *, first_only: bool = False) -> AsyncIterator[HistoryPage]:
        """The range, page by page."""
        wanted = self._wanted
        more = True
        while more:
            asked: dict[str, Any] = {"after": after, "start": wanted.start, "end": wanted.end}
            answer = await self._patiently(asked, 1 if first_only else self._page_quotes)
            page = understood(answer, HistoryPage, "quote_service")
            _check(page, wanted.coin, after)
            yield page
            more, after = page.more and bool(page.quotes) and not first_only, page.next

    async def _patiently(self, asked: dict[str, Any], limit: int) -> dict[str, Any]:
        """One page, asked for until it comes; the last error where none came for `PATIENCE_S`."""
        due = self._clock() + PATIENCE_S
        while True:
            try:
                answer = await self._client.quotes(self._wanted.coin, limit=limit, **asked)
            except UnavailableError as error:
                wait_s = (error.retry_after_s or 0.0) + self._backoff.next_s()
                if self._clock() + wait_s > due:
                    raise
                self._progress.wait(error.detail)
                await self._sleep(wait_s)
            else:
                self._backoff.reset()
                return answer


def _check(page: HistoryPage, coin: str, after: str | None) -> None:
    """ServiceUnavailableError unless these are quotes of the coin that follow one another, and `after`, or a gap."""
    try:
        quotes = [quote.quote() for quote in page.quotes]
        ends = {Position.parse(gap.through) for gap in page.gaps}
    except ValueError as error:
        raise ServiceUnavailableError("quote_service did not answer as it should") from error
    gap = first_gap(quotes, None if after is None else Position.parse(after), ends)
    if gap is not None or any(quote.coin != coin for quote in quotes):
        raise ServiceUnavailableError(f"quote_service answered with a hole after {after or 'the beginning'}")


async def export(client: ServiceClient, wanted: ExportRequest, output: Path | None) -> int:
    """Export to a file, or to standard output; the exit code."""
    progress = ExportProgress(into_file=output is not None)
    run = Export(client, wanted, progress)
    try:
        await (run.to_stdout() if output is None else run.to_file(output))
    finally:
        progress.close()
    return 0
