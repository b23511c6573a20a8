"""The HTTP routes of quote_service: what they take; `answers.py` says what they give."""

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
from cotacoes.quote_service.overview import NAMED_COINS_MAX, PARTS, Overview
from cotacoes.web.document import answering

QUOTED = (UnknownCoinError, NoQuoteError)
READ = (UnknownCoinError, HistoryUnavailableError, PositionGoneError)
PAGED = (PositionBeyondEndError,)
From = Annotated[str | None, Query(alias="from", description="RFC 3339, inclusive")]
To = Annotated[str | None, Query(alias="to", description="RFC 3339, exclusive")]


def routes(answers: Answers, histories: Mapping[str, CoinHistory]) -> APIRouter:
    """All routes of the service but those that every service has."""
    router = APIRouter(tags=["quotes"])
    overview = Overview(answers, histories)

    @router.get(
        "/cotacao_atual/{coin}", summary="The current quote, with its honest age", **answering(CurrentJson, *QUOTED)
    )
    async def current(coin: str) -> Response:
        """`status` is fresh up to 5 s of age, else stale; `source` is live where the last poll gave it, else cache."""
        return _json(answers.current(require_coin(coin, histories)))

    @router.get(
        "/media_ultimos_10_logs/{coin}",
        summary="The mean of the last ten quotes, exact",
        **answering(MeanJson, *QUOTED, *READ),
    )
    async def mean(coin: str) -> Response:
        """Of those there are, where there are fewer; only quotes of the newest one's origin and currency."""
        return _json(await answers.mean(require_coin(coin, histories)))

    @router.get(
        "/v1/quotes/{coin}", summary="The history, in order, without a hole", **answering(PageJson, *READ, *PAGED)
    )
    async def quotes(
        coin: str,
        after: Annotated[str | None, Query(description="a position, exclusive; absent: from the floor")] = None,
        limit: Annotated[int, Query(ge=1, le=READ_QUOTES_MAX)] = 1000,
        last: Annotated[int | None, Query(ge=1, le=READ_QUOTES_MAX, description="the newest ones instead")] = None,
        start: From = None,
        end: To = None,
    ) -> Response:
        """`next` goes into `after`, with the same `from` and `to`; below the floor it is 410, beyond the end 409."""
        require_coin(coin, histories)
        if last is not None:
            if after is not None or start is not None or end is not None:
                raise BadRequestError("last gives the newest quotes: leave it out, or after, from and to")
            return _json(await answers.last(coin, last))
        try:
            position = None if after is None else Position.parse(after)
        except ValueError as error:
            raise BadRequestError(f"after: {error}") from error
        if start is None and end is None:
            return _json(await answers.after(coin, position, limit))
        return _json(await answers.between(coin, *read_range(start, end), after=position, limit=limit))

    @router.get(
        "/v1/candles/{coin}", summary="Candles, the open one included, exact", **answering(CandlesJson, *QUOTED, *READ)
    )
    async def candles(
        coin: str,
        interval: Annotated[str, Query(description=f"one of {', '.join(INTERVALS)}")] = "1m",
        start: From = None,
        end: To = None,
        limit: Annotated[int, Query(ge=1, le=CANDLES_MAX, description="without from: so many intervals")] = 100,
        empty: Annotated[bool, Query(description="intervals without a quote as well, their prices null")] = False,
        origin: Annotated[str | None, Query(description="absent: that of the newest quote")] = None,
        currency: Annotated[str | None, Query(description="absent: that of the newest quote")] = None,
    ) -> Response:
        """`closed` once a quote lies at or beyond the candle's end: nothing can be added to it any more.

        `from` and `to` are widened to whole intervals; without `from` they are the last ones. `next` goes into `from`.
        """
        require_coin(coin, histories)
        if interval not in INTERVALS:
            raise BadRequestError(f"interval: give one of {', '.join(INTERVALS)}")
        if origin is not None and ORIGIN_PATTERN.match(origin) is None:
            raise BadRequestError("origin: give one as it stands in the quotes, for example sim")
        if currency is not None and CURRENCY_PATTERN.match(currency) is None:
            raise BadRequestError("currency: give one as it stands in the quotes, for example USD")
        first, last = read_range(start, end)
        question = CandleQuestion(interval, first, last, limit, empty=empty, origin=origin, currency=currency)
        return _json(await answers.candles(coin, question))

    @router.get(
        "/v1/positions", summary="Per coin: last position, delivered through, pending", **answering(PositionsJson)
    )
    async def positions() -> Response:
        return _json(answers.positions())

    @router.get("/v1/overview", summary="Current quotes, means and positions of many coins", **answering(OverviewJson))
    async def overview_of(
        coins: Annotated[str | None, Query(description="by commas; all, where left out")] = None,
        parts: Annotated[str, Query(description="some of them, by commas")] = ",".join(PARTS),
    ) -> Response:
        """What can not be told of a coin is among the `problems`, as `COIN.PART`."""
        wanted = list(dict.fromkeys(parts.split(",")))
        if strange := [part for part in wanted if part not in PARTS]:
            raise BadRequestError(f"parts: {strange[0][:40]!r} is none of {', '.join(PARTS)}")
        asked = list(histories) if coins is None else list(dict.fromkeys(coins.split(",")))
        if coins is not None and len(asked) > NAMED_COINS_MAX:
            raise BadRequestError(f"coins: {len(asked)} are more than {NAMED_COINS_MAX}: name fewer, or none for all")
        return _json(await overview.answer(asked, wanted))

    return router


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json", headers={"cache-control": "no-store"})
