"""How an event is shown: one line for people, or one JSON object for programs.

    {"type":"quote","coin","currency","price","epoch","seq","observed_at","at","origin","prev"}
                                                            and "state","confidence","used","of" if venues agreed on it
    {"type":"gap","coin","after","through","reason"}        the wire lost these (`lost`, `era`); they are being fetched
    {"type":"recovered","coin","after","through","quotes"}  all of them are shown; `quotes` came from the history
    {"type":"gone","coin","after","through","reason"}       these will never come: the history no longer holds them
                                                            (`gone`), lost them (`hole`), or is another (`rewritten`)
    {"type":"retracted","coin","after","through","reason"}  these were shown but are false; what the history holds after
                                                            `after` comes next
    {"type":"dismissed","coin","after","through","reason"}  positions up to `through` were announced on Redis but do not
                                                            exist: nothing is missing
    {"type":"silent","coin"}   {"type":"back","coin"}       a feed sends nothing, not even a heartbeat; it does again

`after` is exclusive, and null if everything from the first quote on is meant; `through` is inclusive. The quotes of a
coin come in order, each once; from the first on, they and what is reported as `gone` cover the whole history.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import msgspec

from cotacoes.feed.feeds import SILENT_AFTER_S, Back, FeedEvent, Silent
from cotacoes.model.quote import Agreement, Position, Quote, QuoteJson, format_price
from cotacoes.patterns.pub_sub.bus import Gap, Reason
from cotacoes.patterns.pub_sub.recovery_events import (
    Dismissed,
    GapDetected,
    GapFilled,
    GapLost,
    QuoteReceived,
    Retracted,
)

_encode = msgspec.json.Encoder().encode
_COLOURS = {"▲": "32", "▼": "31", "missed": "33", "dim": "2"}


def as_json_line(event: FeedEvent) -> bytes:
    """The event as a JSON object, with a line feed."""
    return _encode(_fields(event)) + b"\n"


def _fields(event: FeedEvent) -> dict[str, object]:
    match event:
        case QuoteReceived(quote):
            return {"type": "quote", **msgspec.to_builtins(QuoteJson.from_quote(quote))}
        case GapDetected(gap):
            return {"type": "gap", **gap.fields()}
        case GapFilled():
            return {"type": "recovered", **event.fields()}
        case GapLost(gap):
            return {"type": "gone", **gap.fields()}
        case Retracted(gap):
            return {"type": "retracted", **gap.fields()}
        case Dismissed(gap):
            return {"type": "dismissed", **gap.fields()}
        case Silent(coin):
            return {"type": "silent", "coin": coin}
        case Back(coin):
            return {"type": "back", "coin": coin}


class LineFormatter:
    """Formats lines for people. `coin_width` is the width of the longest name; `coloured` for a terminal."""

    def __init__(self, coin_width: int, *, coloured: bool) -> None:
        self._coin_width = coin_width
        self._price_width = 0
        self._coloured = coloured
        self._prices: dict[str, Decimal] = {}

    def line(self, event: FeedEvent, now: datetime) -> str:
        """`12:00:01  bitcoin   67012.34 USD  ▲  1732400000000-42  0.2 s  sim`, in the local time of `now`.

        The arrow compares with the price before; the seconds are the age since the source observed it. If venues agreed
        on the price, the line ends with `agreed 5/6 within 12.34`.
        """
        coin, text = self._describe(event, now)
        return f"{now:%H:%M:%S}  {coin:<{self._coin_width}}  {text}\n"

    def _describe(self, event: FeedEvent, now: datetime) -> tuple[str, str]:
        match event:
            case QuoteReceived(quote):
                return quote.coin, self._quote(quote, now)
            case GapDetected(gap):
                return gap.coin, self._in_colour("missed", f"missed {position_range(gap)}")
            case GapFilled(coin, _, through, quotes):
                return coin, f"recovered {quotes}, through {through}"
            case GapLost(gap):
                return gap.coin, self._in_colour("missed", _lost(gap))
            case Retracted(gap):
                return gap.coin, self._in_colour(
                    "▼", f"retracted: {position_range(gap)}, which the history does not hold"
                )
            case Dismissed(gap):
                return gap.coin, self._in_colour("missed", f"{gap.through} was announced but does not exist")
            case Silent(coin):
                return coin, self._in_colour("missed", f"feed silent: nothing for {SILENT_AFTER_S:g} s")
            case Back(coin):
                return coin, "feed back"

    def _quote(self, quote: Quote, now: datetime) -> str:
        before = self._prices.get(quote.coin, quote.price)
        self._prices[quote.coin] = quote.price
        arrow = "·" if before == quote.price else "▲" if quote.price > before else "▼"
        age_s = max(0.0, (now - quote.observed_at).total_seconds())
        tail = self._in_colour("dim", f"{quote.position}  {age_s:.1f} s  {quote.origin}{_agreement(quote.agreement)}")
        price = self._aligned(format_price(quote.price))
        return f"{price} {quote.currency}  {self._in_colour(arrow, arrow)}  {tail}"

    def _aligned(self, price: str) -> str:
        """The price, aligned to the right of the widest so far."""
        self._price_width = max(self._price_width, len(price))
        return f"{price:>{self._price_width}}"

    def _in_colour(self, colour: str, text: str) -> str:
        code = _COLOURS.get(colour)
        return f"\x1b[{code}m{text}\x1b[0m" if self._coloured and code else text


def _agreement(one: Agreement | None) -> str:
    return "" if one is None else f"  {one.state} {one.used}/{one.of} within {format_price(one.confidence)}"


def _lost(gap: Gap) -> str:
    if gap.reason is Reason.REWRITTEN:
        return f"the history was rewritten: it does not contain {gap.after or gap.through}"
    if gap.reason is Reason.HOLE:
        return f"gone: {position_range(gap)}, which the history lost"
    return f"gone: {position_range(gap)}, no longer in the history"


def position_range(gap: Gap) -> str:
    """The positions of a gap, for people."""
    if gap.after is None:
        return f"all from the first one to {gap.through}"
    if gap.after.epoch != gap.through.epoch:  # the next position and the count are unknown here
        return f"all after {gap.after} to {gap.through}"
    first = Position(gap.after.epoch, gap.after.seq + 1)
    return f"{first}" + (f" to …-{gap.through.seq}" if gap.through != first else "")
