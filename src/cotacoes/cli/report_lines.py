"""The report as `cotacoes report` prints it: how each coin is, how it went, what is missing, who was asked when."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal

import msgspec

from cotacoes.cli.output import NONE, UNKNOWN, CurrentQuote, age_text, money, put, put_table, terminal_width, understood
from cotacoes.model.quote import ComputedText, PositionText, QuoteJson, TimeText, parse_time
from cotacoes.model.window import WindowJson

BAR, BAR_MIN = 40, 8  # characters of a waterfall's time
BESIDE_BAR = 36  # what stands left and right of it
SPARK = 30  # characters of a sparkline
_LEVELS = "▁▂▃▄▅▆▇█"
WINDOW_COLUMNS = ("coin", "open", "high", "low", "close", "change", "mean", "quotes", "minutes", "holes", "closes")
_LEVELS_PLAIN = "12345678"  # if the output's encoding has no blocks
REPORT_COLUMNS = ("coin", "price", "status", "age", "mean", "of", "logs", "through", "pending")


class Mean(msgspec.Struct, frozen=True):
    """What is shown of a mean."""

    average: ComputedText
    count: int


class CoinReport(msgspec.Struct, frozen=True):
    """One coin of the report; what is missing is None."""

    current: CurrentQuote | None
    average: Mean | None
    last_logs: list[QuoteJson] | None
    through: PositionText | None
    pending: int | None
    window: WindowJson | None


class MissingPart(msgspec.Struct, frozen=True):
    """A part that the report goes without."""

    part: str
    reason: str


class Step(msgspec.Struct, frozen=True):
    """How one branch of the report went."""

    branch: str
    status: str
    start_ms: float
    elapsed_ms: float
    attempts: int
    reason: str | None


class Over(msgspec.Struct, frozen=True):
    """The time that the windows are of."""

    name: Literal["1h", "24h", "7d"]
    to: TimeText


class Report(msgspec.Struct, frozen=True):
    """What is shown of the report."""

    generated_at: TimeText
    elapsed_ms: int
    coins: dict[str, CoinReport]
    missing: list[MissingPart]
    window: Over
    trace: list[Step] = []


def put_report(answer: Mapping[str, Any]) -> None:
    """Print a report: its tables, what is missing, and how each branch went if it was traced."""
    report = understood(answer, Report, "aggregator_service")
    put_table(REPORT_COLUMNS, report_rows(report))
    put(window_words(report))
    put_table(WINDOW_COLUMNS, window_rows(report, levels_for(sys.stdout.encoding)))
    bar = min(BAR, max(BAR_MIN, (terminal_width() or BAR + BESIDE_BAR) - BESIDE_BAR))
    for line in (*report_words(report), *waterfall(report, bar)):
        put(line)


def report_rows(report: Report) -> Iterator[tuple[object, ...]]:
    """One row a coin, under REPORT_COLUMNS."""
    for coin, told in report.coins.items():
        quote, mean = told.current, told.average
        yield (
            coin,
            *((UNKNOWN,) * 3 if quote is None else (money(quote), quote.status, age_text(quote.age_ms))),
            *((UNKNOWN,) * 2 if mean is None else (mean.average, mean.count)),
            *((UNKNOWN,) * 2 if told.last_logs is None else (len(told.last_logs), told.through or NONE)),
            UNKNOWN if told.pending is None else told.pending,
        )


def window_rows(report: Report, levels: str = _LEVELS) -> Iterator[tuple[object, ...]]:
    """One row a coin, under the columns of its window."""
    for coin, told in report.coins.items():
        its = told.window
        if its is None:
            yield (coin, *((UNKNOWN,) * (len(WINDOW_COLUMNS) - 1)))
            continue
        prices = (NONE if price is None else price for price in (its.open, its.high, its.low, its.close))
        change = NONE if its.change_percent is None else f"{Decimal(its.change_percent):+.2f} %"
        counts = (its.count, its.minutes, its.holes)
        yield (coin, *prices, change, its.mean or NONE, *counts, sparkline(its.closes, levels=levels))


def window_words(report: Report) -> str:
    """`24h until 2026-11-30T07:13:00.000000Z`, and what of it is held if that is less: `24h (18 min held) until …`."""
    name, to = report.window.name, report.window.to
    windows = {coin: told.window for coin, told in report.coins.items() if told.window is not None}
    held = {coin: held_text(its) for coin, its in windows.items() if not its.complete}
    if not held:
        return f"{name} until {to}"
    if len(held) == len(windows) and len(set(held.values())) == 1:
        return f"{name} ({next(iter(held.values()))} held) until {to}"
    return f"{name} ({', '.join(f'{coin}: {text} held' for coin, text in held.items())}) until {to}"


def held_text(window: WindowJson) -> str:
    """`18 min`, `7 h 5 min`: how long the quotes are apart that its figures are of."""
    if window.from_ is None or window.to is None:
        return "nothing"
    minutes = round((parse_time(window.to) - parse_time(window.from_)).total_seconds() / 60)
    days, minutes = divmod(minutes, 1_440)
    hours, minutes = divmod(minutes, 60)
    return " ".join(f"{count} {unit}" for count, unit in ((days, "d"), (hours, "h"), (minutes, "min")) if count)


def levels_for(encoding: str | None) -> str:
    """The signs of a sparkline that this encoding can write, from the lowest price to the highest."""
    try:
        _LEVELS.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return _LEVELS_PLAIN
    return _LEVELS


def sparkline(prices: Sequence[str | None], width: int = SPARK, levels: str = _LEVELS) -> str:
    """How the price went, in at most so many characters; `·` if there was none."""
    some = max(1, -(-len(prices) // width))  # prices that share a character, of which it shows the last
    shown = [next(filter(None, reversed(prices[at : at + some])), None) for at in range(0, len(prices), some)]
    known = [Decimal(price) for price in shown if price is not None]
    if not known:
        return "·" * len(shown)
    low, high = min(known), max(known)
    middle = levels[len(levels) // 2]

    def level(price: Decimal) -> str:
        return middle if low == high else levels[int((price - low) * (len(levels) - 1) / (high - low))]

    return "".join("·" if price is None else level(Decimal(price)) for price in shown)


def report_words(report: Report) -> Iterator[str]:
    """What is missing, and why; or that nothing is."""
    yield f"{report.generated_at} in {report.elapsed_ms} ms, {'incomplete' if report.missing else 'complete'}"
    for missing in report.missing:
        yield f"missing {missing.part}: {missing.reason}"


def waterfall(report: Report, bar_width: int = BAR) -> Iterator[str]:
    """A line for each branch: when it was at work, how it ended, and why if it is not ok."""
    whole_ms = max((step.start_ms + step.elapsed_ms for step in report.trace), default=0.0) or 1.0
    width = max((len(step.branch) for step in report.trace), default=0)
    for step in report.trace:
        first = min(int(step.start_ms / whole_ms * bar_width), bar_width - 1)
        bar = "=" * max(1, round(step.elapsed_ms / whole_ms * bar_width))
        tries = f", {step.attempts} calls" if step.attempts > 1 else ""
        reason = f": {step.reason}" if step.reason else ""
        at_work = f"{' ' * first}{bar}"[:bar_width].ljust(bar_width)
        yield f"{step.branch:<{width}} |{at_work}| {step.elapsed_ms:7.1f} ms  {step.status}{tries}{reason}"
