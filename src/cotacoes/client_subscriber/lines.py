"""How an event is shown: one line for people, or one JSON object for programs."""

from __future__ import annotations

from datetime import datetime

import msgspec

from cotacoes.client_subscriber.feeds import SILENT_AFTER_S, Back, Event, Missed, Seen, Silent
from cotacoes.patterns.pub_sub import Gap, Reason
from cotacoes.quote import Position, QuoteJson, format_price

_encode = msgspec.json.Encoder().encode
_COLOURS = {"▲": "32", "▼": "31", "missed": "33", "dim": "2"}


def as_json_line(event: Event) -> bytes:
    """`{"type":"quote",…}`, `gap`, `silent` or `back`, with its line feed."""
    return _encode(_fields(event)) + b"\n"


def _fields(event: Event) -> dict[str, object]:
    match event:
        case Seen(quote):
            return {"type": "quote", **msgspec.structs.asdict(QuoteJson.of(quote))}
        case Missed(gap):
            return {"type": "gap", **gap_fields(gap)}
        case Silent(coin):
            return {"type": "silent", "coin": coin}
        case Back(coin):
            return {"type": "back", "coin": coin}


def gap_fields(gap: Gap) -> dict[str, str | None]:
    """`after` (exclusive) is None where all from the first quote ever is missing, `through` is inclusive."""
    return {
        "coin": gap.coin,
        "after": None if gap.after is None else str(gap.after),
        "through": str(gap.through),
        "reason": gap.reason.value,
    }


class Lines:
    """Lines for people; `coin_width` is that of the longest name, `coloured` says whether a terminal shows them."""

    def __init__(self, coin_width: int, *, coloured: bool) -> None:
        self._coin_width = coin_width
        self._price_width = 0
        self._coloured = coloured

    def line(self, event: Event, now: datetime) -> str:
        """`12:00:01  bitcoin   67012.34 USD  ▲  1732400000000-42  0.2 s  sim`, in the local time of `now`.

        The arrow is against the price before; the seconds are the age of what the source observed.
        """
        coin, text = self._told(event, now)
        return f"{now:%H:%M:%S}  {coin:<{self._coin_width}}  {text}\n"

    def _told(self, event: Event, now: datetime) -> tuple[str, str]:
        match event:
            case Seen(quote, before):
                arrow = "·" if before is None or before == quote.price else "▲" if quote.price > before else "▼"
                age_s = max(0.0, (now - quote.observed_at).total_seconds())
                tail = self._in_colour("dim", f"{quote.position}  {age_s:.1f} s  {quote.origin}")
                price = self._aligned(format_price(quote.price))
                return quote.coin, f"{price} {quote.currency}  {self._in_colour(arrow, arrow)}  {tail}"
            case Missed(gap):
                return gap.coin, self._in_colour("missed", _missed(gap))
            case Silent(coin):
                return coin, self._in_colour("missed", f"feed silent: nothing for {SILENT_AFTER_S:g} s")
            case Back(coin):
                return coin, "feed back"

    def _aligned(self, price: str) -> str:
        """To the right, as wide as the widest so far."""
        self._price_width = max(self._price_width, len(price))
        return f"{price:>{self._price_width}}"

    def _in_colour(self, colour: str, text: str) -> str:
        code = _COLOURS.get(colour)
        return f"\x1b[{code}m{text}\x1b[0m" if self._coloured and code else text


def _missed(gap: Gap) -> str:
    if gap.reason is Reason.REWRITTEN:
        return f"the history was rewritten: {gap.after} is not in it"
    if gap.after is None:
        return f"missed all from the first one to {gap.through}"
    if gap.after.epoch != gap.through.epoch:  # nobody here can tell which is the next, or how many they are
        return f"missed all after {gap.after} to {gap.through}"
    first = Position(gap.after.epoch, gap.after.seq + 1)
    return f"missed {first}" + (f" to …-{gap.through.seq}" if gap.through != first else "")
