"""`cotacoes export`: a time range of a coin's quotes as CSV or NDJSON, with every digit as stored.

Pages are requested one after the other, each from the last position of the one before, and checked for continuity. If
a service or shard is away, the export waits for it, up to `PATIENCE_S` without a page.

An export to a file is written to FILE.part, which is renamed to FILE when it is complete and on the disk. The same
command resumes after the last whole line of FILE.part, once it has checked that the file belongs to the same answer.
"""

from __future__ import annotations

import asyncio
import csv
import io
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from cotacoes.cli.export_file import PartialFile
from cotacoes.cli.output import AGREEMENT_COLUMNS, printable, put_text, say, understood
from cotacoes.client.answers import read_quotes
from cotacoes.errors import PositionGoneError, SettingError, UnavailableError
from cotacoes.model.payloads import GapJson, PageJson
from cotacoes.model.quote import Position, QuoteJson, agreement_fields
from cotacoes.patterns.resilience.backoff import Backoff

if TYPE_CHECKING:
    from cotacoes.web.service_client import ServiceClient

COLUMNS = ("coin", "position", "at", "observed_at", "price", "currency", "origin")
PAGE_QUOTES = 2_000
PATIENCE_S = 60.0
SHOW_S, SAY_S = 0.2, 10.0  # between two reports of progress, on a terminal and elsewhere

Format = Literal["csv", "ndjson"]


@dataclass(frozen=True)
class ExportRequest:
    """What to export: a coin in lower case, and times in RFC 3339 as `format_time` writes them; None is no bound.

    `has_agreement`: CSV with AGREEMENT_COLUMNS too. A line of NDJSON has them whenever its quote has an agreement.
    """

    coin: str
    start: str | None
    end: str | None
    form: Format
    has_agreement: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of CSV."""
        return COLUMNS + AGREEMENT_COLUMNS if self.has_agreement else COLUMNS

    @property
    def head(self) -> str:
        """The text before the first quote."""
        return f"{','.join(self.columns)}\n" if self.form == "csv" else ""

    @property
    def begins(self) -> str:
        """The text with which every file of this coin and format begins."""
        return self.head or f'{{"{COLUMNS[0]}":"{self.coin}","{COLUMNS[1]}":"'

    def line(self, one: QuoteJson | GapJson) -> str:
        """The line of a quote, or of a gap: AFTER..THROUGH as the position, its reason as the origin."""
        values: tuple[str, ...]
        agreed: Mapping[str, object] = {}
        if isinstance(one, GapJson):
            values = (self.coin, f"{one.after}..{one.through}", "", "", "", "", one.reason)
        else:
            position = f"{one.epoch}-{one.seq}"
            values = (one.coin, position, one.at, one.observed_at, one.price, one.currency, one.origin)
            agreed = agreement_fields(one.agreement())
        fields = {**dict(zip(COLUMNS, map(printable, values), strict=True)), **agreed}
        if self.form == "ndjson":
            return f"{msgspec.json.encode(fields).decode()}\n"
        written = io.StringIO()
        csv.writer(written, lineterminator="\n").writerow([fields.get(column, "") for column in self.columns])
        return written.getvalue()

    def read(self, line: str) -> tuple[str, str]:
        """The position and the time in a line that `line` wrote; ValueError if it is of another coin or format.

        A gap has its last position, after which the export continues, and an empty time.
        """
        try:
            fields = msgspec.json.decode(line, type=dict[str, str | int]) if self.form == "ndjson" else None
        except msgspec.MsgspecError as error:
            raise ValueError("not a line of NDJSON") from error
        cells = [str(cell) for cell in fields.values()] if fields is not None else next(csv.reader([line]), [])
        if fields is None:
            is_ours = len(cells) == len(self.columns)
        else:
            is_ours = tuple(fields) in (COLUMNS, COLUMNS + AGREEMENT_COLUMNS)
        if not is_ours or cells[0] != self.coin:
            raise ValueError("another coin, or other columns")
        return str(Position.parse(cells[1].rpartition("..")[2])), cells[2]


class ExportProgress:
    """Progress on stderr: quotes, the time reached and quotes per second; silent if nobody would read it."""

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
        """Count these quotes as written."""
        self._reason = ""
        self._count += len(quotes)
        if self._is_shown and quotes and self._clock() >= self._next:
            self._show(f"{self._count} quotes, up to {quotes[-1].at}, {self._speed()}")
            self._next = self._clock() + (SHOW_S if self._is_terminal else SAY_S)

    def wait(self, reason: str) -> None:
        """Say what the export waits for, once until the next page."""
        if self._is_shown and reason != self._reason:
            self._show(f"waiting: {reason}")
            self._reason = reason

    def end(self, where: str) -> None:
        """Say that everything is written."""
        if self._is_shown:
            self._show(f"exported {self._count} quotes{where}, {self._speed()}")

    def close(self) -> None:
        """End the line, so that the next message has its own."""
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
    """One export. A test can pass its own `sleep`, `clock` and `dice`."""

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
        """Export to standard output."""
        put_text(self._wanted.head)
        async for page in self._pages(None):
            put_text("".join(map(self._wanted.line, page.lines())))
            self._progress.advance(page.quotes)
        self._progress.end("")

    async def to_file(self, file: Path) -> None:
        """Export to FILE.part, or resume there, and rename it to FILE; SettingError if that is impossible."""
        with PartialFile(file, self._wanted.head.encode(), self._wanted.begins.encode()) as part:
            after = await self._resumed(part)
            async for page in self._pages(after):
                part.write("".join(map(self._wanted.line, page.lines())).encode())
                self._progress.advance(page.quotes)
            part.complete()
        self._progress.end(f" into {file}")

    async def _resumed(self, part: PartialFile) -> str | None:
        """The last position in the partial file; None if it has none. SettingError if it is of another export."""
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
        say(f"resuming after {last}")
        return last

    async def _pages(self, after: str | None, *, first_only: bool = False) -> AsyncIterator[PageJson]:
        """The pages of the range."""
        wanted = self._wanted
        more = True
        while more:
            asked: dict[str, Any] = {"after": after, "start": wanted.start, "end": wanted.end}
            answer = await self._patiently(asked, 1 if first_only else self._page_quotes)
            page = understood(answer, PageJson, "quote_service")
            read_quotes(wanted.coin, answer, None if after is None else Position.parse(after))
            yield page
            more, after = page.more and bool(page.quotes) and not first_only, page.next

    async def _patiently(self, asked: dict[str, Any], limit: int) -> dict[str, Any]:
        """Request one page until it comes; raises the last error if none came for `PATIENCE_S`."""
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


async def export(client: ServiceClient, wanted: ExportRequest, output: Path | None) -> int:
    """Export to a file or to standard output; returns the exit code."""
    progress = ExportProgress(into_file=output is not None)
    run = Export(client, wanted, progress)
    try:
        await (run.to_stdout() if output is None else run.to_file(output))
    finally:
        progress.close()
    return 0
