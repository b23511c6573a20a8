"""The rows of PostgreSQL and what they are made from: the one place that knows how a quote is stored there."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

from cotacoes.model.candle import Candle, stored_minutes
from cotacoes.model.quote import Agreement, Position, Quote, position_of, to_microseconds
from cotacoes.model.window import Window, WindowView
from cotacoes.patterns.sharding.ledger_facts import CoinCopy, Content, DayRow

# of a quote q, its origin o and, for the first quote of an epoch, that epoch e
QUOTE_COLUMNS = """q.epoch, q.seq, q.at, q.observed_at, q.price::text AS price, o.name AS origin, o.currency,
    e.prev_epoch, e.prev_seq, q.agreement"""


def columns_of(quotes: Sequence[Quote]) -> tuple[Any, ...]:
    """The arguments of `append_quotes`: runs, an array per column, origins and epochs once.

    Half of what a batch costs is its way to the server, so what all quotes share is not sent with each. Prices go as
    the text of an array, which costs least to write and to read, and keeps every digit.
    """
    kinds = list(dict.fromkeys((quote.origin, quote.currency) for quote in quotes))
    numbers = {kind: number for number, kind in enumerate(kinds, start=1)}
    runs = [quotes] if len(kinds) == 1 and _is_run(quotes) else [[quote] for quote in quotes]
    epochs = [(quote.epoch, quote.prev) for quote in quotes if quote.prev is not None]
    return (
        [run[0].epoch for run in runs],
        [run[0].seq for run in runs],
        [len(run) for run in runs],
        [numbers[run[0].origin, run[0].currency] for run in runs],
        [to_microseconds(quote.at) for quote in quotes],
        [to_microseconds(quote.observed_at) for quote in quotes],
        "{" + ",".join([str(quote.price) for quote in quotes]) + "}",
        _agreements_of(quotes),
        [origin for origin, _ in kinds],
        [currency for _, currency in kinds],
        [epoch for epoch, _ in epochs],
        [prev.epoch for _, prev in epochs],
        [prev.seq for _, prev in epochs],
    )


def _agreements_of(quotes: Sequence[Quote]) -> str | None:
    """The agreements as the text of an array; None if no quote has one."""
    agreements = [quote.agreement for quote in quotes]
    if not any(agreements):
        return None
    return "{" + ",".join(["NULL" if one is None else f'"{one}"' for one in agreements]) + "}"


def _is_run(quotes: Sequence[Quote]) -> bool:
    """Whether they are of one epoch, ascending without a hole."""
    first = quotes[0]
    return {quote.epoch for quote in quotes} == {first.epoch} and [quote.seq for quote in quotes] == list(
        range(first.seq, first.seq + len(quotes))
    )


def quote_of(coin: str, row: Any) -> Quote:
    """The quote in a row that has QUOTE_COLUMNS."""
    return Quote(
        coin=coin,
        currency=row["currency"],
        price=Decimal(row["price"]),
        epoch=row["epoch"],
        seq=row["seq"],
        observed_at=row["observed_at"],
        at=row["at"],
        origin=row["origin"],
        prev=position_of(row["prev_epoch"], row["prev_seq"]),
        agreement=None if row["agreement"] is None else Agreement.parse(row["agreement"]),
    )


def candle_of(row: Any) -> Candle:
    """The candle in a row."""
    return Candle(
        at=row["at"],
        currency=row["currency"],
        origin=row["origin"],
        open=Decimal(row["open"]),
        high=Decimal(row["high"]),
        low=Decimal(row["low"]),
        close=Decimal(row["close"]),
        count=row["count"],
        sum=Decimal(row["sum"]),
        first=Position(row["first_epoch"], row["first_seq"]),
        last=Position(row["last_epoch_in"], row["last_seq_in"]),
    )


def copy_of(row: Any) -> CoinCopy:
    """The copy that a fence's row describes."""
    return CoinCopy(
        coin_id=row["coin_id"],
        state=row["state"],
        placement=row["placement"],
        last=position_of(row["last_epoch"], row["last_seq"]),
        last_at=row["last_at"],
        floor=position_of(row["floor_epoch"], row["floor_seq"]),
        writer_epoch=row["writer_epoch"],
        writer=row["writer"],
        moved_to=row["moved_to"],
        age=row["age"],
    )


def content_of(row: Any) -> Content:
    """The content in a row of `digest_quotes` or `digest_candles`, or in that of a sealed day."""
    return Content(row["count"], row["sum"] or Decimal(0), row["digest"] or Decimal(0))


def day_of(row: Any) -> DayRow:
    """The day in a row."""
    return DayRow(
        day=row["day"],
        first=Position(row["first_epoch"], row["first_seq"]),
        last=Position(row["last_epoch"], row["last_seq"]),
        count=row["count"],
        manifest=None if row["digest"] is None else content_of(row),
        sealed_at=row["sealed_at"],
        dropped_at=row["dropped_at"],
    )


def columns_of_window(window: Window | None) -> tuple[Any, ...]:
    """The arguments of `window_of`."""
    if window is None:
        return (None,) * 6
    return (window.start, *window.whole, window.end, stored_minutes(window.step), window.step)


def window_view_of(window: Window, row: Any) -> WindowView:
    """The window in a coin's first row."""
    if row["count"] is None:
        return WindowView(holes=row["holes"] or 0)
    candle = candle_of({**row, "at": window.start, "origin": row["w_origin"], "currency": row["w_currency"]})
    closes = dict(zip(row["closes_at"], map(Decimal, row["closes"]), strict=True))
    end = row["last_minute"] + timedelta(minutes=1)
    return WindowView(candle, closes, row["minutes"], row["holes"], row["first_minute"], end)
