"""`cotacoes venues`: what each exchange says, what is used for the price, and why the rest is not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from cotacoes.cli import queries
from cotacoes.cli.options import AsJson, Data
from cotacoes.cli.output import NONE, put, put_json, put_table
from cotacoes.errors import UnknownCoinError
from cotacoes.model.coins import nearest
from cotacoes.model.venues import ConsensusJson, FeedJson, VenueBookJson, VenuesJson, short_price

FEED_COLUMNS = ("venue", "connection", "coins", "skew", "frames", "malformed", "openings", "last end")
BOOK_COLUMNS = ("venue", "bid", "ask", "mid in USD", "age", "skew", "used", "connection")
PRICE_COLUMNS = ("coin", "price", "state", "used", "confidence", "age")

app = typer.Typer()


@app.command()
def venues(
    coin: Annotated[str | None, typer.Argument(metavar="COIN", help="one coin (default: all venues and coins)")] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> int:
    """Show the exchanges that are followed, and the price on which they agree.

    \b
    Examples:
      cotacoes venues
      cotacoes venues bitcoin
      cotacoes venues bitcoin --json

    With a coin: what each exchange bids and asks for it, and whether that is used. The exit code is 3 if there is no
    price of the coin now.
    """
    shown = asyncio.run(_asked(data))
    if coin is None:
        if as_json:
            put_json(shown)
        else:
            _put_feeds(shown)
        return 0
    found = {consensus.coin: consensus for consensus in shown.coins}
    if coin.lower() not in found:
        raise UnknownCoinError(f"{coin.lower()} is not followed", did_you_mean=nearest(coin.lower(), list(found)))
    consensus = found[coin.lower()]
    if as_json:
        put_json(consensus)
    else:
        _put_books(consensus, {feed.venue: feed for feed in shown.feeds})
    return 0 if consensus.price is not None else 3


async def _asked(data: Path | None) -> VenuesJson:
    async with queries.client_for(data) as client:
        return await client.venues()


def _put_feeds(shown: VenuesJson) -> None:
    put_table(FEED_COLUMNS, [_feed_row(feed) for feed in shown.feeds])
    put("")
    put_table(PRICE_COLUMNS, [_price_row(consensus) for consensus in shown.coins])
    rates = ", ".join(f"1 {currency} = {rate} USD" for currency, rate in shown.rates.items() if currency != "USD")
    put(rates or "no rate of USDT or USDC is known")


def _put_books(consensus: ConsensusJson, feeds: dict[str, FeedJson]) -> None:
    put_table(PRICE_COLUMNS, [_price_row(consensus)])
    put("")
    put_table(BOOK_COLUMNS, [_book_row(book, feeds.get(book.venue)) for book in consensus.venues])


def _feed_row(feed: FeedJson) -> tuple[object, ...]:
    state = feed.state if feed.breaker == "closed" else f"{feed.state}, circuit {feed.breaker}"
    absent = f", without {', '.join(feed.absent)}" if feed.absent else ""
    return (
        feed.venue,
        state,
        f"{len(feed.coins)}{absent}",
        NONE if feed.skew_ms is None else f"{feed.skew_ms} ms",
        feed.frames,
        feed.malformed,
        feed.openings,
        NONE if feed.closed_text is None else feed.closed_text,
    )


def _price_row(consensus: ConsensusJson) -> tuple[object, ...]:
    state = consensus.state if consensus.reason is None else f"{consensus.state} ({consensus.reason})"
    return (
        consensus.coin,
        NONE if consensus.price is None else f"{consensus.price} USD",
        state,
        f"{consensus.used} of {consensus.of}",
        NONE if consensus.confidence is None else f"±{consensus.confidence}",
        NONE if consensus.age_ms is None else f"{consensus.age_ms} ms",
    )


def _book_row(book: VenueBookJson, feed: FeedJson | None) -> tuple[object, ...]:
    return (
        book.venue,
        book.bid or NONE,
        book.ask or NONE,
        NONE if book.mid_usd is None else short_price(book.mid_usd),
        NONE if book.age_ms is None else f"{book.age_ms} ms",
        NONE if feed is None or feed.skew_ms is None else f"{feed.skew_ms} ms",
        "yes" if book.used else f"no, {book.reason}",
        NONE if feed is None else feed.state,
    )
