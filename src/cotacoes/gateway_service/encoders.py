"""The two wires of the live stream: how an event is written as bytes, once for everyone who is told the same.

    WebSocket    one text frame an event
    SSE          id: bitcoin:E-S,ethereum:E-S        a cursor over all coins of that stream
                 event: quote | gap
                 data: the same JSON

On both, heartbeats say how far the stream has told each coin. On SSE they have no `id`, since they move no cursor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from cotacoes.adapters.websocket_server import text_frame
from cotacoes.gateway_service.ring import StreamEntry
from cotacoes.model.quote import COIN_PATTERN, Position, format_time

RETRY_MS = 2_000  # how long a browser waits before it comes back, where nothing else was said
_encode = msgspec.json.Encoder().encode

Positions = dict[str, Position | None]


class Encoder(Protocol):
    """`encode` and `heartbeat` give what is written as it is."""

    name: str

    def encode(self, entries: Sequence[StreamEntry], positions: Positions) -> bytes:
        """Events in order; `positions` are those before them, and are brought forward."""

    def heartbeat(self, sent_at: datetime, positions: Positions, silent: Sequence[str]) -> bytes:
        """That the stream lives, how far it has come, and which feeds say nothing."""


class WebSocketEncoder:
    """See the head of this file."""

    name = "websocket"

    def encode(self, entries: Sequence[StreamEntry], positions: Positions) -> bytes:
        positions.update({coin: last.position for coin, last in {entry.coin: entry for entry in entries}.items()})
        return b"".join([entry.frame for entry in entries])

    def heartbeat(self, sent_at: datetime, positions: Positions, silent: Sequence[str]) -> bytes:
        return text_frame(_heartbeat(sent_at, positions, silent))


class EventStreamEncoder:
    """See the head of this file."""

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
    """When a browser is to come back after the connection has ended."""
    return b"retry: %d\n\n" % retry_ms


def parse_cursor(text: str) -> dict[str, Position]:
    """The positions of a cursor; ValueError says what is expected."""
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
