"""The HTTP routes of quote_service: they read and check each request, and hand it on to `answers.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Query, Response

from cotacoes.errors import (
    BadRequestError,
    HistoryUnavailableError,
    NoQuoteError,
    PositionBeyondEndError,
    PositionGoneError,
    UnknownCoinError,
)
from cotacoes.model.candle import INTERVALS
from cotacoes.model.coins import require_coin
from cotacoes.model.payloads import CandlesJson, CurrentJson, MeanJson, OverviewJson, PageJson, PositionsJson
from cotacoes.model.quote import CURRENCY_PATTERN, ORIGIN_PATTERN, Position
from cotacoes.patterns.sharding.shard import READ_QUOTES_MAX
from cotacoes.quote_service.answers import Answers, read_range
from cotacoes.quote_service.candles import CANDLES_MAX, CandleQuestion
from cotacoes.quote_service.history import CoinHistory
from cotacoes.quote_service.overview import NAMED_COINS_MAX, PARTS, OverviewAnswer
from cotacoes.web.document import answering
from cotacoes.web.requests import json_answer

QUOTED = (UnknownCoinError, NoQuoteError)
READ = (UnknownCoinError, HistoryUnavailableError, PositionGoneError)
PAGED = (PositionBeyondEndError,)
From = Annotated[str | None, Query(alias="from", description="RFC 3339, inclusive")]
To = Annotated[str | None, Query(alias="to", description="RFC 3339, exclusive")]

Venues = Annotated[bool, Query(description="include the series of venues, as bitcoin-kraken")]


def routes(answers: Answers, histories: Mapping[str, CoinHistory]) -> APIRouter:
    """The routes of this service, besides those that every service has."""
    router = APIRouter(tags=["quotes"])
    overview = OverviewAnswer(answers, histories)

    @router.get("/cotacao_atual/{coin}", summary="The current quote, with its age", **answering(CurrentJson, *QUOTED))
    async def current(coin: str) -> Response:
        """`status` is fresh up to an age of 5 s, else stale; `source` is live if the last poll gave it, else cache."""
        return json_answer(answers.current(require_coin(coin, histories)))

    @router.get(
        "/media_ultimos_10_logs/{coin}",
        summary="The mean of the last ten quotes, exact",
        **answering(MeanJson, *QUOTED, *READ),
    )
    async def mean(coin: str) -> Response:
        """The mean of fewer if there are fewer; only quotes with the newest one's origin and currency count."""
        return json_answer(await answers.mean(require_coin(coin, histories)))

    @router.get(
        "/v1/quotes/{coin}", summary="The history, in order and without holes", **answering(PageJson, *READ, *PAGED)
    )
    async def quotes(
        coin: str,
        after: Annotated[str | None, Query(description="a position, exclusive; absent: from the oldest quote")] = None,
        limit: Annotated[int, Query(ge=1, le=READ_QUOTES_MAX)] = 1000,
        last: Annotated[int | None, Query(ge=1, le=READ_QUOTES_MAX, description="the newest quotes instead")] = None,
        start: From = None,
        end: To = None,
    ) -> Response:
        """Pass `next` as `after` for the following page. Positions below the floor get a 410, beyond the end a 409."""
        require_coin(coin, histories)
        if last is not None:
            if after is not None or start is not None or end is not None:
                raise BadRequestError("last gives the newest quotes: it cannot be combined with after, from or to")
            return json_answer(await answers.last(coin, last))
        try:
            position = None if after is None else Position.parse(after)
        except ValueError as error:
            raise BadRequestError(f"after: {error}") from error
        if start is None and end is None:
            return json_answer(await answers.after(coin, position, limit))
        return json_answer(await answers.between(coin, *read_range(start, end), after=position, limit=limit))

    @router.get(
        "/v1/candles/{coin}", summary="Exact candles, including the open one", **answering(CandlesJson, *QUOTED, *READ)
    )
    async def candles(
        coin: str,
        interval: Annotated[str, Query(description=f"one of {', '.join(INTERVALS)}")] = "1m",
        start: From = None,
        end: To = None,
        limit: Annotated[int, Query(ge=1, le=CANDLES_MAX, description="how many; without from, the last ones")] = 100,
        empty: Annotated[bool, Query(description="include intervals without a quote, with null prices")] = False,
        origin: Annotated[str | None, Query(description="absent: that of the newest quote")] = None,
        currency: Annotated[str | None, Query(description="absent: that of the newest quote")] = None,
    ) -> Response:
        """A candle is `closed` when a quote lies at or beyond its end, so that it cannot change any more.

        `from` and `to` are widened to whole intervals. Pass `next` as `from` for the following page.
        """
        require_coin(coin, histories)
        if interval not in INTERVALS:
            raise BadRequestError(f"interval: give one of {', '.join(INTERVALS)}")
        if origin is not None and ORIGIN_PATTERN.match(origin) is None:
            raise BadRequestError("origin: invalid; use one from the quotes, for example sim")
        if currency is not None and CURRENCY_PATTERN.match(currency) is None:
            raise BadRequestError("currency: invalid; use one from the quotes, for example USD")
        first, last = read_range(start, end)
        question = CandleQuestion(interval, first, last, limit, empty=empty, origin=origin, currency=currency)
        return json_answer(await answers.candles(coin, question))

    @router.get(
        "/v1/positions",
        summary="Each coin's last position, the last one delivered, and the pending ones",
        **answering(PositionsJson),
    )
    async def positions(venues: Venues = False) -> Response:
        return json_answer(answers.positions(venues=venues))

    @router.get("/v1/overview", summary="Current quotes, means and positions of many coins", **answering(OverviewJson))
    async def overview_of(
        coins: Annotated[str | None, Query(description="separated by commas; absent: all")] = None,
        parts: Annotated[str, Query(description="separated by commas")] = ",".join(PARTS),
        venues: Venues = False,
    ) -> Response:
        """A part that is not available for a coin is listed in `problems` as `COIN.PART`."""
        wanted = list(dict.fromkeys(parts.split(",")))
        if strange := [part for part in wanted if part not in PARTS]:
            raise BadRequestError(f"parts: {strange[0][:40]!r} is not one of {', '.join(PARTS)}")
        asked = answers.listed(venues=venues) if coins is None else list(dict.fromkeys(coins.split(",")))
        if coins is not None and len(asked) > NAMED_COINS_MAX:
            raise BadRequestError(
                f"coins: {len(asked)} are more than {NAMED_COINS_MAX}: name fewer, or leave it out for all"
            )
        return json_answer(await overview.answer(asked, wanted))

    return router
