"""The frames of `/v1/ws` as a client reads and writes them; any other frame is refused.

    quote         QuoteFrame    with `after` in the modes that skip quotes
    gap           Gap
    subscribed    Subscribed
    heartbeat     StreamHeartbeat
    bye           Bye
    error         ProblemError  returned as the error that it describes
    pong, unsubscribed          None: ignored

Prices, times and positions follow the rules of `quote.py`; texts end up on a terminal, so they are checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from cotacoes.errors import ProblemError, StreamMalformedError
from cotacoes.errors.problem_json import read_problem
from cotacoes.errors.values import explain_message
from cotacoes.model.live_message import QuoteLine, require_valid
from cotacoes.model.quote import Position, Quote
from cotacoes.patterns.pub_sub.bus import Gap, Reason

_Text = Annotated[str, msgspec.Meta(max_length=256)]


@dataclass(frozen=True, slots=True)
class QuoteFrame:
    """A quote. If it `is_newest`, it stands for everything after `after` (None: from the first quote ever)."""

    quote: Quote
    is_newest: bool = False
    after: Position | None = None


@dataclass(frozen=True, slots=True)
class CoinBegun:
    """Where a coin begins: after `position`. `recovered` if everything after the requested `since` will come."""

    recovered: bool
    position: Position | None


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The answer to a subscription."""

    mode: str
    coins: Mapping[str, CoinBegun]


@dataclass(frozen=True, slots=True)
class StreamHeartbeat:
    """How far the stream has come in each coin. More is on its way for those `behind`; None if it does not say."""

    positions: Mapping[str, Position | None]
    behind: frozenset[str] | None


class _Quote(QuoteLine, frozen=True, tag="quote"):
    after: _Text | msgspec.UnsetType | None = msgspec.UNSET

    def read(self) -> QuoteFrame:
        quote = self.quote()
        require_valid(quote)
        if quote.prev is not None and quote.seq != 1:
            raise ValueError("invalid position before the epoch")
        if isinstance(self.after, msgspec.UnsetType):
            return QuoteFrame(quote)
        return QuoteFrame(quote, is_newest=True, after=_position(self.after))


class _Gap(msgspec.Struct, frozen=True, tag_field="type", tag="gap"):
    coin: _Text
    after: _Text | None
    through: _Text
    reason: Reason

    def read(self) -> Gap:
        gap = Gap(self.coin, _position(self.after), Position.parse(self.through), self.reason)
        is_empty = gap.after == gap.through and gap.reason is Reason.REWRITTEN
        if gap.after is not None and gap.after >= gap.through and not is_empty:
            raise ValueError("the gap ends before it begins")
        return gap


class _Begun(msgspec.Struct, frozen=True):
    recovered: bool
    position: _Text | None


class _Subscribed(msgspec.Struct, frozen=True, tag_field="type", tag="subscribed"):
    mode: _Text
    coins: dict[str, _Begun]

    def read(self) -> Subscribed:
        begun = {coin: CoinBegun(one.recovered, _position(one.position)) for coin, one in self.coins.items()}
        return Subscribed(self.mode, begun)


class _Heartbeat(msgspec.Struct, frozen=True, tag_field="type", tag="heartbeat"):
    coins: dict[str, _Text | None]
    behind: list[str] | None = None

    def read(self) -> StreamHeartbeat:
        positions = {coin: _position(text) for coin, text in self.coins.items()}
        return StreamHeartbeat(positions, None if self.behind is None else frozenset(self.behind))


class Bye(msgspec.Struct, frozen=True, tag_field="type", tag="bye"):
    """The server is about to close; a client should wait `retry_s` before it comes back."""

    reason: _Text
    retry_ms: Annotated[int, msgspec.Meta(ge=0, le=2**31)]

    @property
    def retry_s(self) -> float:
        return self.retry_ms / 1000

    def read(self) -> Bye:
        return self


class _Error(msgspec.Struct, frozen=True, tag_field="type", tag="error"):
    problem: dict[str, Any]

    def read(self) -> ProblemError:
        status = self.problem.get("status")
        return read_problem(self.problem, status if isinstance(status, int) else 500)


class _Pong(msgspec.Struct, frozen=True, tag_field="type", tag="pong"):
    def read(self) -> None:
        return None


class _Unsubscribed(msgspec.Struct, frozen=True, tag_field="type", tag="unsubscribed"):
    def read(self) -> None:
        return None


_decoder: msgspec.json.Decoder[_Quote | _Gap | _Subscribed | _Heartbeat | Bye | _Error | _Pong | _Unsubscribed] = (
    msgspec.json.Decoder(_Quote | _Gap | _Subscribed | _Heartbeat | Bye | _Error | _Pong | _Unsubscribed)
)


Frame = QuoteFrame | Gap | Subscribed | StreamHeartbeat | Bye | ProblemError | None


def read_frame(message: str | bytes) -> Frame:
    """Read a message; StreamMalformedError if it is not a valid frame."""
    if isinstance(message, bytes):
        raise StreamMalformedError("the message is not text")
    try:
        return _decoder.decode(message).read()
    except (ValueError, RecursionError) as error:  # msgspec's own errors are ValueErrors
        raise StreamMalformedError(f"invalid frame: {explain_message(error)}") from error


def subscribe_message(coins: Sequence[str], mode: str, since: Mapping[str, Position]) -> str:
    """The message that subscribes to these coins, each after its known position, if it has one."""
    positions = {coin: str(position) for coin, position in since.items()}
    return msgspec.json.encode({"op": "subscribe", "coins": coins, "mode": mode, "since": positions}).decode()


def _position(text: str | None) -> Position | None:
    return None if text is None else Position.parse(text)
