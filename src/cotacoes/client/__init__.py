"""The Python client of the HTTP routes; imports no service."""

from cotacoes.client.guarded import GuardedClient
from cotacoes.client.reader import Addresses, Client, Progress

__all__ = ["Addresses", "Client", "GuardedClient", "Progress"]
