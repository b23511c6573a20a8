"""ServiceClient asks any of the services over HTTP, for the services themselves and the commands.

It has one method for each route, and the errors of `QuoteClient`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import msgspec

from cotacoes.adapters.http_client import HttpClient
from cotacoes.client.quote_client import DEADLINE_S, QuoteClient, checked, new_http_client, query
from cotacoes.errors import NotFoundError
from cotacoes.model.payloads import PositionsJson, Progress, SimulatedVenuesJson, SourceCoins
from cotacoes.model.venues import ListingJson, VenuesJson
from cotacoes.web.overview import DecodedOverview, Overview, read_overview

if TYPE_CHECKING:
    from cotacoes.config import Settings

NAMED_COINS_MAX = 500  # in one address, which has some 16 KB by then; for more of them, all coins are requested


@dataclass(frozen=True)
class Addresses:
    """The URLs of the services, without a slash at the end; one that is never asked may be empty.

    Only a system whose source are exchanges has a feed_service, which then is the source of its prices.
    """

    gateway_service: str = ""
    quote_service: str = ""
    aggregator_service: str = ""
    external_service: str = ""
    feed_service: str = ""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The addresses of all services by the settings."""
        return cls(**{name: settings.url(name) for name in cls.__dataclass_fields__})

    @property
    def source(self) -> str:
        """The service that prices come from."""
        return "feed_service" if self.feed_service else "external_service"


class ServiceClient(QuoteClient):
    """The routes of all services. Quotes come from quote_service, or from the gateway if only that is known."""

    def __init__(
        self,
        addresses: Addresses,
        *,
        deadline_s: float = DEADLINE_S,
        admin_token: str = "",
        http: HttpClient | None = None,
    ) -> None:
        service = "quote_service" if addresses.quote_service else "gateway_service"
        http = http or new_http_client(vars(addresses).values(), deadline_s)
        super().__init__(service, getattr(addresses, service), http=http)
        self._addresses = addresses
        self._admin_token = admin_token

    @property
    def follows_venues(self) -> bool:
        """Whether the system has a feed_service."""
        return bool(self._addresses.feed_service)

    async def positions(self, *, venues: bool = False) -> dict[str, Progress]:
        """The progress of each coin, and with `venues` also of the series of venues."""
        answer = await self._get("quote_service", "/v1/positions?venues=1" if venues else "/v1/positions")
        return checked("quote_service", answer, PositionsJson).coins

    async def overview(self, coins: Sequence[str], parts: Sequence[str], *, venues: bool = False) -> Overview:
        """The sections (current, mean, position) of these coins, in one answer; `venues` if series are among them."""
        named = {"coins": ",".join(coins)} if len(coins) <= NAMED_COINS_MAX else {"venues": "1" if venues else None}
        answer = await self._get("quote_service", f"/v1/overview?{query(**named, parts=','.join(parts))}")
        return read_overview(checked("quote_service", answer, DecodedOverview), answer["problems"])

    async def report(
        self, coins: Sequence[str] = (), *, window: str | None = None, trace: bool = False
    ) -> dict[str, Any]:
        """A fresh report of these coins, or of all, over 1h, 24h or 7d; `trace` adds how each branch went."""
        asked = query(coins=",".join(coins) or None, window=window, trace="1" if trace else None)
        path = f"/report/full?{asked}" if asked else "/report/full"
        return await self._ask("aggregator_service", "GET", path, headers={"cache-control": "no-cache"})

    async def faults(self) -> dict[str, Any]:
        """The faults that external_service has in force."""
        return await self._get("external_service", "/faults")

    async def set_faults(self, setting: Mapping[str, object]) -> dict[str, Any]:
        """Put other faults in force; UnauthorizedError without the admin token."""
        return await self._put("external_service", "/faults", msgspec.json.encode(setting))

    async def simulated_venues(self) -> SimulatedVenuesJson:
        """The simulated venues of external_service with their faults, and what happens to their market."""
        answer = await self._get("external_service", "/venues")
        return checked("external_service", answer, SimulatedVenuesJson)

    async def set_venue_faults(self, venue: str, faults: Mapping[str, object]) -> dict[str, Any]:
        """Put other faults of a simulated venue in force; NotFoundError, or UnauthorizedError without the token."""
        path = f"/venues/{quote(venue, safe='')}/faults"
        return await self._put("external_service", path, msgspec.json.encode(faults))

    async def set_market_shock(self, shock: Mapping[str, object]) -> dict[str, Any]:
        """Put another shock of the simulated venues' market in force; errors as for a venue's faults."""
        return await self._put("external_service", "/venues/market", msgspec.json.encode(shock))

    async def source_coins(self) -> SourceCoins:
        """The coins that the source quotes; NotFoundError or ServiceUnavailableError of another program's."""
        source = self._addresses.source
        return checked(source, await self._get(source, "/coins"), SourceCoins)

    async def add_coin(self, coin: str) -> dict[str, Any]:
        """Let the source quote the coin; BadRequestError if it cannot, UnauthorizedError without the token."""
        return await self._put(self._addresses.source, f"/coins/{quote(coin, safe='')}", b"")

    async def listing(self, coin: str) -> ListingJson:
        """The venues that list a coin; NotFoundError if no exchanges are followed."""
        answer = await self._get("feed_service", f"/coins/{quote(coin, safe='')}")
        return checked("feed_service", answer, ListingJson)

    async def venues(self) -> VenuesJson:
        """The venues, and the consensus on each coin; NotFoundError if no exchanges are followed."""
        if not self.follows_venues:
            raise NotFoundError("no exchanges are followed here: start the system with --source exchanges")
        return checked("feed_service", await self._get("feed_service", "/v1/venues"), VenuesJson)

    async def breakers(self, service: str) -> dict[str, Any]:
        """The circuit breakers of quote_service, aggregator_service or gateway_service."""
        return await self._get(service, "/v1/breakers")

    async def set_breaker(self, service: str, name: str, state: str) -> dict[str, Any]:
        """Force, disable or reset a breaker, and return its state; NotFoundError or UnauthorizedError."""
        body = msgspec.json.encode({"state": state})
        return await self._put(service, f"/v1/breakers/{quote(name, safe='')}", body)

    async def passed_on(self, service: str, path: str, body: bytes, authorization: str) -> dict[str, Any]:
        """The answer to a PUT that is made for a caller, with the caller's own authorization."""
        return await self._ask(service, "PUT", path, body, {"authorization": authorization})

    async def check_alive(self, service: str) -> None:
        """Return if the service's process answers."""
        await self._get(service, "/livez")

    async def _get(self, service: str, path: str) -> dict[str, Any]:
        return await self._ask(service, "GET", path)

    async def _put(self, service: str, path: str, body: bytes) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {self._admin_token}"} if self._admin_token else {}
        return await self._ask(service, "PUT", path, body, headers)

    async def _ask(
        self, service: str, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        address: str = getattr(self._addresses, service)
        if not address:
            raise NotFoundError(f"this system has no {service}: its source needs none")
        return await self._call(service, method, address + path, body, headers or {})
