"""The Python client of a gateway: its stream, the current quote, the history, candles.

A name is loaded when it is first used: a single question needs neither streams nor WebSockets.
"""

from typing import TYPE_CHECKING

from cotacoes import load_when_used

if TYPE_CHECKING:
    from cotacoes.client.answers import CurrentQuote, QuoteCandle
    from cotacoes.client.client import Client
    from cotacoes.client.continuity import NewestQuote
    from cotacoes.client.stream import Stream
    from cotacoes.errors import StaleQuote
    from cotacoes.model.quote import Position, Quote
    from cotacoes.patterns.pub_sub.bus import Gap, Reason

__all__ = [
    "Client",
    "CurrentQuote",
    "Gap",
    "NewestQuote",
    "Position",
    "Quote",
    "QuoteCandle",
    "Reason",
    "StaleQuote",
    "Stream",
]

if not TYPE_CHECKING:  # a type checker refuses a name that is not here
    __getattr__ = load_when_used(
        __name__,
        {
            "Client": "cotacoes.client.client",
            "CurrentQuote": "cotacoes.client.answers",
            "Gap": "cotacoes.patterns.pub_sub.bus",
            "NewestQuote": "cotacoes.client.continuity",
            "Position": "cotacoes.model.quote",
            "Quote": "cotacoes.model.quote",
            "QuoteCandle": "cotacoes.client.answers",
            "Reason": "cotacoes.patterns.pub_sub.bus",
            "StaleQuote": "cotacoes.errors",
            "Stream": "cotacoes.client.stream",
        },
    )
