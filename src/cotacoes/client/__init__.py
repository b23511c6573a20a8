"""The Python clients: `Client` of a gateway, for everyone; those that services use. It imports no service."""

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
