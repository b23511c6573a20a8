"""The report as `cotacoes report` prints it: the coins, their windows, what is missing, and when each branch worked."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from cotacoes.cli.output import NONE, UNKNOWN, age_text, can_encode, money, put, put_table, terminal_width, understood
from cotacoes.model.payloads import ReportJson
from cotacoes.model.quote import parse_time
from cotacoes.model.window import WindowJson

BAR, BAR_MIN = 40, 8  # characters for the time in a waterfall
BESIDE_BAR = 36  # characters beside the bar
SPARK = 30  # characters of a sparkline
_LEVELS = "▁▂▃▄▅▆▇█"
WINDOW_COLUMNS = ("coin", "open", "high", "low", "close", "change", "mean", "quotes", "minutes", "holes", "closes")
_LEVELS_PLAIN = "12345678"  # if the encoding of the output has no blocks
REPORT_COLUMNS = ("coin", "price", "status", "age", "mean", "of", "logs", "through", "pending")


def put_report(answer: Mapping[str, Any]) -> None:
    """Print a report: its tables, what is missing, and how each branch went if it was traced."""
    report = understood(answer, ReportJson, "aggregator_service")
    put_table(REPORT_COLUMNS, report_rows(report))
    put(window_words(report))
    put_table(WINDOW_COLUMNS, window_rows(report, levels_for(sys.stdout.encoding)))
    bar = min(BAR, max(BAR_MIN, (terminal_width() or BAR + BESIDE_BAR) - BESIDE_BAR))
    for line in (*report_words(report), *waterfall(report, bar)):
        put(line)


def report_rows(report: ReportJson) -> Iterator[tuple[object, ...]]:
    """One row for each coin, in the order of REPORT_COLUMNS."""
    for coin, parts in report.coins.items():
        quote, mean, logs = parts.current, parts.average, parts.last_logs
        yield (
            coin,
            *((money(quote), quote.status, age_text(quote.age_ms)) if quote else (UNKNOWN,) * 3),
            *((mean.average, mean.count) if mean else (UNKNOWN,) * 2),
            *((len(logs), parts.through or NONE) if isinstance(logs, list) else (UNKNOWN,) * 2),
            parts.pending if isinstance(parts.pending, int) else UNKNOWN,
        )


def window_rows(report: ReportJson, levels: str = _LEVELS) -> Iterator[tuple[object, ...]]:
    """One row for each coin, in the order of WINDOW_COLUMNS."""
    for coin, parts in report.coins.items():
        window = parts.window
        if not window:
            yield (coin, *((UNKNOWN,) * (len(WINDOW_COLUMNS) - 1)))
            continue
        prices = (NONE if price is None else price for price in (window.open, window.high, window.low, window.close))
        change = NONE if window.change_percent is None else f"{Decimal(window.change_percent):+.2f} %"
        counts = (window.count, window.minutes, window.holes)
        yield (coin, *prices, change, window.mean or NONE, *counts, sparkline(window.closes, levels=levels))


def window_words(report: ReportJson) -> str:
    """`24h until 2026-11-30T07:13:00.000000Z`, or `24h (18 min held) until …` if the quotes cover less."""
    if not report.window:
        return "no window"
    name, to = report.window.name, report.window.to
    windows = {coin: parts.window for coin, parts in report.coins.items() if parts.window}
    held = {coin: held_text(window) for coin, window in windows.items() if not window.complete}
    if not held:
        return f"{name} until {to}"
    if len(held) == len(windows) and len(set(held.values())) == 1:
        return f"{name} ({next(iter(held.values()))} held) until {to}"
    return f"{name} ({', '.join(f'{coin}: {text} held' for coin, text in held.items())}) until {to}"


def held_text(window: WindowJson) -> str:
    """`18 min`, `7 h 5 min`: the time that the quotes of the window cover."""
    if window.from_ is None or window.to is None:
        return "nothing"
    minutes = round((parse_time(window.to) - parse_time(window.from_)).total_seconds() / 60)
    days, minutes = divmod(minutes, 1_440)
    hours, minutes = divmod(minutes, 60)
    return " ".join(f"{count} {unit}" for count, unit in ((days, "d"), (hours, "h"), (minutes, "min")) if count)


def levels_for(encoding: str | None) -> str:
    """The characters of a sparkline that this encoding has, from the lowest price to the highest."""
    return _LEVELS if can_encode(_LEVELS, encoding) else _LEVELS_PLAIN


def sparkline(prices: Sequence[str | None], width: int = SPARK, levels: str = _LEVELS) -> str:
    """The course of a price, in at most `width` characters; `·` for a time without a price."""
    some = max(1, -(-len(prices) // width))  # so many prices share a character, which shows the last of them
    shown = [next(filter(None, reversed(prices[at : at + some])), None) for at in range(0, len(prices), some)]
    known = [Decimal(price) for price in shown if price is not None]
    if not known:
        return "·" * len(shown)
    low, high = min(known), max(known)
    middle = levels[len(levels) // 2]

    def level(price: Decimal) -> str:
        return middle if low == high else levels[int((price - low) * (len(levels) - 1) / (high - low))]

    return "".join("·" if price is None else level(Decimal(price)) for price in shown)


def report_words(report: ReportJson) -> Iterator[str]:
    """Whether the report is complete, and a line for each missing part, with the reason."""
    yield f"{report.generated_at} in {report.elapsed_ms} ms, {'incomplete' if report.missing else 'complete'}"
    for missing in report.missing:
        yield f"missing {missing.part}: {missing.reason}"


def waterfall(report: ReportJson, bar_width: int = BAR) -> Iterator[str]:
    """A line for each branch: when it was at work, how it ended, and why if it is not ok."""
    branches = report.trace or []
    whole_ms = max((one.start_ms + one.elapsed_ms for one in branches), default=0.0) or 1.0
    width = max((len(one.branch) for one in branches), default=0)
    for one in branches:
        first = min(int(one.start_ms / whole_ms * bar_width), bar_width - 1)
        bar = "=" * max(1, round(one.elapsed_ms / whole_ms * bar_width))
        calls = f", {one.attempts} calls" if one.attempts > 1 else ""
        reason = f": {one.reason}" if one.reason else ""
        at_work = f"{' ' * first}{bar}"[:bar_width].ljust(bar_width)
        yield f"{one.branch:<{width}} |{at_work}| {one.elapsed_ms:7.1f} ms  {one.status}{calls}{reason}"
