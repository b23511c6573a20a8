"""What the commands print: lines that awk can read, and tables.

Data goes to stdout, messages to stderr. Control characters from the network never reach a terminal.
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
from cotacoes.model.quote import AgreementJson, QuoteJson, format_price

T = TypeVar("T")

UNKNOWN = "?"  # not known
NONE = "-"  # known to be absent
AGREEMENT_COLUMNS = AgreementJson.__struct_fields__


def put(line: str) -> None:
    """Print one line of data."""
    _write(f"{printable(line)}\n")


def put_text(text: str) -> None:
    """Print data in whole lines that have no control characters."""
    _write(text)


def put_json(data: object) -> None:
    """Print one line of JSON, with control characters escaped."""
    text = msgspec.json.encode(data).decode()
    if not text.isprintable():  # outside its strings, JSON has printable characters only
        text = "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)
    _write(f"{text}\n")


def say(line: str) -> None:
    """Print one line for people on stderr; a failure to write it is ignored."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{printable(line)}\n")


def confirms(question: str, *, without: str) -> bool:
    """Ask a person a yes/no question. SettingError if there is no terminal; `without` says what to do then."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise SettingError(f"there is no terminal for a question: {without}")
    sys.stderr.write(f"{printable(question)} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def put_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table that fits the terminal; coloured on a terminal, unless NO_COLOR is set."""
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    for line in table_lines(columns, cells, width=terminal_width(), coloured=is_coloured()):
        _write(f"{line}\n")


def is_coloured() -> bool:
    """Whether stdout is a terminal that shows colours, and NO_COLOR is not set."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def can_encode(text: str, encoding: str | None) -> bool:
    """Whether an output of this encoding can show the text."""
    try:
        text.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def terminal_width() -> int | None:
    """The width of the terminal; None if stdout is not a terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def flush() -> None:
    """Flush stdout; BrokenPipeError if its reader has gone, OutputError if it cannot be written."""
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
    """The text with control characters replaced."""
    return "".join(character if character.isprintable() else "�" for character in text)


def understood(answer: Mapping[str, Any], kind: type[T], service: str) -> T:
    """The answer decoded as `kind`; ServiceUnavailableError if it has another shape."""
    try:
        return msgspec.convert(answer, kind)
    except msgspec.ValidationError as error:
        raise ServiceUnavailableError(f"{service} gave an answer of an unknown shape") from error


def quote_line(quote: CurrentJson) -> str:
    """`bitcoin 67012.34 USD fresh 0.4 s old sim 1732400000000-42`, and then ` agreed 12.34 5/6` if venues agreed."""
    position = f"{quote.epoch}-{quote.seq}{_agreement_text(quote)}"
    return f"{quote.coin} {money(quote)} {quote.status} {age_text(quote.age_ms)} {quote.origin} {position}"


def gap_line(coin: str, gap: GapJson) -> str:
    """`- bitcoin - - hole 1732400000000-43..1732400000000-99`, with as many columns as a quote."""
    return f"{NONE} {coin} {NONE} {NONE} {gap.reason} {gap.after}..{gap.through}"


def history_line(quote: QuoteJson) -> str:
    """`2026-11-24T12:00:00.123456Z bitcoin 67012.34 USD sim 1732400000000-42`, ending like `quote_line`."""
    position = f"{quote.epoch}-{quote.seq}{_agreement_text(quote)}"
    return f"{quote.at} {quote.coin} {money(quote)} {quote.origin} {position}"


def _agreement_text(quote: AgreementJson) -> str:
    agreement = quote.agreement()
    if agreement is None:
        return ""
    return f" {agreement.state} {format_price(agreement.confidence)} {agreement.used}/{agreement.of}"


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
    """Shell commands that export the variables and append the folder `programs` to PATH."""
    yield from (f"export {name}={shlex.quote(value)}" for name, value in environment.items())
    yield f'export PATH="$PATH:"{shlex.quote(programs)}'
