"""quote_service as its readers see it: the same routes and errors over a history in memory, with faults by route."""

import asyncio
from typing import Annotated, Any

import httpx2
import msgspec
from fastapi import APIRouter, Query, Request, Response

from cotacoes import config
from cotacoes.adapters.http_client import HttpClient
from cotacoes.errors import HttpUnavailableError, ProblemError
from cotacoes.errors.problem_json import problem_of
from cotacoes.model.candle import INTERVALS, CandleJson, candles_of
from cotacoes.model.coins import require_coin
from cotacoes.model.quote import Position, Quote, QuoteJson, format_time
from cotacoes.observability.metrics import Metrics
from cotacoes.quote_service.answers import read_range
from cotacoes.web.app import build_app
from cotacoes.web.service_client import Addresses, ServiceClient

HOST = "http://quote_service"
OWN_ROUTES = {"current": "/cotacao_atual", "mean": "/media_ultimos_10_logs", "position": "/v1/positions"}
BYTES_MAX = 1_000_000


class QuoteServiceTwin:
    """`faults` maps a path, or `*`, to an error to raise, an answer to give instead, or None to hang.

    An error of a coin's own route is in the overview too.
    """

    def __init__(self, quotes: dict[str, list[Quote]]) -> None:
        self.quotes = quotes
        self.faults: dict[str, Exception | bytes | Response | None] = {}
        self.through: dict[str, str | None] = {}  # what each coin's shard has confirmed
        router = APIRouter()

        @router.get("/cotacao_atual/{coin}")
        async def current(coin: str) -> Any:
            newest = QuoteJson.from_quote(quotes[require_coin(coin, quotes)][-1])
            return msgspec.to_builtins(newest) | {"age_ms": 200, "status": "fresh", "source": "live"}

        @router.get("/media_ultimos_10_logs/{coin}")
        async def mean(coin: str) -> Any:
            held = quotes[require_coin(coin, quotes)]
            first, last = (str(quote.position) for quote in (held[-10:][0], held[-1]))
            return {"coin": coin, "currency": "USD", "average": "1.5", "count": 10, "from": first, "to": last}

        @router.get("/v1/quotes/{coin}")
        async def quotes_page(
            coin: str,
            after: str | None = None,
            last: int | None = None,
            limit: int | None = None,
            start: Annotated[str | None, Query(alias="from")] = None,
            end: Annotated[str | None, Query(alias="to")] = None,
        ) -> Any:
            held = quotes[require_coin(coin, quotes)]
            position = None if after is None else Position.parse(after)
            first, stop = read_range(start, end)
            later = [
                quote
                for quote in held
                if (position is None or quote.position > position)
                and (first is None or quote.at >= first)
                and (stop is None or quote.at < stop)
            ]
            page = held[-last:] if last is not None else later[: limit or 1000]
            return {
                "coin": coin,
                "quotes": [msgspec.to_builtins(QuoteJson.from_quote(quote)) for quote in page],
                "next": str(page[-1].position) if page else after,
                "more": last is None and len(later) > len(page),
                "floor": str(held[0].position) if held else None,
                "asked": [after, last, limit, start, end],
            }

        @router.get("/v1/candles/{coin}")
        async def candles(coin: str, request: Request) -> Any:
            asked = dict(request.query_params)
            minutes = INTERVALS[asked["interval"]]
            held = candles_of(quotes[require_coin(coin, quotes)], minutes)
            first, stop = read_range(asked.get("from"), asked.get("to"))
            later = [one for one in held if (first is None or one.at >= first) and (stop is None or one.at < stop)]
            limit = int(asked.get("limit", "100"))
            page = later[-limit:] if first is None else later[:limit]
            more = first is not None and len(later) > limit
            return {
                "coin": coin,
                "currency": "USD",
                "origin": "sim",
                "interval": asked["interval"],
                "candles": [msgspec.structs.asdict(CandleJson.of(one, closed=one is not held[-1])) for one in page],
                "next": format_time(later[limit].at) if more else None,
                "more": more,
                "through": str(quotes[coin][-1].position),
                "asked": asked,
            }

        async def progress(coin: str) -> dict[str, Any]:
            return {
                "position": str(quotes[coin][-1].position),
                "through": self.through.get(coin),
                "pending": 3,
                "shard": "shard1",
            }

        @router.get("/v1/positions")
        async def positions() -> Any:
            return {"coins": {coin: await progress(coin) for coin in quotes}}

        routes = {"current": current, "mean": mean, "position": progress}

        @router.get("/v1/overview")
        async def overview(parts: str, coins: str | None = None) -> Any:
            payload: dict[str, dict[str, Any]] = {part: {} for part in parts.split(",")}
            problems: dict[str, Any] = {}
            for coin in quotes if coins is None else coins.split(","):
                for part, its in payload.items():
                    try:
                        fault = self.faults.get(f"{OWN_ROUTES[part]}/{require_coin(coin, quotes)}")
                        if isinstance(fault, ProblemError):
                            raise fault
                        its[coin] = await routes[part](coin)
                    except ProblemError as error:
                        problems[f"{coin}.{part}"] = problem_of(error) | {"retry_after_s": None}
            return {**payload, "problems": problems}

        self._app = build_app("quote_service", config.load({}), Metrics(), router)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        key = path if path in self.faults else "*"
        if key not in self.faults:
            await self._app(scope, receive, send)
            return
        fault = self.faults[key]
        if fault is None:
            await asyncio.Event().wait()
        elif isinstance(fault, bytes | Response):
            answer = fault if isinstance(fault, Response) else Response(fault, media_type="application/json")
            await answer(scope, receive, send)
        elif isinstance(fault, HttpUnavailableError):
            raise httpx2.ConnectError("connection to 10.1.2.3:8002 refused")
        else:
            assert isinstance(fault, Exception)
            app = build_app("quote_service", config.load({}), Metrics(), _raising(path, fault))
            await app(scope, receive, send)

    def client(self, deadline_s: float = 1.0, kind: type[ServiceClient] = ServiceClient) -> ServiceClient:
        """A client whose network is this twin."""
        http = HttpClient(deadline_s, BYTES_MAX, transport=httpx2.ASGITransport(self, raise_app_exceptions=True))
        return kind(Addresses(quote_service=HOST, external_service=HOST, aggregator_service=HOST), http=http)


def _raising(path: str, error: Exception) -> APIRouter:
    router = APIRouter()

    @router.get(path)
    async def fail() -> None:
        raise error

    return router
