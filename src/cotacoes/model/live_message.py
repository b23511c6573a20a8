"""The live message on a coin's channel, `cotacoes:<coin>`: one or more lines of JSON, each a quote or a heartbeat.

{"v":1,"type":"quote","coin","currency","price","epoch","seq","observed_at","at","origin","prev"}
    and, if venues agreed on the price, "state","confidence","used","of"
{"v":1,"type":"heartbeat","coin","epoch","seq","prev","sent_at"}

The gateway sends the same line of a quote to its clients. So a line that is written exactly as `encode_quote` writes it
is passed on as it came, and not encoded again for each quote.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from cotacoes.errors.values import explain_message
from cotacoes.model.quote import (
    CURRENCY_PATTERN,
    EPOCH_MAX,
    ORIGIN_PATTERN,
    SEQ_MAX,
    Agreement,
    AgreementState,
    Position,
    Quote,
    agreement_fields,
    format_price,
    format_time,
    parse_price,
    parse_time,
)

MESSAGE_VERSION = 1
CHANNEL_PREFIX = "cotacoes"  # two systems on one Redis need two (COTACOES_CHANNEL_PREFIX)
TIME_CHARACTERS = 27  # as `format_time` writes it


class _Line(msgspec.Struct, frozen=True, gc=False, tag_field="type"):
    v: int

    def require_version(self) -> None:
        if self.v != MESSAGE_VERSION:
            raise ValueError(f"live message of version {self.v}, expected {MESSAGE_VERSION}")


class QuoteLine(_Line, frozen=True, gc=False, tag="quote"):
    """A quote on the live wire. Patterns would make decoding several times slower: `quote` checks the texts."""

    coin: str
    currency: str
    price: str
    epoch: int
    seq: int
    observed_at: str
    at: str
    origin: str
    prev: str | None = None
    state: AgreementState | msgspec.UnsetType = UNSET
    confidence: str | msgspec.UnsetType = UNSET
    used: int | msgspec.UnsetType = UNSET
    of: int | msgspec.UnsetType = UNSET

    @classmethod
    def from_quote(cls, quote: Quote) -> QuoteLine:
        observed_at = format_time(quote.observed_at)
        line = cls(
            MESSAGE_VERSION,
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
        return line if quote.agreement is None else replace(line, **agreement_fields(quote.agreement))

    def quote(self) -> Quote:
        """The quote; ValueError if a field is invalid."""
        self.require_version()
        observed_at = parse_time(self.observed_at)
        is_plain = self.state is self.confidence is self.used is self.of is UNSET
        return Quote(
            self.coin,
            self.currency,
            parse_price(self.price),
            self.epoch,
            self.seq,
            observed_at,
            observed_at if self.at == self.observed_at else parse_time(self.at),  # usually the same
            self.origin,
            None if self.prev is None else Position.parse(self.prev),
            None if is_plain else Agreement.of_fields(self.state, self.confidence, self.used, self.of),
        )


class HeartbeatLine(_Line, frozen=True, gc=False, tag="heartbeat"):
    """A heartbeat on the live wire."""

    coin: str
    epoch: int | None = None
    seq: int | None = None
    prev: str | None = None
    sent_at: str = ""

    @classmethod
    def of(cls, beat: Heartbeat) -> HeartbeatLine:
        epoch, seq = (None, None) if beat.position is None else beat.position
        prev = None if beat.prev is None else str(beat.prev)
        return cls(MESSAGE_VERSION, beat.coin, epoch, seq, prev, format_time(beat.sent_at))

    def heartbeat(self) -> Heartbeat:
        """The heartbeat; ValueError if a field is invalid."""
        self.require_version()
        position = None if self.epoch is None or self.seq is None else Position(self.epoch, self.seq)
        prev = None if self.prev is None else Position.parse(self.prev)
        return Heartbeat(self.coin, position, prev, parse_time(self.sent_at))


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The last position whose publish was tried, None before the first; `prev` as in the first quote of the epoch."""

    coin: str
    position: Position | None
    prev: Position | None
    sent_at: datetime


_decoder: msgspec.json.Decoder[QuoteLine | HeartbeatLine] = msgspec.json.Decoder(QuoteLine | HeartbeatLine)
_encoder = msgspec.json.Encoder()
_QUOTE_HEAD = b'{"v":1,"type":"quote",'  # the encoder writes the type first, in as many bytes
_HEARTBEAT_HEAD = b'{"v":1,"type":"heartbeat",'


def channel(coin: str, prefix: str = CHANNEL_PREFIX) -> str:
    """The Redis channel of a coin."""
    return f"{prefix}:{coin}"


def encode_quote(quote: Quote) -> bytes:
    """One `quote` line of the live message, without a line feed."""
    return _QUOTE_HEAD + _encoder.encode(QuoteLine.from_quote(quote))[len(_QUOTE_HEAD) :]


def encode_heartbeat(beat: Heartbeat) -> bytes:
    """One `heartbeat` line of the live message, without a line feed."""
    return _HEARTBEAT_HEAD + _encoder.encode(HeartbeatLine.of(beat))[len(_HEARTBEAT_HEAD) :]


def decode_message(message: bytes) -> list[Quote | Heartbeat]:
    """Read a live message, one or more lines; ValueError unless each is a valid line of version 1."""
    return [line for line, _ in decode_lines(message)]


def decode_lines(message: bytes) -> list[tuple[Quote | Heartbeat, bytes | None]]:
    """The same, with the bytes of each quote's line; None if `encode_quote` would write it differently."""
    return [_decode_line(line) for line in message.splitlines() if line.strip()]


def _decode_line(line: bytes) -> tuple[Quote | Heartbeat, bytes | None]:
    try:
        parsed = _decoder.decode(line)
    except msgspec.MsgspecError as error:
        raise ValueError(f"not a live message: {explain_message(error)}") from error
    if isinstance(parsed, HeartbeatLine):
        return parsed.heartbeat(), None
    quote = parsed.quote()
    return quote, line if _is_canonical(line, parsed) else None


def _is_canonical(line: bytes, parsed: QuoteLine) -> bool:
    """Whether `encode_quote` writes the valid line `parsed` like this: no other field, space, order or notation."""
    head = len(_QUOTE_HEAD)
    return (
        line.startswith(_QUOTE_HEAD)
        and _encoder.encode(parsed)[head:] == line[head:]
        and _is_canonical_time(parsed.observed_at)
        and (parsed.at == parsed.observed_at or _is_canonical_time(parsed.at))
        and (parsed.prev is None or parsed.prev == str(Position.parse(parsed.prev)))
    )


def _is_canonical_time(text: str) -> bool:
    return len(text) == TIME_CHARACTERS and text[10] == "T" and text[-1] == "Z"


def require_valid(line: Quote | Heartbeat) -> None:
    """ValueError if a text could do harm on a terminal, or a position cannot be one."""
    if isinstance(line, Quote) and not _has_clean_texts(line.currency, line.origin):
        raise ValueError("invalid currency or origin")
    position, prev = line.position, line.prev
    if position is not None and not (0 <= position.epoch <= EPOCH_MAX and 0 < position.seq <= SEQ_MAX):
        raise ValueError("invalid position")
    if prev is not None and (position is None or prev.epoch >= position.epoch):  # a text that was parsed
        raise ValueError("invalid position before the epoch")


@lru_cache(256)
def _has_clean_texts(currency: str, origin: str) -> bool:
    return bool(CURRENCY_PATTERN.match(currency) and ORIGIN_PATTERN.match(origin))
