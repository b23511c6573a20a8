"""The two encoders of the live stream: each event is encoded once for all clients that receive the same.

    WebSocket    one text frame for each event
    SSE          id: bitcoin:E-S,ethereum:E-S        a cursor over all coins of that stream
                 event: quote | gap
                 data: the same JSON

On both, heartbeats say how far the stream has come in each coin. On SSE they have no `id`, since they move no cursor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from cotacoes.adapters.websocket_server import text_frame
from cotacoes.gateway_service.ring import StreamEntry
from cotacoes.model.quote import COIN_PATTERN, Position, format_time

RETRY_MS = 2_000  # how long a browser waits before it comes back, by default
_encode = msgspec.json.Encoder().encode

Positions = dict[str, Position | None]


class Encoder(Protocol):
    """Encodes events and heartbeats into the bytes of one kind of stream, `name`."""

    name: str

    def encode(self, entries: Sequence[StreamEntry], positions: Positions) -> bytes:
        """Encode events in order; `positions`, those before the events, are advanced."""

    def heartbeat(self, sent_at: datetime, positions: Positions, silent: Sequence[str]) -> bytes:
        """Encode a heartbeat: how far the stream has come, and which feeds are silent."""


class WebSocketEncoder:
    """One text frame for each event."""

    name = "websocket"

    def encode(self, entries: Sequence[StreamEntry], positions: Positions) -> bytes:
        positions.update({coin: last.position for coin, last in {entry.coin: entry for entry in entries}.items()})
        return b"".join([entry.frame for entry in entries])

    def heartbeat(self, sent_at: datetime, positions: Positions, silent: Sequence[str]) -> bytes:
        return text_frame(_heartbeat(sent_at, positions, silent))


class EventStreamEncoder:
    """Server-sent events with a cursor as their id."""

    name = "sse"

    def encode(self, entries: Sequence[StreamEntry], positions: Positions) -> bytes:
        texts = []
        for entry in entries:
            positions[entry.coin] = entry.position
            texts.append(
                b"id: %s\nevent: %s\ndata: %s\n\n" % (_cursor(positions), entry.kind.value.encode(), entry.text)
            )
        return b"".join(texts)

    def heartbeat(self, sent_at: datetime, positions: Positions, silent: Sequence[str]) -> bytes:
        return b": alive\nevent: heartbeat\ndata: %s\n\n" % _heartbeat(sent_at, positions, silent)


def retry(retry_ms: int) -> bytes:
    """The line that tells a browser how long to wait before it comes back."""
    return b"retry: %d\n\n" % retry_ms


def parse_cursor(text: str) -> dict[str, Position]:
    """Parse a cursor; ValueError says what is expected."""
    positions: dict[str, Position] = {}
    for part in text.split(","):
        coin, _, position = part.strip().rpartition(":")
        if not COIN_PATTERN.match(coin) or coin in positions:
            raise ValueError("a cursor is written COIN:EPOCH-SEQ,…, each coin once")
        positions[coin] = Position.parse(position)
    return positions


def _cursor(positions: Mapping[str, Position | None]) -> bytes:
    return ",".join([f"{coin}:{p.epoch}-{p.seq}" for coin, p in positions.items() if p is not None]).encode()


def _heartbeat(sent_at: datetime, positions: Positions, silent: Sequence[str]) -> bytes:
    return _encode(
        {
            "type": "heartbeat",
            "sent_at": format_time(sent_at),
            "coins": {coin: None if position is None else str(position) for coin, position in positions.items()},
            "silent": [coin for coin in silent if coin in positions],
        }
    )


WEBSOCKET: Encoder = WebSocketEncoder()
EVENT_STREAM: Encoder = EventStreamEncoder()
