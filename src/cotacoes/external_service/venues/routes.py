"""`/venues`: what the simulated venues do, and their faults."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel

from cotacoes.config import Settings
from cotacoes.errors import NotFoundError, UnauthorizedError
from cotacoes.external_service.venues.exchange import Exchange, Exchanges
from cotacoes.external_service.venues.faults import MarketShock, VenueFaults
from cotacoes.external_service.venues.stream import path_of
from cotacoes.observability.logs import get_logger
from cotacoes.web.document import refusing
from cotacoes.web.requests import admins_only


class VenueShown(BaseModel):
    """A simulated venue: the path of its stream, how much it serves, and its faults in force."""

    stream: str
    connections: int
    subscriptions: int
    pairs: int
    faults: VenueFaults


class VenuesShown(BaseModel):
    """The simulated venues by name, and what happens to their market; a replay has none."""

    venues: dict[str, VenueShown]
    market: MarketShock


def venue_routes(settings: Settings, exchanges: Exchanges) -> APIRouter:
    """The routes of the simulated venues."""
    router = APIRouter()
    admins = admins_only(settings)

    @router.get("/venues", summary="The simulated venues, with their faults in force")
    async def show_venues() -> VenuesShown:
        shown = {name: _shown(exchange) for name, exchange in exchanges.by_name.items()}
        return VenuesShown(venues=shown, market=exchanges.shock.shown())

    @router.put(
        "/venues/market",
        summary="Replace what happens to the market of all venues (administrators)",
        dependencies=[admins],
        **refusing(UnauthorizedError, NotFoundError),
    )
    async def set_shock(shock: MarketShock) -> MarketShock:
        _require_venues(exchanges)
        exchanges.shock.set(shock)
        _log_set("market", shock)
        return exchanges.shock.shown()

    @router.get("/venues/{name}/faults", summary="The faults of a simulated venue", **refusing(NotFoundError))
    async def show_faults(name: str) -> VenueFaults:
        return _venue(exchanges, name).faults.shown()

    @router.put(
        "/venues/{name}/faults",
        summary="Replace all faults of a simulated venue (administrators)",
        dependencies=[admins],
        **refusing(UnauthorizedError, NotFoundError),
    )
    async def set_faults(name: str, faults: VenueFaults) -> VenueFaults:
        exchange = _venue(exchanges, name)
        exchange.set_faults(faults)
        _log_set(name, faults)
        return exchange.faults.shown()

    return router


def _venue(exchanges: Exchanges, name: str) -> Exchange:
    _require_venues(exchanges)
    if name not in exchanges.by_name:
        raise NotFoundError(f"that venue is not simulated: the venues are {', '.join(exchanges.by_name)}")
    return exchanges.by_name[name]


def _require_venues(exchanges: Exchanges) -> None:
    if not exchanges.by_name:
        raise NotFoundError("a replay has no venues: start external_service with another COTACOES_SOURCE")


def _shown(exchange: Exchange) -> VenueShown:
    return VenueShown(
        stream=path_of(exchange.name),
        connections=len(exchange.connections),
        subscriptions=exchange.subscriptions,
        pairs=len(exchange.pairs),
        faults=exchange.faults.shown(),
    )


def _log_set(venue: str, setting: VenueFaults | MarketShock) -> None:
    get_logger().info("faults.set", venue=venue, **setting.model_dump(mode="json", exclude_defaults=True))
