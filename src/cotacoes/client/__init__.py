"""The Python client of the HTTP routes; imports no service."""

from cotacoes.client.reader import Addresses, Client, Progress

__all__ = ["Addresses", "Client", "Progress"]
