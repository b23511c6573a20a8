"""The commands that query a running system: each asks a service, prints the answer and returns the exit code."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cotacoes.cli.options import data_folder
from cotacoes.cli.output import (
    CANDLE_COLUMNS,
    candle_row,
    gap_line,
    history_line,
    put,
    put_json,
    put_table,
    quote_line,
    say,
    understood,
)
from cotacoes.errors import ServiceUnavailableError
from cotacoes.errors.exit_codes import OK, STALE
from cotacoes.model.payloads import CandlesJson, GapJson, PageJson
from cotacoes.model.window import DEFAULT_WINDOW
from cotacoes.up import control

if TYPE_CHECKING:
    from cotacoes import config
    from cotacoes.web.service_client import ServiceClient

PREFIX = "COTACOES_"  # of all variables that are settings
SERVICES = ("gateway", "quote", "aggregator", "external")
FEED_URL, SOURCE = f"{PREFIX}FEED_URL", f"{PREFIX}SOURCE"  # exported as well if exchanges are the source
EXPORTED = {
    *(f"{PREFIX}{name.upper()}_URL" for name in (*SERVICES, "redis")),
    *(f"{PREFIX}{name}" for name in ("SHARD1_DSN", "SHARD2_DSN", "ADMIN_TOKEN")),
}  # by `cotacoes env`
LAST_DEFAULT = 20
PAGE_QUOTES = 1000
PAGE_CANDLES = 1000
TABLE_CANDLES_MAX = 10_000  # nobody reads a longer table; JSON has no limit

Ask = Callable[[Path, str], dict[str, Any]]


def find_system(
    given: Path | None,
    ask: Ask,
    environment: Mapping[str, str] = os.environ,
    find_folder: Callable[[int], Path | None] | None = None,
) -> dict[str, str]:
    """The environment of the system to query: the one on the data folder, else the one that the environment names.

    ServiceUnavailableError if there is neither. A system that answers on the default ports but belongs to another
    folder is named in the error (`find_folder` finds it by its port), and not queried.
    """
    found: Mapping[str, str] = {}
    try:
        found = ask(data_folder(given), "env")["env"]
    except ServiceUnavailableError as error:
        from cotacoes import config
        from cotacoes.cli.other_system import data_folder_on

        if given is None and any(environment.get(name) for name in _naming(config.Settings.model_fields)):
            return _ours(environment)
        port = config.Settings.model_fields["port_base"].default
        other = (find_folder or data_folder_on)(port)
        if other is None or other == data_folder(given).absolute():
            raise
        raise ServiceUnavailableError(
            f"{error.detail}; the system on port {port} belongs to {other}: query it with --data {other}"
        ) from error
    return _ours({**environment, **found})


def _naming(fields: Iterable[str]) -> Iterator[str]:
    """The variables that say where a system is."""
    for name in fields:
        if name == "port_base" or name.endswith(("_url", "_dsn")):
            yield f"{PREFIX}{name.upper()}"


def _ours(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(PREFIX)}


def settings_of(given: Path | None) -> config.Settings:
    """The settings of the system to query."""
    from cotacoes import config

    return config.load(find_system(given, control.ask))


def ask_services(data: Path | None, ask: Callable[[ServiceClient], Awaitable[int]]) -> int:
    """Run a command with a client for the services of the system to query, and return its exit code."""
    services = client_for(data)

    async def asking() -> int:
        async with services as client:
            return await ask(client)

    return asyncio.run(asking())


def client_for(given: Path | None) -> ServiceClient:
    """A client for the services of the system to query, not yet open.

    A running `up` names all that a client needs. The settings, which are slow to load, are read only if the environment
    has other variables.
    """
    variables = find_system(given, control.ask)
    if variables.keys() - {f"{PREFIX}DATA", FEED_URL, SOURCE} == EXPORTED:
        from cotacoes.web.service_client import Addresses, ServiceClient

        addresses = {f"{name}_service": variables[f"{PREFIX}{name.upper()}_URL"] for name in SERVICES}
        addresses["feed_service"] = variables.get(FEED_URL, "")
        return ServiceClient(Addresses(**addresses), admin_token=variables[f"{PREFIX}ADMIN_TOKEN"])
    from cotacoes import config

    return client_of(config.load(variables))


def client_of(settings: config.Settings) -> ServiceClient:
    """A client for the services that the settings name, not yet open."""
    from cotacoes.web.service_client import Addresses, ServiceClient

    return ServiceClient(Addresses.of(settings), admin_token=settings.admin_token.get_secret_value())


async def quote(client: ServiceClient, coin: str, *, as_json: bool) -> int:
    """Print the current quote; the exit code is 3 if it is stale."""
    current = await client.current(coin.lower())
    if as_json:
        put_json(current)
    else:
        put(quote_line(current))
    return OK if current.status == "fresh" else STALE


async def report(
    client: ServiceClient,
    coins: Sequence[str] = (),
    *,
    window: str = DEFAULT_WINDOW,
    trace: bool = False,
    as_json: bool,
) -> int:
    """Print the report of these coins, or of all; with `trace` also how each branch went."""
    answer = await client.report([coin.lower() for coin in coins], window=window, trace=trace)
    if as_json:
        put_json(answer)
        return OK
    from cotacoes.cli.report_lines import put_report

    put_report(answer)
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
    """Print the `last` quotes, or page by page all that match the position and the time range."""
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
    """Print the `last` intervals, or those from a time on, as a table or as lines of JSON."""
    rows: list[tuple[object, ...]] = []
    limit = (last or LAST_DEFAULT) if start is None else page_candles
    following = start
    while True:
        answer = await client.candles(coin.lower(), interval, start=following, end=end, limit=limit, empty=empty)
        page = understood(answer, CandlesJson, "quote_service")
        kind = {"coin": coin.lower(), "currency": page.currency, "origin": page.origin, "interval": interval}
        if as_json:
            for candle in answer["candles"]:
                put_json(kind | candle)
        else:
            rows += map(candle_row, page.candles)
        following = page.next
        if start is None or following is None or len(rows) >= table_candles_max:
            break
    if not as_json:
        put_table(CANDLE_COLUMNS, rows)
        say(f"{kind['coin']} in {page.currency} of {page.origin}, {interval}, through {page.through}")
        if start is not None and following is not None:
            say(f"there are more: continue with --from {following}, or use --json")
    return OK


def _put_page(coin: str, page: Mapping[str, Any], *, as_json: bool) -> PageJson:
    shown = understood(page, PageJson, "quote_service")
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
    """Print the current faults, after adding `words` to them; `clear` alone removes them all."""
    from cotacoes.cli.faults import MARKET, SOURCE, fault_lines, merged_all, no_faults

    source, simulated = await client.faults(), await client.simulated_venues()
    current: dict[str, Mapping[str, Any]] = {SOURCE: source}
    if simulated.venues:
        venues = {name: venue.faults for name, venue in simulated.venues.items()}
        current |= {MARKET: simulated.market, **venues}
    changes = no_faults(current) if list(words) == ["clear"] else merged_all(current, words)
    for target, setting in changes.items():
        if target == SOURCE:
            current[target] = await client.set_faults(setting)
        elif target == MARKET:
            current[target] = await client.set_market_shock(setting)
        else:
            current[target] = await client.set_venue_faults(target, setting)
    if as_json:
        shown = {name: setting for name, setting in current.items() if name not in {SOURCE, MARKET}}
        put_json({**current[SOURCE], "venues": shown, "market": current.get(MARKET)})
    else:
        for line in fault_lines(current):
            put(line)
    return OK
