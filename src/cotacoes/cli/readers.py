"""The commands that ask a running system: each asks its service, prints the answer and returns the exit code."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cotacoes import config
from cotacoes.cli.faults import merged
from cotacoes.cli.lines import (
    REPORT_COLUMNS,
    Current,
    Page,
    Report,
    fault_lines,
    history_line,
    put,
    put_json,
    put_table,
    quote_line,
    report_rows,
    report_words,
    understood,
)
from cotacoes.cli.options import data_folder
from cotacoes.client import Client
from cotacoes.errors import ServiceUnavailableError

OK, STALE = 0, 3
LAST_DEFAULT = 20
PAGE_QUOTES = 1000

Ask = Callable[[Path, str], dict[str, Any]]


def find_system(given: Path | None, ask: Ask) -> dict[str, str]:
    """The environment of the system to ask: of the one that runs on the data folder, else this process's own.

    ServiceUnavailableError where a folder was given and nothing runs on it: another system is not what is meant.
    """
    try:
        found: Mapping[str, str] = ask(data_folder(given), "env")["env"]
    except ServiceUnavailableError:
        if given is not None:
            raise
        found = {}
    return {name: value for name, value in {**os.environ, **found}.items() if name.startswith(config.PREFIX)}


async def quote(client: Client, coin: str, *, as_json: bool) -> int:
    """The current quote; exit code 3 where it is stale."""
    answer = await client.current(coin.lower())
    shown = understood(answer, Current, "quote_service")
    if as_json:
        put_json(answer)
    else:
        put(quote_line(shown))
    return OK if shown.status == "fresh" else STALE


async def report(client: Client, *, as_json: bool) -> int:
    """The full report."""
    answer = await client.report()
    if as_json:
        put_json(answer)
        return OK
    shown = understood(answer, Report, "aggregator_service")
    put_table(REPORT_COLUMNS, report_rows(shown))
    for line in report_words(shown):
        put(line)
    return OK


async def history(client: Client, coin: str, *, last: int | None, after: str | None, as_json: bool) -> int:
    """The `last` quotes, or all after a position, a page at a time, until the end that is found there."""
    if after is None:
        _put_page(await client.quotes(coin.lower(), last=last or LAST_DEFAULT), as_json=as_json)
        return OK
    while after is not None:
        page = _put_page(await client.quotes(coin.lower(), after=after, limit=PAGE_QUOTES), as_json=as_json)
        after = page.next if page.more and page.quotes else None
    return OK


def _put_page(page: Mapping[str, Any], *, as_json: bool) -> Page:
    shown = understood(page, Page, "quote_service")
    for quote, told in zip(shown.quotes, page["quotes"], strict=True):
        if as_json:
            put_json(told)
        else:
            put(history_line(quote))
    return shown


async def faults(client: Client, words: Sequence[str], *, as_json: bool) -> int:
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
