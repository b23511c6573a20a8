"""The overview agrees with the routes of each coin, and no coin costs another its answer."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from tests.unit.harness_quote_service import COIN, QuoteServiceCore

from cotacoes import config
from cotacoes.adapters.http_client import HttpClient
from cotacoes.errors import NoQuoteError, ServiceUnavailableError, UnknownCoinError
from cotacoes.model.payloads import Progress
from cotacoes.model.quote import AgeLimits
from cotacoes.observability.metrics import Metrics
from cotacoes.patterns.resilience.deadline import HEADER
from cotacoes.patterns.sharding.shard import Home
from cotacoes.quote_service.answers import Answers
from cotacoes.quote_service.routes import routes
from cotacoes.web.app import build_app
from cotacoes.web.overview import Overview as ReadOverview
from cotacoes.web.service_client import Addresses, ServiceClient

SLOW = "slow"


class OneHangs(Answers):
    """Every coin is answered as COIN is; the mean of one hangs, or crashes."""

    crashes = False

    def current(self, coin: str) -> bytes:
        return super().current(COIN)

    async def mean(self, coin: str) -> bytes:
        if coin == SLOW and self.crashes:
            raise KeyError("secret")
        if coin == SLOW:
            await asyncio.Event().wait()
        return await super().mean(COIN)

    def progress(self, coin: str) -> Progress:
        return super().progress(COIN)


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[QuoteServiceCore]:
    core = QuoteServiceCore(tmp_path)
    await core.recorder.start()
    yield core
    await core.recorder.close()


def serving(core: QuoteServiceCore) -> httpx2.ASGITransport:
    answers = core.answers
    histories = {COIN: core.history}
    if isinstance(answers, OneHangs):
        histories[SLOW] = core.history
    return httpx2.ASGITransport(build_app("quote_service", config.load({}), Metrics(), routes(answers, histories)))


async def get(core: QuoteServiceCore, path: str, **headers: str) -> Any:
    async with httpx2.AsyncClient(transport=serving(core), base_url="http://quote_service") as asking:
        answer = await asking.get(path, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()


async def test_the_overview_agrees_with_the_routes_of_each_coin(core: QuoteServiceCore) -> None:
    await core.record("67012.30", "67012.50")
    payload = await get(core, "/v1/overview")
    assert payload == {
        "current": {COIN: await get(core, f"/cotacao_atual/{COIN}")},
        "mean": {COIN: await get(core, f"/media_ultimos_10_logs/{COIN}")},
        "position": (await get(core, "/v1/positions"))["coins"],
        "problems": {},
    }
    assert await get(core, f"/v1/overview?coins={COIN}&parts=current") == {
        "current": payload["current"],
        "problems": {},
    }


async def test_the_series_of_a_venue_is_in_no_answer_about_all_coins_unless_it_is_asked_for(
    core: QuoteServiceCore,
) -> None:
    core.directory.homes[COIN] = Home(1, "shard1", 1, kind="venue")
    await core.record("67012.30")
    assert await get(core, "/v1/positions") == {"coins": {}}
    assert (await get(core, "/v1/positions?venues=1"))["coins"].keys() == {COIN}
    assert (await get(core, "/v1/overview?parts=current"))["current"] == {}
    for asked in ("venues=1", f"coins={COIN}"):
        assert (await get(core, f"/v1/overview?parts=current&{asked}"))["current"].keys() == {COIN}


async def test_a_part_that_is_not_available_is_a_problem_as_on_its_own_route(core: QuoteServiceCore) -> None:
    http = HttpClient(5.0, 100_000, transport=serving(core))
    async with ServiceClient(Addresses(quote_service="http://quote_service"), http=http) as client:
        payload = await client.overview([COIN, "bitcoyn"], ["current", "mean", "position"])
        with pytest.raises(NoQuoteError) as single:
            await client.current(COIN)
    assert (payload.current, payload.mean) == ({}, {})
    assert payload.position[COIN].pending == 0
    assert {name: type(error) for name, error in payload.problems.items()} == {
        **dict.fromkeys((f"{COIN}.current", f"{COIN}.mean"), NoQuoteError),
        **dict.fromkeys(("bitcoyn.current", "bitcoyn.mean", "bitcoyn.position"), UnknownCoinError),
    }
    assert payload.problems[f"{COIN}.current"].detail == single.value.detail


@pytest.mark.slow
@pytest.mark.parametrize("crashes", [False, True])
async def test_a_coin_that_hangs_or_crashes_is_a_problem_and_delays_no_other(
    core: QuoteServiceCore, crashes: bool
) -> None:
    await core.record("67012.30")
    core.answers = hanging = OneHangs(core.recorder, core.directory, core.intake, AgeLimits(5_000, 300_000))
    hanging.crashes = crashes
    payload = await get(core, f"/v1/overview?coins={SLOW},{COIN}", **{HEADER: "1500"})
    assert list(payload["mean"]) == [COIN]
    assert set(payload["current"]) == {SLOW, COIN}
    (problem,) = payload["problems"].values()
    assert problem["status"] == (500 if crashes else 504)
    assert "secret" not in json.dumps(payload)


@pytest.mark.parametrize(
    "answer",
    [
        b"[]",
        b'{"problems": {}, "current": []}',
        b'{"problems": {"bitcoin.mean": {}}}',
        b'{"current": {}}',
    ],
)
async def test_an_invalid_answer_counts_as_no_answer(answer: bytes) -> None:
    with pytest.raises(ServiceUnavailableError):
        await overview_of(answer)


CURRENT = {"coin": "bitcoin", "currency": "USD", "price": "1.50", "epoch": 5, "seq": 7, "origin": "sim", "age_ms": 1}
CURRENT |= {"observed_at": "2026-11-24T12:00:00Z", "at": "2026-11-24T12:00:00Z", "status": "fresh", "source": "live"}
MEAN = {"coin": "bitcoin", "currency": "USD", "average": "0", "count": 2, "from": "5-6", "to": "5-7"}
PROGRESS = {"position": "5-7", "through": None, "pending": 1, "shard": "shard1", "held": None, "source": "cache"}
SOUND: dict[str, dict[str, Any]] = {"current": CURRENT, "mean": MEAN, "position": PROGRESS}
SCRIPT = "<script>"


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        *(("current", {"price": price}) for price in ("NaN", SCRIPT, "0", "-1", "1e3", "1\n", "", 1.5, None)),
        *(("current", {name: SCRIPT}) for name in ("coin", "currency", "observed_at", "at", "status", "breaker")),
        *(("current", {"origin": origin}) for origin in ("", "a b", "\x1b[2J", "o" * 101)),
        *(("current", {name: -1}) for name in ("epoch", "age_ms")),
        *(("current", {"seq": seq}) for seq in (0, 2**31)),
        ("current", {"at": "2026-02-30T12:00:00Z"}),
        ("current", {"coin": "ethereum"}),
        *(("mean", {"average": average}) for average in ("NaN", SCRIPT, None, "1e3")),
        *(("mean", wrong) for wrong in ({"count": 0}, {"from": SCRIPT}, {"to": "5-0"}, {"coin": "ethereum"})),
        *(("position", wrong) for wrong in ({"position": SCRIPT}, {"through": "5-0"}, {"pending": -1})),
    ],
    ids=str,
)
async def test_an_invalid_part_is_named_and_affects_no_other(part: str, wrong: dict[str, Any]) -> None:
    sound = {name: {"bitcoin": its} for name, its in SOUND.items()}
    payload = await overview_of(json.dumps(sound | {"problems": {}}).encode())
    assert payload.problems == {}
    assert msgspec.to_builtins(payload.current) == {"bitcoin": CURRENT | {"breaker": None}}
    assert msgspec.to_builtins(payload.mean) == {"bitcoin": MEAN}
    assert msgspec.to_builtins(payload.position) == {"bitcoin": PROGRESS}
    spoilt = sound | {part: {"bitcoin": SOUND[part] | wrong, "solana": SOUND[part] | {"coin": "solana"}}}
    payload = await overview_of(json.dumps(spoilt | {"problems": {}}).encode())
    assert [(name, str(error)) for name, error in payload.problems.items()] == [
        (f"bitcoin.{part}", f"quote_service gave no valid {part} for bitcoin")
    ]
    kept = {name: list(getattr(payload, name)) for name in SOUND}
    assert kept == {name: ["bitcoin"] for name in SOUND} | {part: ["solana"]}


async def test_a_field_that_no_type_names_is_not_passed_on() -> None:
    more = {"current": {"bitcoin": CURRENT | {"note": SCRIPT}}, "mean": {"bitcoin": MEAN | {"note": SCRIPT}}}
    payload = await overview_of(json.dumps(more | {"problems": {}}).encode())
    assert SCRIPT not in repr(payload)


async def overview_of(answer: bytes) -> ReadOverview:
    async def babble(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    http = HttpClient(5.0, 100_000, transport=httpx2.ASGITransport(babble))
    async with ServiceClient(Addresses(quote_service="http://quote_service"), http=http) as client:
        return await client.overview(["bitcoin"], ["current", "mean"])


async def test_a_coin_named_several_times_is_answered_once(core: QuoteServiceCore) -> None:
    """Each name and part costs time that no deadline can limit."""
    payload = await get(core, f"/v1/overview?coins={','.join(['x', COIN] * 200)}&parts={','.join(['position'] * 999)}")
    assert list(payload) == ["position", "problems"]
    assert (list(payload["position"]), list(payload["problems"])) == ([COIN], ["x.position"])
    async with httpx2.AsyncClient(transport=serving(core), base_url="http://quote_service") as asking:
        many = ",".join(f"x{number}" for number in range(501))
        answer = await asking.get(f"/v1/overview?coins={many}")
    assert (answer.status_code, answer.json()["detail"]) == (
        422,
        "coins: 501 are more than 500: name fewer, or leave it out for all",
    )


async def test_an_unknown_part_is_refused_by_name(core: QuoteServiceCore) -> None:
    async with httpx2.AsyncClient(transport=serving(core), base_url="http://quote_service") as asking:
        answer = await asking.get("/v1/overview?parts=price")
    assert answer.status_code == 422
    assert answer.json()["detail"] == "parts: 'price' is not one of current, mean, position"


async def test_more_coins_than_a_url_holds_are_requested_as_all() -> None:
    asked: list[str] = []

    async def note(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["query_string"].decode())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b'{"problems": {}}'})

    http = HttpClient(5.0, 100_000, transport=httpx2.ASGITransport(note))
    async with ServiceClient(Addresses(quote_service="http://quote_service"), http=http) as client:
        await client.overview([f"coin-{number}" for number in range(500)], ["current"])
        await client.overview([f"coin-{number}" for number in range(501)], ["current"])
        await client.overview([f"coin-{number}" for number in range(501)], ["current"], venues=True)
    assert asked[0].startswith("coins=coin-0")
    assert asked[1:] == ["parts=current", "venues=1&parts=current"]
