"""The routes of the report, and how a question becomes a plan.

    ?coins=bitcoin,ethereum    of these alone
    &parts=current,last_logs   these parts alone: nobody is asked for another
    &last=5                    so many of the last logs
    &strict=1                  503 where something is missing, in place of a part of the answer
    &trace=1                   how each branch went, as well

`/report/full` and `/v1/report` are one and the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Response

from cotacoes.aggregator_service.report import LAST_LOGS, PARTS, Plan
from cotacoes.aggregator_service.reporter import Reporter
from cotacoes.errors import BadRequestError, ServiceUnavailableError
from cotacoes.service import require_coin

LAST_MAX = 100
NAMED_MAX = 10  # parts that are named where there is no room for all
Coins = Annotated[str | None, Query(description="by commas; all, where left out")]
Parts = Annotated[str | None, Query(description=f"of {', '.join(PARTS)}, by commas; all, where left out")]
Last = Annotated[int, Query(ge=1, le=LAST_MAX, description="of each coin's last logs")]
Strict = Annotated[bool, Query(description="503 where something is missing")]
Trace = Annotated[bool, Query(description="how each branch went, as well")]


def routes(reporter: Reporter) -> APIRouter:
    """Both names of the report."""
    router = APIRouter(tags=["report"])

    @router.get("/report/full", summary="Everything about every coin, by the deadline", response_model=None)
    @router.get("/v1/report", summary="The same, under its versioned name", response_model=None)
    async def report(
        coins: Coins = None, parts: Parts = None, last: Last = LAST_LOGS, strict: Strict = False, trace: Trace = False
    ) -> Response:
        """`missing` names each part that did not come, and why, and so does the header `X-Partial`."""
        told = await reporter.report(plan(reporter.placement, coins, parts, last), trace=trace)
        if strict and told.missing:
            reasons = [f"{one['part']} ({one['reason']})" for one in told.missing]
            raise ServiceUnavailableError(f"the report is not complete: {_named(reasons)}")
        headers = {"cache-control": "no-store"}
        if told.missing:
            headers["x-partial"] = _named([one["part"] for one in told.missing])
        return Response(told.body, media_type="application/json", headers=headers)

    return router


def plan(placement: Mapping[str, str], coins: str | None, parts: str | None, last: int) -> Plan:
    """Who is to be asked; UnknownCoinError, and BadRequestError where a part is none."""
    asked = {require_coin(name, placement) for name in _split(coins, "coins")} if coins is not None else placement
    wanted = _split(parts, "parts") if parts is not None else PARTS
    if strange := [part for part in wanted if part not in PARTS]:
        raise BadRequestError(f"parts: {strange[0][:40]!r} is none of {', '.join(PARTS)}")
    return Plan(
        {coin: shard for coin, shard in placement.items() if coin in asked},
        tuple(part for part in PARTS if part in wanted),
        last,
    )


def _split(text: str, name: str) -> list[str]:
    found = [word.strip() for word in text.split(",")]
    if not all(found):
        raise BadRequestError(f"{name}: name at least one, separated by commas")
    return found


def _named(parts: Sequence[str]) -> str:
    more = f", and {len(parts) - NAMED_MAX} more" if len(parts) > NAMED_MAX else ""
    return ", ".join(parts[:NAMED_MAX]) + more
