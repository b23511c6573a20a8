"""`/venues/NAME/stream`: which handshakes are accepted, and what the faults make of the others.

A dead venue leaves a handshake unanswered, as a machine does whose network still accepts connections.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from cotacoes.adapters.http_server.accepting import Ended
from cotacoes.adapters.http_server.context import Context
from cotacoes.adapters.websocket_server import Handler, Handshake, Limits, Open, ServerConnection, Unanswered
from cotacoes.errors import NotFoundError, OverloadedError, ProblemError
from cotacoes.external_service.answers import SimulatedFailureError
from cotacoes.external_service.venues.exchange import Exchange, Exchanges

HELD_S = 60.0  # for which a dead venue holds a handshake
LIMITS = Limits(message_bytes_max=65_536, frames_per_s=50.0, write_buffer_bytes=131_072)
_PATH = re.compile(r"/venues/([a-z0-9]{1,32})/stream(?:\?(.*))?\Z", re.ASCII)


def path_of(name: str) -> str:
    """The path of a venue's stream."""
    return f"/venues/{name}/stream"


class VenueStreams:
    """Accepts or refuses the handshakes of the venues' streams."""

    def __init__(self, exchanges: Exchanges) -> None:
        self._exchanges = exchanges

    def admit(self, handshake: Handshake) -> ProblemError | Unanswered | Open:
        """Implements `adapters.websocket_server.Admit`."""
        match = _PATH.match(handshake.path)
        exchange = None if match is None else self._exchanges.by_name.get(match[1])
        if match is None or exchange is None:
            return NotFoundError("there is no stream at this address: GET /venues lists them")
        faults = exchange.faults.current()
        if faults.dead:
            return Unanswered(HELD_S)
        if faults.refuse is not None:
            return SimulatedFailureError(
                "this venue refuses connections on purpose; see its faults",
                status=faults.refuse,
                retry_after_s=faults.retry_after_s,
            )
        if exchange.is_crowded:
            return OverloadedError("the venue has too many connections", retry_after_s=1)
        return _opening(exchange, match[2] or "")

    def protocol(self, context: Context, ended: Ended) -> ServerConnection:
        """The protocol of a connection that becomes a WebSocket."""
        return ServerConnection(context, ended, admit=self.admit, limits=LIMITS)


def _opening(exchange: Exchange, query: str) -> Callable[[ServerConnection], Handler]:
    return lambda connection: exchange.connect(connection, query)
