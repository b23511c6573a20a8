"""The routes of the report, and how a question becomes a plan.

    ?coins=bitcoin,ethereum    of these alone
    &parts=current,last_logs   these parts alone: nobody is asked for another
    &last=5                    so many of the last logs
    &window=7d                 the figures of the last week; 1h, or 24h where it is left out
    &strict=1                  503 where something is missing, in place of a part of the answer
    &trace=1                   how each branch went, as well

`/report/full` and `/v1/report` are one and the same. An answer carries an `ETag`, which is the same as long as there is
nothing new to tell, and its `Age` where it was told before; `Cache-Control: no-cache` asks for one of now. No cache may
keep it: it would tell the ages of then as those of now. Who gets a 304 counts a price's age from its `observed_at`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qsl

from fastapi import APIRouter, Response
from starlette.datastructures import Headers

from cotacoes.adapters.http_server.exchange import ASGIApp, Receive, Scope, Send
from cotacoes.aggregator_service.plan import LAST_LOGS, PARTS, ReportPlan
from cotacoes.aggregator_service.reporter import Reporter
from cotacoes.errors import BadRequestError, ServiceUnavailableError, UnknownCoinError
from cotacoes.model.coins import require_coin
from cotacoes.model.listing import listed
from cotacoes.model.payloads import ReportJson
from cotacoes.model.window import DEFAULT_WINDOW, WINDOWS, Window
from cotacoes.web.document import answering

LAST_MAX = 100
COINS_MAX = 2_000  # of one answer, which has some 7 MB by then
LOGS_MAX = 20_000  # of one answer, some 4 MB
NAMED_MAX = 10  # parts that are named where there is no room for all
PATHS = {
    "/report/full": "Everything about every coin, by the deadline",
    "/v1/report": "The same, under its versioned name",
}
_DEFAULT = "where left out"
_SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_ONE_PART = f"({'|'.join(PARTS)})"
_PARAMETERS: dict[str, tuple[str, dict[str, object]]] = {
    "coins": (f"by commas; all, {_DEFAULT}", {"type": "string", "pattern": "^[^,]+(,[^,]+)*$"}),
    "parts": (
        f"of {', '.join(PARTS)}, by commas; all, {_DEFAULT}",
        {"type": "string", "pattern": f"^{_ONE_PART}(,{_ONE_PART})*$"},
    ),
    "last": (
        f"of each coin's last logs; {LAST_LOGS}, {_DEFAULT}",
        {"type": "integer", "minimum": 1, "maximum": LAST_MAX},
    ),
    "window": (f"until the last full minute; {DEFAULT_WINDOW}, {_DEFAULT}", {"type": "string", "enum": list(WINDOWS)}),
    "strict": ("1: 503 if something is missing", {"type": "string", "enum": list(_SWITCH)}),
    "trace": ("1: how each branch went, as well", {"type": "string", "enum": list(_SWITCH)}),
}


def report_route(reporter: Reporter) -> ASGIApp:
    """What answers either path. Outside the framework, which takes longer over its parameters than all of this does."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        response = await _respond(reporter, scope["query_string"].decode("latin-1"), Headers(scope=scope))
        await response(scope, receive, send)

    return answer


def documented() -> APIRouter:
    """The same route as `/docs` and `/openapi.json` show it."""
    router = APIRouter(tags=["report"])
    described = [
        {"name": name, "in": "query", "required": False, "description": said, "schema": schema}
        for name, (said, schema) in _PARAMETERS.items()
    ]

    async def show() -> None:
        """`missing` names each part that did not come, and why, and so does the header `X-Partial`."""
        raise AssertionError("the edge answers it")

    for path, summary in PATHS.items():
        told = answering(
            ReportJson,
            UnknownCoinError,
            ServiceUnavailableError,
            also={"304": "Nothing new since the `ETag` that was sent"},
        )
        told["openapi_extra"]["parameters"] = described
        router.add_api_route(path, show, summary=summary, **told)
    return router


