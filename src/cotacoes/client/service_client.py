"""The reader: one method for each route that is asked for an answer, one error for each way not to get it.

A refusal comes out as the error that the service raised (`UnknownCoinError`, `NoQuoteError`, …), recognised by the
slug in its problem type, with its detail, `retry_after_s` and extra fields. A service that does not answer in time, or
not as ours do, is `ServiceUnavailableError`. Each call has one deadline and one bounded body; nothing is tried twice.

Answers are decoded JSON; prices in it are strings, and stay strings. Each is held against its type in `payloads.py`
before it is given back, so no text that is not a price, a position, a time or a name is passed on as one. A current
quote has the fields of its type and no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from cotacoes.adapters.http_client import HttpClient, Response
from cotacoes.client.overview import Overview, OverviewAnswer, plain, read_overview, read_problem
from cotacoes.errors import (
    HttpError,
    ServiceUnavailableError,
)
from cotacoes.model.payloads import CandlesJson, CurrentJson, PageJson, PositionsJson, Progress, SourceCoins

if TYPE_CHECKING:
    from cotacoes.config import Settings

ANSWER_BYTES_MAX = 16_777_216  # 10,000 quotes, or a report of 1,000 coins, have some 3 MB
NAMED_COINS_MAX = 500  # in one address, which has some 16 KB by then; beyond it all are asked for
DEADLINE_S = 6.0  # a service ends its own requests after 5 s
T = TypeVar("T")


@dataclass(frozen=True)
class Addresses:
    """Where the services are, without a slash at the end; those that nobody asks may stay empty."""

    gateway_service: str = ""
    quote_service: str = ""
    aggregator_service: str = ""
    external_service: str = ""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """All of them, as the settings say."""
        return cls(**{name: settings.url(name) for name in cls.__dataclass_fields__})


class ServiceClient:
    """An async context manager. `deadline_s` is of each call; `http`, for who brings one, is the network."""

    def __init__(
        self,
        addresses: Addresses,
        *,
        deadline_s: float = DEADLINE_S,
        admin_token: str = "",
        http: HttpClient | None = None,
    ) -> None:
        self._addresses = addresses
        self._admin_token = admin_token
        has_tls = any(url.lower().startswith("https:") for url in vars(addresses).values())
        self._http = http or HttpClient(deadline_s=deadline_s, bytes_max=ANSWER_BYTES_MAX, has_tls=has_tls)
        self._history = "quote_service" if addresses.quote_service else "gateway_service"  # which passes it on

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._http.__aexit__(*error)

    async def current(self, coin: str) -> dict[str, Any]:
        """The current quote, from quote_service, or from the gateway where only that one is known."""
        name = quote(coin, safe="")
        if self._addresses.quote_service:
            return _of(coin, "quote_service", await self._get("quote_service", f"/cotacao_atual/{name}"))
        return _of(coin, "gateway_service", await self._get("gateway_service", f"/v1/quotes/{name}/current"))

    async def quotes(
        self,
        coin: str,
        *,
        after: str | None = None,
        last: int | None = None,
        limit: int | None = None,
        start: str | None = None,
        end: str | None = None,
    ) -> dict[str, Any]:
        """A page of the history, ascending: those after a position, of a time range (RFC 3339), or the last ones."""
        asked = _query(after=after, last=last, limit=limit, **{"from": start, "to": end})
        answer = await self._get(self._history, f"/v1/quotes/{quote(coin, safe='')}?{asked}")
        page = _understood(self._history, answer, PageJson)
        if any(one.coin != coin for one in page.quotes):
            raise ServiceUnavailableError(f"{self._history} answered of another coin")
        return answer

    async def candles(
        self,
        coin: str,
        interval: str,
        *,
        start: str | None = None,
        end: str | None = None,
        limit: int | None = None,
        empty: bool = False,
        origin: str | None = None,
        currency: str | None = None,
    ) -> dict[str, Any]:
        """A page of candles, ascending; without `start` the last ones. `next` is the `start` of the next page."""
        asked = _query(
            interval=interval,
            limit=limit,
            empty="true" if empty else None,
            origin=origin,
            currency=currency,
            **{"from": start, "to": end},
        )
        answer = await self._get(self._history, f"/v1/candles/{quote(coin, safe='')}?{asked}")
        _understood(self._history, answer, CandlesJson)
        return answer

    async def positions(self) -> dict[str, Progress]:
        """Each coin's progress."""
        answer = await self._get("quote_service", "/v1/positions")
        return _understood("quote_service", answer, PositionsJson).coins

    async def overview(self, coins: Sequence[str], parts: Sequence[str]) -> Overview:
        """The parts (current, mean, position) of these coins, in one answer."""
        named = {"coins": ",".join(coins)} if len(coins) <= NAMED_COINS_MAX else {}
        answer = await self._get("quote_service", f"/v1/overview?{_query(**named, parts=','.join(parts))}")
        return read_overview(_understood("quote_service", answer, OverviewAnswer), answer["problems"])

    async def report(
        self, coins: Sequence[str] = (), *, window: str | None = None, trace: bool = False
    ) -> dict[str, Any]:
        """The report of these coins, or of all, over 1h, 24h or 7d; with `trace` also how each of its branches went.

        One of now: what was told to another one a moment ago is not told again.
        """
        asked = _query(coins=",".join(coins) or None, window=window, trace="1" if trace else None)
        path = f"/report/full?{asked}" if asked else "/report/full"
        return await self._call("aggregator_service", "GET", path, b"", {"cache-control": "no-cache"})

    async def faults(self) -> dict[str, Any]:
        """The faults that external_service has in force."""
        return await self._get("external_service", "/faults")

    async def set_faults(self, setting: Mapping[str, object]) -> dict[str, Any]:
        """Put other faults in force; UnauthorizedError without the admin token."""
        return await self._call("external_service", "PUT", "/faults", msgspec.json.encode(setting), self._admin())

    async def source_coins(self) -> SourceCoins:
        """The coins that external_service quotes; NotFoundError or ServiceUnavailableError of another source."""
        return _understood("external_service", await self._get("external_service", "/coins"), SourceCoins)

    async def add_coin(self, coin: str) -> dict[str, Any]:
        """Let the simulated market quote the coin; BadRequestError of a replay, UnauthorizedError without the token."""
        return await self._call("external_service", "PUT", f"/coins/{quote(coin, safe='')}", b"", self._admin())

    async def breakers(self, service: str) -> dict[str, Any]:
        """The circuit breakers of quote_service, aggregator_service or gateway_service."""
        return await self._get(service, "/v1/breakers")

    async def set_breaker(self, service: str, name: str, state: str) -> dict[str, Any]:
        """Force, disable or reset one; how it is then. NotFoundError, UnauthorizedError without the admin token."""
        body = msgspec.json.encode({"state": state})
        return await self._call(service, "PUT", f"/v1/breakers/{quote(name, safe='')}", body, self._admin())

    async def check_alive(self, service: str) -> None:
        """Return where the service's process answers."""
        await self._get(service, "/livez")

    def _admin(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._admin_token}"} if self._admin_token else {}

    async def _get(self, service: str, path: str) -> dict[str, Any]:
        return await self._call(service, "GET", path, b"", {})

    async def _call(
        self, service: str, method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> dict[str, Any]:
        url = getattr(self._addresses, service) + path
        try:
            if method == "PUT":
                response = await self._http.put(url, body, headers)
            else:
                response = await self._http.get(url, headers)
        except HttpError as error:
            # what stands behind the colon names addresses, which is no caller's business
            reason = str(error).partition(":")[0]
            raise ServiceUnavailableError(f"{service} is away ({reason})") from error
        return _answer(service, response)


def _query(**asked: str | int | None) -> str:
    return urlencode({name: value for name, value in asked.items() if value is not None})


def _understood(service: str, answer: Mapping[str, Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(answer, kind)
    except msgspec.ValidationError as error:
        raise ServiceUnavailableError(f"{service} did not answer as it should") from error


def _of(coin: str, service: str, answer: dict[str, Any]) -> dict[str, Any]:
    """The fields of a current quote of this coin."""
    try:
        return plain(_understood(service, answer, CurrentJson).checked(coin))
    except ValueError as error:
        raise ServiceUnavailableError(f"{service} did not answer as it should: {error}") from error


def _answer(service: str, response: Response) -> dict[str, Any]:
    try:
        answer = msgspec.json.decode(response.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        answer = None
    if isinstance(answer, dict):
        if response.status == 200:
            return answer
        if response.headers.get("content-type", "").startswith("application/problem+json"):
            raise read_problem(answer, response.status, _retry_after_s(response))
    raise ServiceUnavailableError(
        f"{service} answered {response.status}, not as it should", retry_after_s=_retry_after_s(response) or 1.0
    )


def _retry_after_s(response: Response) -> float | None:
    text = response.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
