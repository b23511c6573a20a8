"""The routes for operators that show a service's circuit breakers, and set them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from cotacoes.config import Settings
from cotacoes.errors import NotFoundError, UnauthorizedError
from cotacoes.model.coins import nearest
from cotacoes.model.payloads import BreakerStateText
from cotacoes.model.quote import TimeText
from cotacoes.observability.logs import get_logger
from cotacoes.patterns.resilience import BreakerState
from cotacoes.web.document import answering
from cotacoes.web.requests import admins_only
from cotacoes.web.upstreams import Upstreams


class BreakerSetting(BaseModel):
    """The body of `PUT /v1/breakers/{name}`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: Literal["closed", "forced_open", "disabled", "metrics_only"] = Field(
        description="closed: reset, with an empty window; forced_open: no call is permitted; disabled: every call is "
        "permitted and none is counted; metrics_only: every call is permitted and counted"
    )


class SeenJson(msgspec.Struct, frozen=True):
    """The calls in a breaker's sliding window, which spans `size` calls or seconds."""

    type: Literal["count", "time"]
    size: float
    calls: int
    failures: int
    slow_calls: int
    overdue: int
    failure_rate: float | None
    slow_call_rate: float | None


class FailureJson(msgspec.Struct, frozen=True):
    """An error that was counted."""

    at: TimeText
    error: str


class TransitionJson(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """A change of state."""

    at: TimeText
    from_: BreakerStateText
    to: BreakerStateText
    reason: str


class BreakerJson(msgspec.Struct, frozen=True):
    """A circuit breaker; the newest errors and transitions come first."""

    name: str
    state: BreakerStateText
    generation: int
    retry_after_s: float | None
    window: SeenJson
    consecutive_failures: int
    not_permitted: int
    retry_budget: float
    last_errors: list[FailureJson]
    transitions: list[TransitionJson]


class BreakersJson(msgspec.Struct, frozen=True):
    """The circuit breakers of a service."""

    service: str
    breakers: list[BreakerJson]


def breaker_routes(service: str, settings: Settings, upstreams: Upstreams) -> APIRouter:
    """The routes that show and set the breakers of a service."""
    router = APIRouter(tags=["operation"])

    @router.get(
        "/v1/breakers",
        summary="The circuit breaker of each upstream of this service",
        **answering(BreakersJson),
    )
    async def show() -> dict[str, Any]:
        """Errors and transitions are listed newest first.

        `next_call` says what happens to the next call: made, a probe, or refused for `retry_after_s`. An open circuit
        that nobody calls stays open after its open time; the next call is then a probe. `is_awaited` means that the
        upstream has not answered since this service started; at first, that does not count as a failure.
        """
        return {"service": service, "breakers": upstreams.described()}

    @router.put(
        "/v1/breakers/{name}",
        summary="Force, disable or reset a breaker (administrators)",
        dependencies=[admins_only(settings)],
        **answering(BreakerJson, UnauthorizedError, NotFoundError),
    )
    async def put(name: str, setting: BreakerSetting) -> dict[str, Any]:
        if name not in upstreams.names:
            near = nearest(name, upstreams.names)
            raise NotFoundError(f"unknown breaker {name}; GET /v1/breakers lists them", did_you_mean=near)
        upstreams.set_state(name, BreakerState(setting.state))
        get_logger().warning("breaker.set", upstream=name, state=setting.state)
        return upstreams.describe(name)

    return router
