"""The bytes that the `fanout` figures put on sockets: how each server is fed, and how its clients open their streams.

Everything is a list of steps, (bytes to send, text that comes when it was understood), so that one receiver serves all
protocols. The mask of our WebSocket frames is zero: every server takes it off all the same, and the bytes stay legible.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from cotacoes.model.quote import Position

Steps = list[tuple[bytes, bytes]]
TEXT, BINARY, PONG = 0x1, 0x2, 0xA
_HEAD_ENDS = b"\r\n\r\n"


@dataclass(frozen=True)
class Ingress:
    """Where a server takes messages: the port of 127.0.0.1, what opens the connection, and how one is wrapped."""

    port: int
    steps: Steps
    wrap: Callable[[bytes], bytes]


@dataclass(frozen=True)
class Egress:
    """Where a server gives them: the steps of a client that has everything up to a position, None where none exists."""

    port: int
    steps: Callable[[Position | None], Steps]


def frame(opcode: int, payload: bytes) -> bytes:
    """A WebSocket frame of a client, at most 65,535 bytes."""
    length = len(payload)
    size = bytes([0x80 | length]) if length < 126 else b"\xfe" + length.to_bytes(2, "big")
    return bytes([0x80 | opcode]) + size + bytes(4) + payload


def upgrade(path: str) -> tuple[bytes, bytes]:
    """The step that makes a WebSocket of a connection."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode(), _HEAD_ENDS


def event_stream(path: str) -> tuple[bytes, bytes]:
    """The step that opens an EventSource."""
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
    return head.encode(), _HEAD_ENDS


def into_redis(port: int, channel: str) -> Ingress:
    """One PUBLISH a message."""
    head = b"*3\r\n$7\r\nPUBLISH\r\n" + _bulk(channel.encode())
    return Ingress(port, [], lambda message: head + _bulk(message))


def into_nats(port: int) -> Ingress:
    """NATS' own protocol, one PUB a message."""
    opening = b'CONNECT {"verbose":false,"pedantic":false}\r\nPING\r\n'
    return Ingress(port, [(opening, b"PONG\r\n")], lambda message: b"PUB quotes %d\r\n%s\r\n" % (len(message), message))


def into_nchan(port: int) -> Ingress:
    """Its publisher over one WebSocket, one frame a message: cheaper for it than a POST each."""
    return Ingress(port, [upgrade("/publish")], lambda message: frame(TEXT, message))


def from_gateway(port: int) -> Egress:
    """Ours over WebSocket."""

    def steps(since: Position | None) -> Steps:
        wanted: dict[str, object] = {"op": "subscribe", "coins": ["bitcoin"], "mode": "every"}
        if since is not None:
            wanted["since"] = {"bitcoin": str(since)}
        return [upgrade("/v1/ws"), (frame(TEXT, json.dumps(wanted).encode()), b'"type":"subscribed"')]

    return Egress(port, steps)


def from_gateway_events(port: int) -> Egress:
    """Ours over SSE."""

    def steps(since: Position | None) -> Steps:
        cursor = "" if since is None else f"&since=bitcoin:{since}"
        return [event_stream(f"/v1/stream?coins=bitcoin&mode=every{cursor}")]

    return Egress(port, steps)


def from_nats(port: int) -> Egress:
    """NATS' protocol inside binary frames."""
    wanted = b'CONNECT {"verbose":false,"pedantic":false}\r\nSUB quotes 1\r\nPING\r\n'
    return Egress(port, lambda _: [upgrade("/"), (frame(BINARY, wanted), b"PONG\r\n")])


def from_start(port: int, step: tuple[bytes, bytes]) -> Egress:
    """A server that sends what comes to whoever is connected."""
    return Egress(port, lambda _: [step])


def _bulk(word: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(word), word)
