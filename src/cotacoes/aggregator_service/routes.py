"""The routes of the report, and how a question becomes a plan.

    ?coins=bitcoin,ethereum    these coins only; also series of venues, as bitcoin-kraken
    &parts=current,last_logs   these parts only; sources of other parts are not asked
    &last=5                    the number of latest quotes of each coin
    &window=7d                 the figures of the last week; 1h, or 24h (the default)
    &strict=1                  503 if something is missing, instead of a part of the answer
    &trace=1                   also how each branch went

`/report/full` and `/v1/report` are the same. An answer carries an `ETag`, which stays the same until there is something
new to report, and its `Age` if it was served before; `Cache-Control: no-cache` asks for a new report. Other caches must
not store it, since they would serve its ages unchanged. After a 304, the age of a price counts from its `observed_at`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qsl

from fastapi import APIRouter, Response
from starlette.datastructures import Headers

from cotacoes.adapters.http_server.connection import ASGIApp, Receive, Scope, Send
from cotacoes.aggregator_service.plan import LAST_LOGS, PARTS, ReportPlan
from cotacoes.aggregator_service.reporter import Reporter
from cotacoes.errors import BadRequestError, ServiceUnavailableError, UnknownCoinError
from cotacoes.model.coins import require_coin
from cotacoes.model.listing import listed
from cotacoes.model.payloads import ReportJson
from cotacoes.model.window import DEFAULT_WINDOW, WINDOWS, Window
from cotacoes.web.document import answering, query_parameters
from cotacoes.web.requests import is_known, whole_number

LAST_MAX = 100
COINS_MAX = 2_000  # in one answer, which then has some 7 MB
LOGS_MAX = 20_000  # in one answer, some 4 MB
NAMED_MAX = 10  # missing parts in a header or an error
PATHS = {
    "/report/full": "Everything about every coin, by the deadline",
    "/v1/report": "The same, under its versioned name",
}
_SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_ONE_PART = f"({'|'.join(PARTS)})"
_PARAMETERS: dict[str, tuple[str, dict[str, object]]] = {
    "coins": ("separated by commas (default: all)", {"type": "string", "pattern": "^[^,]+(,[^,]+)*$"}),
    "parts": (
        f"any of {', '.join(PARTS)}, separated by commas (default: all)",
        {"type": "string", "pattern": f"^{_ONE_PART}(,{_ONE_PART})*$"},
    ),
    "last": (
        f"how many of each coin's latest quotes (default: {LAST_LOGS})",
        {"type": "integer", "minimum": 1, "maximum": LAST_MAX},
    ),
    "window": (
        f"the time until the last full minute (default: {DEFAULT_WINDOW})",
        {"type": "string", "enum": list(WINDOWS)},
    ),
    "strict": ("1: answer 503 if something is missing", {"type": "string", "enum": list(_SWITCH)}),
    "trace": ("1: also show how each branch went", {"type": "string", "enum": list(_SWITCH)}),
}


def report_route(reporter: Reporter) -> ASGIApp:
    """The app that answers both paths, without the framework: its parameters would take longer than all of this."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        response = await _respond(reporter, scope["query_string"].decode("latin-1"), Headers(scope=scope))
        await response(scope, receive, send)

    return answer


def documented() -> APIRouter:
    """The same routes for `/docs` and `/openapi.json`."""
    router = APIRouter(tags=["report"])

    async def show() -> None:
        """`missing` names each part that did not arrive, with the reason; the header `X-Partial` names them too."""
        raise AssertionError("the direct route answers it")

    for path, summary in PATHS.items():
        answers = answering(
            ReportJson,
            UnknownCoinError,
            ServiceUnavailableError,
            also={"304": "Nothing new since the `ETag` that was sent"},
        )
        answers["openapi_extra"]["parameters"] = query_parameters(_PARAMETERS)
        router.add_api_route(path, show, summary=summary, **answers)
    return router


async def _respond(reporter: Reporter, query: str, headers: Headers) -> Response:
    given = dict(parse_qsl(query, keep_blank_values=True))
    is_strict, is_traced = (_switch(name, given.get(name, "0")) for name in ("strict", "trace"))
    last = whole_number("last", given["last"], 1, LAST_MAX) if "last" in given else None
    asked = plan(
        reporter.placement(venues="coins" in given),  # a series of a venue has to be named
        given.get("coins"),
        given.get("parts"),
        last,
        given.get("window", DEFAULT_WINDOW),
        datetime.now(UTC),
    )
    max_age_s = _max_age_s(",".join(headers.getlist("cache-control")))
    rendered = await reporter.report(asked, trace=is_traced, max_age_s=max_age_s)
    missing = rendered.report.missing
    if is_strict and missing:
        reasons = [f"{one.part} ({one.reason})" for one in missing]
        raise ServiceUnavailableError(f"the report is not complete: {listed(reasons, NAMED_MAX)}")
    sent = {"cache-control": "no-store", "age": str(int(rendered.age_s))}
    if missing:
        sent["x-partial"] = listed([one.part for one in missing], NAMED_MAX)
    if not is_traced:  # a trace is about this asking
        sent["etag"] = rendered.etag
        if is_known(rendered.etag, headers.get("if-none-match", "")):
            return Response(status_code=304, headers=sent)
    return Response(rendered.body, media_type="application/json", headers=sent)


def plan(
    placement: Mapping[str, str], coins: str | None, parts: str | None, last: int | None, window: str, now: datetime
) -> ReportPlan:
    """Whom to ask for what.

    Raises UnknownCoinError; BadRequestError if a part or a window is unknown, or the answer would be too large.
    """
    asked = {require_coin(name, placement) for name in _split(coins, "coins")} if coins is not None else placement
    wanted = _split(parts, "parts") if parts is not None else PARTS
    if unknown := [part for part in wanted if part not in PARTS]:
        raise BadRequestError(f"parts: unknown part {unknown[0][:40]!r}, choose from {', '.join(PARTS)}")
    if window not in WINDOWS:
        raise BadRequestError(f"window: unknown window {window[:40]!r}, choose from {', '.join(WINDOWS)}")
    if len(asked) > COINS_MAX:
        raise BadRequestError(f"coins: {len(asked)} coins exceed the limit of {COINS_MAX}, name fewer")
    count = LAST_LOGS if last is None else last
    if "last_logs" in wanted and count * len(asked) > LOGS_MAX:
        raise BadRequestError(
            f"last: {count} quotes of {len(asked)} coins exceed the limit of {LOGS_MAX}, ask for fewer quotes or coins"
        )
    return ReportPlan(
        {coin: shard for coin, shard in placement.items() if coin in asked},
        Window.until(window, now),
        tuple(part for part in PARTS if part in wanted),
        count,
    )


def _max_age_s(cache_control: str) -> float:
    """How old an answer may be by this header (RFC 9111): zero for a new one, infinite for any."""
    max_age_s = math.inf
    for directive in cache_control.lower().split(","):
        name, _, value = directive.strip().partition("=")
        if name in ("no-cache", "no-store"):
            return 0.0
        if name == "max-age" and value.isascii() and value.isdigit():
            max_age_s = min(max_age_s, float(value))
    return max_age_s


def _switch(name: str, text: str) -> bool:
    if text.lower() not in _SWITCH:
        raise BadRequestError(f"{name} must be 1 or 0")
    return _SWITCH[text.lower()]


def _split(text: str, name: str) -> list[str]:
    found = [word.strip() for word in text.split(",")]
    if not all(found):
        raise BadRequestError(f"{name} must name at least one, separated by commas")
    return found
