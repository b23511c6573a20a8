"""The faults of a simulated venue, and the shocks of the market that all of them see.

    connecting    refuse retry_after_s accept_then_drop
    connected     dead cut_after_s maintenance sub_error sub_ignore
    the book      stall freeze lie half late_s
    the frames    garbage lost slow
    the clock     skew_s clock

Faults of the book and of the frames hit the books of `coins`, or all of them.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema

from cotacoes.external_service.faults import Coin, Rate
from cotacoes.external_service.timed import ForS
from cotacoes.model.quote import format_price

SKEW_S_MAX = 3_600.0
Refusal = Literal[400, 401, 403, 404, 418, 429, 451, 500, 502, 503, 504]
_Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
_Flag = Annotated[bool, Field(strict=True)]


def _bounded(factor: Decimal) -> Decimal:
    if not Decimal("0.001") <= factor <= Decimal(1000) or len(str(factor)) > 20:
        raise ValueError("write a number from 0.001 to 1000 with at most 20 characters")
    return factor


Factor = Annotated[
    Decimal,
    Field(allow_inf_nan=False),
    AfterValidator(_bounded),
    PlainSerializer(format_price, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string"}),
]
Lie = Annotated[
    Decimal,
    Field(gt=-1, le=1000, allow_inf_nan=False, max_digits=20, decimal_places=18),
    PlainSerializer(lambda lie: f"{lie:f}", return_type=str, when_used="json"),
    WithJsonSchema({"type": "string"}),
]


class VenueFaults(BaseModel):
    """The faults of a venue as `/venues/{name}/faults` takes and shows them. An absent field means no such fault."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stall: _Flag = Field(default=False, description="heartbeats go on, books do not")
    freeze: _Flag = Field(default=False, description="books go on, with the prices that they had")
    dead: _Flag = Field(default=False, description="not a byte, not even the answer to a ping or a handshake")
    cut_after_s: _Seconds | None = Field(default=None, description="connections are cut at this age")
    refuse: Refusal | None = Field(default=None, description="handshakes are answered with this status")
    retry_after_s: Annotated[int, Field(ge=0, le=86_400, strict=True)] | None = Field(
        default=None, description="`Retry-After` of a refused handshake"
    )
    accept_then_drop: _Flag = Field(default=False, description="all connections are cut, new ones once accepted")
    sub_error: _Flag = Field(default=False, description="subscriptions are refused")
    sub_ignore: _Flag = Field(default=False, description="subscriptions are not answered")
    maintenance: _Flag = Field(default=False, description="a frame that announces it, then the connection is closed")
    skew_s: float = Field(
        default=0.0, ge=-SKEW_S_MAX, le=SKEW_S_MAX, allow_inf_nan=False, description="how far its clock is ahead"
    )
    clock: Literal["jumping", "frozen"] | None = Field(
        default=None, description="jumping: 1.3 s ahead and behind in turn; frozen: one time for all frames"
    )
    lie: Lie = Field(default=Decimal(0), description="prices are wrong by this share: 0.10 is 10 % too high")
    half: Literal["bid", "ask"] | None = Field(default=None, description="the only side that books have")
    garbage: Rate = Field(default=0.0, description="frames that cannot be read, for each good one")
    lost: Rate = Field(default=0.0, description="share of frames that are numbered, but not sent")
    late_s: Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)] = Field(
        default=0.0, description="books are this old when they are sent"
    )
    slow: Annotated[float, Field(ge=1, le=10_000, allow_inf_nan=False)] = Field(
        default=1.0, description="how many times fewer frames are sent"
    )
    coins: tuple[Coin, ...] = Field(
        default=(), max_length=1000, description="whose books are altered, tether and usd-coin included; empty: all"
    )
    for_s: ForS = None

    def hits(self, coin: str) -> bool:
        """Whether the books of the coin are altered."""
        return not self.coins or coin in self.coins


class MarketShock(BaseModel):
    """What happens to the market that all venues see. An absent field means nothing does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shock: Factor = Field(default=Decimal(1), description="all prices are multiplied by this")
    peg: dict[Literal["USDT", "USDC"], Factor] = Field(
        default_factory=dict, description="what a stablecoin is worth in USD, times its own small moves"
    )
    pace: Annotated[float, Field(ge=0.01, le=100, allow_inf_nan=False)] = Field(
        default=1.0, description="how many times as many frames all venues send"
    )
    for_s: ForS = None