async def _respond(reporter: Reporter, query: str, sent: Headers) -> Response:
    given = dict(parse_qsl(query, keep_blank_values=True))
    is_strict, is_traced = (_switch(name, given.get(name, "0")) for name in ("strict", "trace"))
    last = _count("last", given["last"]) if "last" in given else None
    asked = plan(
        reporter.placement,
        given.get("coins"),
        given.get("parts"),
        last,
        given.get("window", DEFAULT_WINDOW),
        datetime.now(UTC),
    )
    told = await reporter.report(asked, trace=is_traced, age_max_s=_age_max_s(",".join(sent.getlist("cache-control"))))
    if is_strict and told.missing:
        reasons = [f"{one['part']} ({one['reason']})" for one in told.missing]
        raise ServiceUnavailableError(f"the report is not complete: {listed(reasons, NAMED_MAX)}")
    headers = {"cache-control": "no-store", "age": str(int(told.age_s))}
    if told.missing:
        headers["x-partial"] = listed([one["part"] for one in told.missing], NAMED_MAX)
    if is_traced:  # it is of this one asking
        return Response(told.body, media_type="application/json", headers=headers)
    headers["etag"] = told.tag
    if _is_known(told.tag, sent.get("if-none-match", "")):
        return Response(status_code=304, headers=headers)
    return Response(told.body, media_type="application/json", headers=headers)


def plan(
    placement: Mapping[str, str], coins: str | None, parts: str | None, last: int | None, window: str, now: datetime
) -> ReportPlan:
    """Who is to be asked; UnknownCoinError, and BadRequestError where a part or a window is none, or it is too much."""
    asked = {require_coin(name, placement) for name in _split(coins, "coins")} if coins is not None else placement
    wanted = _split(parts, "parts") if parts is not None else PARTS
    if strange := [part for part in wanted if part not in PARTS]:
        raise BadRequestError(f"parts: {strange[0][:40]!r} is none of {', '.join(PARTS)}")
    if window not in WINDOWS:
        raise BadRequestError(f"window: {window[:40]!r} is none of {', '.join(WINDOWS)}")
    if len(asked) > COINS_MAX:
        raise BadRequestError(f"coins: {len(asked)} are more than {COINS_MAX}: name fewer")
    count = LAST_LOGS if last is None else last
    if "last_logs" in wanted and count * len(asked) > LOGS_MAX:
        raise BadRequestError(
            f"last: {count} logs of {len(asked)} coins are more than {LOGS_MAX}: ask for fewer, or of fewer coins"
        )
    return ReportPlan(
        {coin: shard for coin, shard in placement.items() if coin in asked},
        Window.until(window, now),
        tuple(part for part in PARTS if part in wanted),
        count,
    )


def _age_max_s(cache_control: str) -> float:
    """How old an answer may be for one who sends this header (RFC 9111): of now, or as old as there are."""
    most_s = math.inf
    for directive in cache_control.lower().split(","):
        name, _, value = directive.strip().partition("=")
        if name in ("no-cache", "no-store"):
            return 0.0
        if name == "max-age" and value.isascii() and value.isdigit():
            most_s = min(most_s, float(value))
    return most_s


def _is_known(tag: str, if_none_match: str) -> bool:
    """Whether the caller has the answer of this tag, by RFC 9110's weak comparison."""
    return any(one.strip().removeprefix("W/") in ("*", tag.removeprefix("W/")) for one in if_none_match.split(","))


def _switch(name: str, text: str) -> bool:
    if text.lower() not in _SWITCH:
        raise BadRequestError(f"{name}: give 1 or 0")
    return _SWITCH[text.lower()]


def _count(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= LAST_MAX):
        raise BadRequestError(f"{name}: give a number from 1 to {LAST_MAX}")
    return int(text)


def _split(text: str, name: str) -> list[str]:
    found = [word.strip() for word in text.split(",")]
    if not all(found):
        raise BadRequestError(f"{name}: name at least one, separated by commas")
    return found
