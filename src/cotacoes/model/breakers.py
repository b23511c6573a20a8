"""The circuit breakers of a service as `/v1/breakers` shows them."""

from __future__ import annotations

from typing import Literal

import msgspec

from cotacoes.model.payloads import BreakerStateText
from cotacoes.model.quote import TimeText

SettableState = Literal["closed", "forced_open", "disabled", "metrics_only"]


class BreakerWindowJson(msgspec.Struct, frozen=True):
    """The evidence in a breaker's sliding window, which holds the last `size` calls or seconds."""

    type: Literal["count", "time"]
    size: float
    calls: int
    failures: int
    slow_calls: int
    overdue: int
    failure_rate: float | None
    slow_call_rate: float | None


class BreakerErrorJson(msgspec.Struct, frozen=True):
    """An error that counted as a failure."""

    at: TimeText
    error: str


class TransitionJson(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """A change of state."""

    at: TimeText
    from_: BreakerStateText
    to: BreakerStateText
    reason: str


class BreakerJson(msgspec.Struct, frozen=True):
    """One circuit breaker; the newest errors and transitions come first."""

    name: str
    state: BreakerStateText
    generation: int
    retry_after_s: float | None
    is_awaited: bool
    next_call: Literal["made", "probe", "refused"]
    window: BreakerWindowJson
    consecutive_failures: int
    not_permitted: int
    retry_budget: float
    last_errors: list[BreakerErrorJson]
    transitions: list[TransitionJson]


class BreakersJson(msgspec.Struct, frozen=True):
    """The circuit breakers of a service."""

    service: str
    breakers: list[BreakerJson]
