"""The routes that show the state of the whole system, and those that pass an operator's settings on."""

from __future__ import annotations

from urllib.parse import quote

import msgspec
from fastapi import APIRouter, Request, Response

from cotacoes.config import Settings
from cotacoes.errors import BadRequestError, NotFoundError, ServiceUnavailableError, UnauthorizedError
from cotacoes.gateway_service.status import Status
from cotacoes.gateway_service.status_polls import StatusPolls
from cotacoes.model.breakers import BreakerJson
from cotacoes.model.status import CoinJson, CoinsJson, PassedOnJson, StatusJson
from cotacoes.web.document import answering
from cotacoes.web.requests import admins_only, json_answer
from cotacoes.web.service_client import ServiceClient

PASSED_ON = (UnauthorizedError, NotFoundError, BadRequestError, ServiceUnavailableError)
_encode = msgspec.json.Encoder().encode


def status_routes(settings: Settings, status: Status, polls: StatusPolls, client: ServiceClient) -> APIRouter:
    """The routes of this file. `client` knows the services that settings are passed on to."""
    router = APIRouter(tags=["operation"])
    admins = admins_only(settings)

    async def passed_on(service: str, path: str, request: Request) -> Response:
        authorization = request.headers["authorization"]
        return json_answer(_encode(await client.passed_on(service, path, await request.body(), authorization)))

    @router.get("/v1/status", summary="The state of the whole system", **answering(StatusJson))
    async def show_status() -> Response:
        """Services, breakers, shards, coins, venues, faults and a report, each with the time that it is from.

        However many clients ask, each service is asked at most once a second. The topic `status` of `/v1/ws` pushes
        the same, and then what changes.
        """
        await polls.first_answers()
        return json_answer(status.encoded())

    @router.get(
        "/v1/coins", summary="The coins: symbol, title, currency, decimals, first quote", **answering(CoinsJson)
    )
    async def show_coins() -> Response:
        """`decimals` is the largest number of decimals that the prices of the coin had while the gateway ran."""
        await polls.first_answers()
        coins = {
            name: CoinJson(coin.symbol, coin.title, coin.currency, coin.decimals, coin.first)
            for name, coin in status.coins.items()
        }
        return json_answer(_encode(CoinsJson(coins)))

    @router.put(
        "/v1/faults",
        summary="Replace the faults of external_service (administrators)",
        dependencies=[admins],
        **answering(PassedOnJson, *PASSED_ON),
    )
    async def put_faults(request: Request) -> Response:
        """The body and the answer are those of external_service's `PUT /faults`."""
        return await passed_on("external_service", "/faults", request)

    @router.put(
        "/v1/venues/{venue}/faults",
        summary="Replace the faults of a simulated venue (administrators)",
        dependencies=[admins],
        **answering(PassedOnJson, *PASSED_ON),
    )
    async def put_venue_faults(venue: str, request: Request) -> Response:
        """The body and the answer are those of external_service's `PUT /venues/{name}/faults`."""
        return await passed_on("external_service", f"/venues/{quote(venue, safe='')}/faults", request)

    @router.put(
        "/v1/breakers/{service}/{name}",
        summary="Force, disable or reset a circuit breaker of a service (administrators)",
        dependencies=[admins],
        **answering(BreakerJson, *PASSED_ON),
    )
    async def put_breaker(service: str, name: str, request: Request) -> Response:
        """The body and the answer are those of the service's own `PUT /v1/breakers/{name}`."""
        if service not in settings.http_services:
            raise NotFoundError(f"no such service here: the services are {', '.join(settings.http_services)}")
        return await passed_on(service, f"/v1/breakers/{quote(name, safe='')}", request)

    return router
