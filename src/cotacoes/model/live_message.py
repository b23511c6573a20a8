"""The live message on a coin's channel, `cotacoes:<coin>`: one or more lines of JSON, each a quote or a heartbeat.

{"v":1,"type":"quote","coin","currency","price","epoch","seq","observed_at","at","origin","prev"}
{"v":1,"type":"heartbeat","coin","epoch","seq","prev","sent_at"}
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import msgspec

from cotacoes.errors.values import explain_message
from cotacoes.model.quote import Position, Quote, format_price, format_time, parse_price, parse_time

MESSAGE_VERSION = 1
CHANNEL_PREFIX = "cotacoes"  # two systems on one Redis need two (COTACOES_CHANNEL_PREFIX)


class _Line(msgspec.Struct, frozen=True, gc=False):
    """One line of a message on `cotacoes:<coin>`."""

    v: int
    type: Literal["quote", "heartbeat"]
    coin: str
    epoch: int | None = None
    seq: int | None = None
    currency: str | None = None
    price: str | None = None
    observed_at: str | None = None
    at: str | None = None
    origin: str | None = None
    prev: str | None = None
    sent_at: str | None = None


class _QuoteLine(msgspec.Struct, frozen=True, gc=False):
    """A quote's line, as it is written."""

    v: int
    type: str
    coin: str
    currency: str
    price: str
    epoch: int
    seq: int
    observed_at: str
    at: str
    origin: str
    prev: str | None


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The last position whose publish was tried, None before the first; `prev` as in the first quote of the era."""

    coin: str
    position: Position | None
    prev: Position | None
    sent_at: datetime


_line_decoder = msgspec.json.Decoder(_Line)
_encoder = msgspec.json.Encoder()


def channel(coin: str, prefix: str = CHANNEL_PREFIX) -> str:
    """The Redis channel of a coin."""
    return f"{prefix}:{coin}"


def encode_quote(quote: Quote) -> bytes:
    """One `quote` line of the live message, without a line feed."""
    observed_at = format_time(quote.observed_at)
    return _encoder.encode(
        _QuoteLine(
            MESSAGE_VERSION,
            "quote",
            quote.coin,
            quote.currency,
            format_price(quote.price),
            quote.epoch,
            quote.seq,
            observed_at,
            observed_at if quote.at == quote.observed_at else format_time(quote.at),
            quote.origin,
            None if quote.prev is None else str(quote.prev),
        )
    )


def encode_heartbeat(beat: Heartbeat) -> bytes:
    """One `heartbeat` line of the live message, without a line feed."""
    return _encoder.encode(
        {
            "v": MESSAGE_VERSION,
            "type": "heartbeat",
            "coin": beat.coin,
            "epoch": None if beat.position is None else beat.position.epoch,
            "seq": None if beat.position is None else beat.position.seq,
            "prev": None if beat.prev is None else str(beat.prev),
            "sent_at": format_time(beat.sent_at),
        }
    )


def decode_message(message: bytes) -> list[Quote | Heartbeat]:
    """Read a live message, one or more lines; ValueError where a line is not of version 1."""
    return [_decode_line(line) for line in message.splitlines() if line.strip()]


def _decode_line(line: bytes) -> Quote | Heartbeat:
    try:
        parsed = _line_decoder.decode(line)
    except msgspec.MsgspecError as error:
        raise ValueError(f"not a live message: {explain_message(error)}") from error
    if parsed.v != MESSAGE_VERSION:
        raise ValueError(f"live message of version {parsed.v}, expected {MESSAGE_VERSION}")
    if parsed.type == "heartbeat":
        position = None if parsed.epoch is None or parsed.seq is None else Position(parsed.epoch, parsed.seq)
        prev = None if parsed.prev is None else Position.parse(parsed.prev)
        return Heartbeat(parsed.coin, position, prev, parse_time(parsed.sent_at or ""))
    if (
        parsed.currency is None
        or parsed.price is None
        or parsed.epoch is None
        or parsed.seq is None
        or parsed.observed_at is None
        or parsed.at is None
        or parsed.origin is None
    ):
        raise ValueError("live message of type quote lacks a field")
    observed_at = parse_time(parsed.observed_at)
    return Quote(
        parsed.coin,
        parsed.currency,
        parse_price(parsed.price),
        parsed.epoch,
        parsed.seq,
        observed_at,
        observed_at if parsed.at == parsed.observed_at else parse_time(parsed.at),  # the same, as a rule
        parsed.origin,
        None if parsed.prev is None else Position.parse(parsed.prev),
    )
