"""The venues: what is special about each, from its adapter, and its symbols, from the table of symbols."""

from __future__ import annotations

import inspect
import re
import sys

from docs.make_reference.markdown import WRITTEN, code, codes, joined, table

from cotacoes.feed_service.venues.registry import VENUES
from cotacoes.feed_service.venues.venue import Venue
from cotacoes.model.venue_symbols import BASES, rate_symbols_at, symbol_at

INTRODUCTION = """
A venue is an exchange whose best bid and ask feed_service follows; `COTACOES_VENUES` says which. The last price is
never used: it often lies outside the book of its own frame. `COTACOES_VENUE_URLS` gives a venue another address, and
`COTACOES_VENUE_SYMBOLS` adds to the symbols below and corrects them. [Add a venue](../how-to/add-a-venue.md) says how
to write an adapter.
"""
COINS = """
These coins have symbols; a coin may be named by its asset as well (`btc`). A coin is not subscribed at a venue that
does not list it, nor if this table lacks it, unless `COTACOES_VENUE_SYMBOLS` names its symbol there. Venues list and
delist coins at will, so a row may be out of date: a coin that a venue refuses is left out there, and the others stay.
"""


def page() -> str:
    """An overview, a section for each venue, and the coins."""
    head = ("venue", "bitcoin", "quoted in", "rates to USD", "address")
    rows = [_overview(venue) for venue in VENUES.values()]
    sections = [_section(venue) for venue in VENUES.values()]
    coins = table(
        ("coin", "asset", "not listed at"), [(code(coin), code(BASES[coin]), _unlisted(coin)) for coin in BASES]
    )
    return joined("# Venues", WRITTEN, INTRODUCTION, table(head, rows), *sections, "## Coins", COINS, coins)


def _overview(venue: Venue) -> tuple[str, ...]:
    bitcoin = symbol_at(venue.name, "bitcoin", {})
    assert bitcoin is not None
    rates = rate_symbols_at(venue.name, {})
    return code(venue.name), code(bitcoin.symbol), bitcoin.currency, codes(rates.values()), code(venue.url)


def _section(venue: Venue) -> str:
    module = sys.modules[venue.session.__module__]
    said = re.sub(r"^(https://\S+)$", r"<\1>", inspect.getdoc(module) or "", flags=re.MULTILINE)
    return joined(f"## {venue.name}", said, table(("fact", "value"), _facts(venue)))


def _facts(venue: Venue) -> list[tuple[str, str]]:
    facts = [
        ("longest silence of a healthy connection", venue.heartbeat_s),
        ("lifetime of a connection", venue.lifetime_s),
        ("interval of pings", venue.ping_s if venue.ping else None),
        ("pause between two frames to the venue", venue.pause_s or None),
    ]
    shown = [(name, f"{seconds:,.10g} s") for name, seconds in facts if seconds is not None]
    return [*shown, ("ping", code(venue.ping))] if venue.ping else shown


def _unlisted(coin: str) -> str:
    return ", ".join(name for name in VENUES if symbol_at(name, coin, {}) is None)
