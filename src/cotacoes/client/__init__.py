"""The Python client of the HTTP routes; imports no service."""

from cotacoes.client.guarded import GuardedClient
from cotacoes.client.reader import Addresses, Progress, ServiceClient

__all__ = ["Addresses", "GuardedClient", "Progress", "ServiceClient"]
