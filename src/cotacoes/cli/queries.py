"""The commands that ask a running system: each asks its service, prints the answer and returns the exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cotacoes import config
from cotacoes.cli.faults import merged
from cotacoes.cli.options import data_folder
from cotacoes.cli.other_system import data_folder_on
from cotacoes.cli.output import (
    CANDLE_COLUMNS,
    CandlePage,
    CurrentQuote,
    HistoryPage,
    candle_row,
    fault_lines,
    gap_line,
    history_line,
    put,
    put_json,
    put_table,
    quote_line,
    say,
    terminal_width,
    understood,
)
from cotacoes.cli.report_lines import (
    BAR,
    BAR_MIN,
    BESIDE_BAR,
    REPORT_COLUMNS,
    WINDOW_COLUMNS,
    Report,
    levels_for,
    report_rows,
    report_words,
    waterfall,
    window_rows,
    window_words,
)
from cotacoes.client import ServiceClient
from cotacoes.errors import ServiceUnavailableError
from cotacoes.errors.exit_codes import OK, STALE
from cotacoes.model.payloads import GapJson
from cotacoes.model.window import DEFAULT_WINDOW
from cotacoes.up import control

LAST_DEFAULT = 20
PAGE_QUOTES = 1000
PAGE_CANDLES = 1000
TABLE_CANDLES_MAX = 10_000  # a longer table is one that nobody reads; JSON has no end

NAMING = tuple(
    f"{config.PREFIX}{name.upper()}"
    for name in config.Settings.model_fields
    if name == "port_base" or name.endswith(("_url", "_dsn"))
)  # the variables that say where a system is
_GATEWAY_PORT = config.Settings.model_fields["port_base"].default

Ask = Callable[[Path, str], dict[str, Any]]


def find_system(
    given: Path | None,
    ask: Ask,
    environment: Mapping[str, str] = os.environ,
    look: Callable[[int], Path | None] = data_folder_on,
) -> dict[str, str]:
    """The environment of the system to ask: the one that runs on the data folder, else one that the environment names.

    ServiceUnavailableError if neither is there. A system that only happens to answer on the default ports is another
    folder's: it is named (`look` finds it by its port), and not asked.
    """
    found: Mapping[str, str] = {}
    try:
        found = ask(data_folder(given), "env")["env"]
    except ServiceUnavailableError as error:
        if given is None and any(environment.get(name) for name in NAMING):
            return _ours(environment)
        other = look(_GATEWAY_PORT)
        if other is None or other == data_folder(given).absolute():
            raise
        raise ServiceUnavailableError(
            f"{error.detail}; the system on port {_GATEWAY_PORT} is that of {other}: ask it with --data {other}"
        ) from error
    return _ours({**environment, **found})


def _ours(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(config.PREFIX)}


def settings_of(given: Path | None) -> config.Settings:
    """The settings of the system to ask."""
    return config.load(find_system(given, control.ask))


async def quote(client: ServiceClient, coin: str, *, as_json: bool) -> int:
    """The current quote; exit code 3 where it is stale."""
    answer = await client.current(coin.lower())
    shown = understood(answer, CurrentQuote, "quote_service")
    if as_json:
        put_json(answer)
    else:
        put(quote_line(shown))
    return OK if shown.status == "fresh" else STALE


async def report(
    client: ServiceClient,
    coins: Sequence[str] = (),
    *,
    window: str = DEFAULT_WINDOW,
    trace: bool = False,
    as_json: bool,
) -> int:
    """The report of these coins, or of all, over a window; with `trace` also how each branch of it went."""
    answer = await client.report([coin.lower() for coin in coins], window=window, trace=trace)
    if as_json:
        put_json(answer)
        return OK
    shown = understood(answer, Report, "aggregator_service")
    put_table(REPORT_COLUMNS, report_rows(shown))
    put(window_words(shown))
    put_table(WINDOW_COLUMNS, window_rows(shown, levels_for(sys.stdout.encoding)))
    bar = min(BAR, max(BAR_MIN, (terminal_width() or BAR + BESIDE_BAR) - BESIDE_BAR))
    for line in (*report_words(shown), *waterfall(shown, bar)):
        put(line)
    return OK


async def history(
    client: ServiceClient,
    coin: str,
    *,
    last: int | None,
    after: str | None,
    start: str | None = None,
    end: str | None = None,
    as_json: bool,
) -> int:
    """The `last` quotes, or all after a position and of a time range, by pages, to the end that is found there."""
    if after is None and start is None and end is None:
        _put_page(coin.lower(), await client.quotes(coin.lower(), last=last or LAST_DEFAULT), as_json=as_json)
        return OK
    more = True
    while more:
        answer = await client.quotes(coin.lower(), after=after, start=start, end=end, limit=PAGE_QUOTES)
        page = _put_page(coin.lower(), answer, as_json=as_json)
        more, after = page.more and bool(page.quotes), page.next
    return OK


async def candles(
    client: ServiceClient,
    coin: str,
    interval: str,
    *,
    last: int | None,
    start: str | None,
    end: str | None,
    empty: bool,
    as_json: bool,
    page_candles: int = PAGE_CANDLES,
    table_candles_max: int = TABLE_CANDLES_MAX,
) -> int:
    """The `last` intervals, or those from a time on, as a table or as a line of JSON each."""
    rows: list[tuple[object, ...]] = []
    limit = (last or LAST_DEFAULT) if start is None else page_candles
    following = start
    while True:
        answer = await client.candles(coin.lower(), interval, start=following, end=end, limit=limit, empty=empty)
        page = understood(answer, CandlePage, "quote_service")
        kind = {"coin": coin.lower(), "currency": page.currency, "origin": page.origin, "interval": interval}
        if as_json:
            for told in answer["candles"]:
                put_json(kind | told)
        else:
            rows += map(candle_row, page.candles)
        following = page.next
        if start is None or following is None or len(rows) >= table_candles_max:
            break
    if not as_json:
        put_table(CANDLE_COLUMNS, rows)
        say(f"{kind['coin']} in {page.currency} of {page.origin}, {interval}, through {page.through}")
        if start is not None and following is not None:
            say(f"more follow: go on with --from {following}, or ask with --json")
    return OK


def _put_page(coin: str, page: Mapping[str, Any], *, as_json: bool) -> HistoryPage:
    shown = understood(page, HistoryPage, "quote_service")
    for line in shown.lines():
        if isinstance(line, GapJson):
            fields = {"type": "gap", "coin": coin, "after": line.after, "through": line.through, "reason": line.reason}
            put_json(fields) if as_json else put(gap_line(coin, line))
        elif as_json:
            put_json(line)
        else:
            put(history_line(line))
    return shown


async def faults(client: ServiceClient, words: Sequence[str], *, as_json: bool) -> int:
    """Show the faults in force, after putting `words` into them; `clear` alone ends them all."""
    if list(words) == ["clear"]:
        setting = await client.set_faults({})
    else:
        setting = await client.faults()
        if words:
            setting = await client.set_faults(merged(setting, words))
    if as_json:
        put_json(setting)
    else:
        for line in fault_lines(setting):
            put(line)
    return OK
