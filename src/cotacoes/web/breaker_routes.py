"""The routes for operators that show a service's circuit breakers, and set them."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from cotacoes.config import Settings
from cotacoes.errors import NotFoundError, UnauthorizedError
from cotacoes.model.breakers import BreakerJson, BreakersJson, SettableState
from cotacoes.model.coins import nearest
from cotacoes.observability.logs import get_logger
from cotacoes.patterns.resilience import BreakerState
from cotacoes.web.document import answering
from cotacoes.web.requests import admins_only
from cotacoes.web.upstreams import Upstreams


class BreakerSetting(BaseModel):
    """The body of `PUT /v1/breakers/{name}`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: SettableState = Field(
        description="closed: reset the breaker and forget its evidence; forced_open: let no call pass; "
        "disabled: let every call pass, uncounted; metrics_only: let every call pass, counted"
    )


def breaker_routes(service: str, settings: Settings, upstreams: Upstreams) -> APIRouter:
    """The routes of a service: which upstreams it calls, and whether it calls them at present."""
    router = APIRouter(tags=["operation"])

    @router.get(
        "/v1/breakers",
        summary="The circuit breaker of each upstream of this service",
        **answering(BreakersJson),
    )
    async def show() -> Response:
        """The newest errors and transitions come first.

        `next_call` says what happens to the next call: it is made, it is a probe, or it is refused for `retry_after_s`.
        An open circuit that nobody calls stays open when its wait is over, and the next call is a probe. `is_awaited`
        is true if the upstream has not answered since this service started, which at first does not count as a failure.
        """
        return _json(BreakersJson(service, upstreams.described()))

    @router.put(
        "/v1/breakers/{name}",
        summary="Force, disable or reset one of them (administrators)",
        dependencies=[admins_only(settings)],
        **answering(BreakerJson, UnauthorizedError, NotFoundError),
    )
    async def put(name: str, setting: BreakerSetting) -> Response:
        if name not in upstreams.names:
            near = nearest(name, upstreams.names)
            raise NotFoundError("no such breaker here; GET /v1/breakers lists them", did_you_mean=near)
        upstreams.set_state(name, BreakerState(setting.state))
        get_logger().warning("breaker.set", upstream=name, state=setting.state)
        return _json(upstreams.describe(name))

    return router


def _json(answer: BreakersJson | BreakerJson) -> Response:
    return Response(msgspec.json.encode(answer), media_type="application/json")
