"""The Python clients: `Client` of a gateway, for everyone; those that services use. It imports no service.

A name is loaded when it is first used: a single question needs neither streams nor WebSockets.
"""

from typing import TYPE_CHECKING

from cotacoes import load_when_used

if TYPE_CHECKING:
    from cotacoes.client.answers import CurrentQuote, QuoteCandle
    from cotacoes.client.client import Client
    from cotacoes.client.continuity import NewestQuote
    from cotacoes.client.overview import Overview
    from cotacoes.client.service_client import Addresses, ServiceClient
    from cotacoes.client.stream import Stream
    from cotacoes.errors import StaleQuote
    from cotacoes.model.payloads import Progress
    from cotacoes.model.quote import Position, Quote
    from cotacoes.patterns.pub_sub.bus import Gap, Reason

__all__ = [
    "Addresses",
    "Client",
    "CurrentQuote",
    "Gap",
    "NewestQuote",
    "Overview",
    "Position",
    "Progress",
    "Quote",
    "QuoteCandle",
    "Reason",
    "ServiceClient",
    "StaleQuote",
    "Stream",
]

if not TYPE_CHECKING:  # a type checker refuses a name that is not here
    __getattr__ = load_when_used(
        __name__,
        {
            "Addresses": "cotacoes.client.service_client",
            "Client": "cotacoes.client.client",
            "CurrentQuote": "cotacoes.client.answers",
            "Gap": "cotacoes.patterns.pub_sub.bus",
            "NewestQuote": "cotacoes.client.continuity",
            "Overview": "cotacoes.client.overview",
            "Position": "cotacoes.model.quote",
            "Progress": "cotacoes.model.payloads",
            "Quote": "cotacoes.model.quote",
            "QuoteCandle": "cotacoes.client.answers",
            "Reason": "cotacoes.patterns.pub_sub.bus",
            "ServiceClient": "cotacoes.client.service_client",
            "StaleQuote": "cotacoes.errors",
            "Stream": "cotacoes.client.stream",
        },
    )
