"""What the commands print: lines that awk can read, and tables where there are columns.

Data goes to stdout, talk to stderr. Nothing that came over the wire reaches a terminal with its control characters.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from cotacoes.cli.tables import table_lines
from cotacoes.errors import OutputError, ServiceUnavailableError, SettingError
from cotacoes.model.candle import CandleJson
from cotacoes.model.payloads import CurrentJson, GapJson
from cotacoes.model.quote import (
    CurrencyText,
    OriginText,
    PositionText,
    QuoteJson,
    TimeText,
)

T = TypeVar("T")

UNKNOWN = "?"  # missing
NONE = "-"  # known, and there is none


class HistoryPage(msgspec.Struct, frozen=True):
    """What is shown of a page of the history."""

    quotes: list[QuoteJson]
    next: PositionText | None
    more: bool
    gaps: list[GapJson] = []

    def lines(self) -> Iterator[QuoteJson | GapJson]:
        """What is shown, in order: each quote, and before it what the history lacks there."""
        gaps = {gap.through: gap for gap in self.gaps}
        for quote in self.quotes:
            before = quote.prev if quote.seq == 1 else f"{quote.epoch}-{quote.seq - 1}"
            if before is not None and before in gaps:
                yield gaps[before]
            yield quote


class CandlePage(msgspec.Struct, frozen=True):
    """What is shown of a page of candles."""

    currency: CurrencyText
    origin: OriginText
    candles: list[CandleJson]
    next: TimeText | None
    through: PositionText


def put(line: str) -> None:
    """One line of data."""
    _write(f"{printable(line)}\n")


def put_text(text: str) -> None:
    """Data in whole lines, free of what would command a terminal."""
    _write(text)


def put_json(data: object) -> None:
    """One line of JSON; what would command a terminal is escaped, which is the same JSON."""
    text = msgspec.json.encode(data).decode()
    if not text.isprintable():  # outside its strings, JSON has printable characters only
        text = "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)
    _write(f"{text}\n")


def say(line: str) -> None:
    """One line to the person; nobody can be told that it cannot be written."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{printable(line)}\n")


def confirms(question: str, *, without: str) -> bool:
    """Whether a person says yes; SettingError, which says what to do `without` one, if nobody can be asked."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise SettingError(f"there is no terminal to ask on: {without}")
    sys.stderr.write(f"{printable(question)} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def put_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table, in columns that fit a terminal; coloured only there, and not with NO_COLOR."""
    width = terminal_width()
    is_coloured = width is not None and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    for line in table_lines(columns, cells, width=width, coloured=is_coloured):
        _write(f"{line}\n")


def terminal_width() -> int | None:
    """The columns of the terminal that stdout is; None if it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def flush() -> None:
    """Hand on what was put; BrokenPipeError where nobody reads it, OutputError where it can not be written."""
    _write("", flush=True)


def _write(text: str, *, flush: bool = False) -> None:
    try:
        sys.stdout.write(text)
        if flush:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError.of(error) from error


def printable(text: str) -> str:
    """The text without what would command a terminal."""
    return "".join(character if character.isprintable() else "�" for character in text)


def understood(answer: Mapping[str, Any], kind: type[T], service: str) -> T:
    """The answer as what it should be; ServiceUnavailableError where it is something else."""
    try:
        return msgspec.convert(answer, kind)
    except msgspec.ValidationError as error:
        raise ServiceUnavailableError(f"{service} did not answer as it should") from error


def quote_line(quote: CurrentJson) -> str:
    """`bitcoin 67012.34 USD fresh 0.4 s old sim 1732400000000-42`."""
    position = f"{quote.epoch}-{quote.seq}"
    return f"{quote.coin} {money(quote)} {quote.status} {age_text(quote.age_ms)} {quote.origin} {position}"


def gap_line(coin: str, gap: GapJson) -> str:
    """`- bitcoin - - hole 1732400000000-43..1732400000000-99`: with as many columns as a quote has."""
    return f"{NONE} {coin} {NONE} {NONE} {gap.reason} {gap.after}..{gap.through}"


def history_line(quote: QuoteJson) -> str:
    """`2026-11-24T12:00:00.123456Z bitcoin 67012.34 USD sim 1732400000000-42`."""
    return f"{quote.at} {quote.coin} {money(quote)} {quote.origin} {quote.epoch}-{quote.seq}"


CANDLE_COLUMNS = ("at", "open", "high", "low", "close", "mean", "count", "state")


def candle_row(candle: CandleJson) -> tuple[object, ...]:
    """One row, under CANDLE_COLUMNS."""
    prices = (candle.open, candle.high, candle.low, candle.close, candle.mean)
    closed = "closed" if candle.closed else "open"
    return (candle.at, *(NONE if price is None else price for price in prices), candle.count, closed)


def money(quote: CurrentJson | QuoteJson) -> str:
    """`67012.34 USD`."""
    return f"{quote.price} {quote.currency}"


def age_text(age_ms: int) -> str:
    """`0.4 s old`."""
    return f"{age_ms / 1000:.1f} s old"


def export_lines(environment: Mapping[str, str], programs: str) -> Iterator[str]:
    """What a shell evaluates to get the variables, and the folder `programs` at the end of its PATH."""
    yield from (f"export {name}={shlex.quote(value)}" for name, value in environment.items())
    yield f'export PATH="$PATH:"{shlex.quote(programs)}'


def fault_lines(setting: Mapping[str, Any]) -> Iterator[str]:
    """`error_rate=0.2`, as `cotacoes faults` takes them."""
    for name, value in setting.items():
        if name == "kinds":
            yield from (f"{kind}={rate:g}" for kind, rate in value.items())
        elif isinstance(value, list):
            yield f"{name}={','.join(map(str, value)) or 'none'}"
        else:
            yield f"{name}={'none' if value is None else json.dumps(value)}"
