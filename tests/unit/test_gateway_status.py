"""The state of the whole system: asked for sparingly, each part with the time that it is from, pushed if it changes."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx2
import msgspec
import pytest
from tests.unit import fake_event_loop
from tests.unit.harness_gateway_scenarios import run, settle
from tests.unit.harness_gateway_stream import NOON, StreamRig

from cotacoes import config
from cotacoes.adapters.http_client import HttpClient
from cotacoes.config import SHARDS
from cotacoes.errors import BusUnavailableError
from cotacoes.gateway_service import app
from cotacoes.gateway_service.status import Status
from cotacoes.gateway_service.status_polls import WANTED_S, StatusPolls
from cotacoes.gateway_service.status_topic import QUIET_S
from cotacoes.model.breakers import BreakersJson
from cotacoes.model.payloads import Progress
from cotacoes.model.quote import Quote
from cotacoes.model.status import CoinJson, LimitsJson, StatusJson
from cotacoes.model.venues import VenuesJson
from cotacoes.observability.metrics import Metrics
from cotacoes.patterns.pub_sub.recovery_events import QuoteReceived
from cotacoes.testing.memory_bus import MemoryBus
from cotacoes.web.background import Restarts
from cotacoes.web.service_client import Addresses, ServiceClient

TOKEN = "sesame"
SERVICES = ("gateway_service", "quote_service", "aggregator_service", "feed_service", "external_service", "redis")
BITCOIN = CoinJson("BTC", "Bitcoin", "USD", 2, None)
FAULTS = {"error_rate": 0.0}
TRACE = {"branch": "shard1", "status": "ok", "start_ms": 0.1, "elapsed_ms": 3.5, "attempts": 1, "reason": None}
REPORT = {
    "generated_at": "2026-11-24T12:00:00.000000Z",
    "deadline_ms": 800,
    "elapsed_ms": 4,
    "complete": True,
    "missing": [],
    "coins": {},
    "sources": {},
    "trace": [TRACE],
}
PAGE: dict[str, Any] = {"coin": "bitcoin", "quotes": [], "next": None, "more": False, "floor": None}


class SystemTwin:
    """All services over HTTP: `answers` by path; a service in `away` refuses, and one in `hung` never answers."""

    def __init__(self) -> None:
        self.progress = {"bitcoin": {"position": "5-7", "through": "5-6", "pending": 1, "shard": "shard1"}}
        self.away: set[str] = set()
        self.hung: set[str] = set()
        self.foreign: set[str] = set()  # which answers nothing that we ask for
        self.asked: Counter[tuple[str, int]] = Counter()  # by service and second
        self.puts: list[tuple[str, str, bytes, str]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        service, path = headers["host"], scope["path"]
        self.asked[service, int(asyncio.get_running_loop().time())] += 1
        if service in self.hung:
            await asyncio.Event().wait()
        if service in self.away:
            raise httpx2.ConnectError("refused")
        if service in self.foreign:
            await send({"type": "http.response.start", "status": 404, "headers": [(b"content-type", b"text/html")]})
            await send({"type": "http.response.body", "body": b"<h1>Not Found</h1>"})
            return
        body = b""
        if scope["method"] == "PUT":
            body = (await receive())["body"]
            self.puts.append((service, path, body, headers["authorization"]))
            answer: object = {"done": path}
        else:
            answer = self._answer(service, path)
        content = msgspec.json.encode(answer)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": content})

    def _answer(self, service: str, path: str) -> object:
        match path:
            case "/v1/breakers":
                return BreakersJson(service, [])
            case "/v1/positions":
                return {"coins": self.progress}
            case "/report/full":
                return REPORT
            case "/v1/venues":
                return VenuesJson([], {"USD": "1"}, [])
            case "/venues":
                return {"venues": {"kraken": {"faults": {"stall": True}}}, "market": {}}
            case "/faults":
                return FAULTS
            case _:
                return PAGE

    async def ping(self) -> None:
        """Redis, which is not asked over HTTP."""
        self.asked["redis", int(asyncio.get_running_loop().time())] += 1
        if "redis" in self.hung:
            await asyncio.Event().wait()
        if "redis" in self.away:
            raise BusUnavailableError("redis refused the connection")

    def client(self) -> ServiceClient:
        http = HttpClient(2.0, 1_000_000, transport=httpx2.ASGITransport(self))
        return ServiceClient(Addresses(**{name: f"http://{name}" for name in SERVICES[:-1]}), http=http)


def new_status(now: Callable[[], datetime] = lambda: NOON) -> Status:
    return Status(SERVICES, SHARDS, limits=LimitsJson(5_000, 300_000, 100), source="venues", now=now)


def polled(scenario: Callable[[SystemTwin, Status, StatusPolls], Coroutine[Any, Any, None]], *services: str) -> None:
    """A scenario beside the questions to all services, in virtual time."""

    async def beside() -> None:
        rig, twin = StreamRig("bitcoin"), SystemTwin()
        loop = asyncio.get_running_loop()

        def now() -> datetime:
            return NOON + timedelta(seconds=loop.time())

        status = new_status(now)
        async with twin.client() as client:
            polls = StatusPolls(
                status,
                client,
                rig.hub,
                services=services or SERVICES,
                own_breakers=list,
                ping_redis=twin.ping,
                report_s=2.0,
                clock=loop.time,
                now=now,
            )
            running = asyncio.create_task(polls.run(Restarts(Metrics())))
            try:
                await scenario(twin, status, polls)
            finally:
                running.cancel()
                await asyncio.wait([running])

    fake_event_loop.run(beside())


def test_each_service_is_asked_at_most_once_a_second_however_many_want_the_status() -> None:
    async def scenario(twin: SystemTwin, status: Status, polls: StatusPolls) -> None:
        for _ in range(100):
            await asyncio.gather(*(polls.first_answers() for _ in range(50)))
            await asyncio.sleep(0.2)
        for service in SERVICES[1:]:
            assert 18 <= sum(count for (name, _), count in twin.asked.items() if name == service) <= 21
        assert max(twin.asked.values()) <= 2  # of which one is the end of its second
        whole = status.whole()
        assert {one.state for one in whole.services.values()} == {"up"}
        assert whole.shards["shard1"].state == "up"
        assert whole.coins["bitcoin"].position == "5-7"
        assert whole.venues is not None
        assert whole.faults is not None
        assert whole.faults.venues == {"kraken": {"stall": True}}
        assert whole.report is not None
        assert whole.report.trace[0].branch == "shard1"

    polled(scenario)


def test_nothing_is_asked_while_nobody_wants_to_know() -> None:
    async def scenario(twin: SystemTwin, _: Status, polls: StatusPolls) -> None:
        await asyncio.sleep(60)
        assert not twin.asked
        polls.want()
        await asyncio.sleep(WANTED_S + 60)
        assert 0 < sum(twin.asked.values()) <= len(SERVICES) * (WANTED_S + 2)

    polled(scenario)


@pytest.mark.parametrize("service", SERVICES[1:])
@pytest.mark.parametrize("way", ["away", "hung"])
def test_a_service_that_does_not_answer_is_away_within_three_seconds_and_delays_no_other(
    service: str, way: str
) -> None:
    async def scenario(twin: SystemTwin, status: Status, polls: StatusPolls) -> None:
        async def watch(seconds: float) -> None:
            for _ in range(int(seconds * 10)):
                await asyncio.sleep(0.1)
                polls.want()

        await watch(8)
        getattr(twin, way).add(service)
        began = asyncio.get_running_loop().time()
        await watch(3.5 if service == "aggregator_service" and way == "hung" else 3)
        services = dict(status.whole().services)
        gone = services.pop(service)
        assert gone.state == "away"
        assert gone.reason
        assert service in gone.reason or "no answer" in gone.reason
        assert began - 2 <= seconds_of(gone.known_at) <= began + 0.1
        assert {one.state for one in services.values()} == {"up"}
        for one in services.values():
            assert seconds_of(one.known_at) >= asyncio.get_running_loop().time() - 1.1
        getattr(twin, way).clear()
        await watch(3)
        assert status.whole().services[service].state == "up"

    polled(scenario)


def seconds_of(text: str | None) -> float:
    assert text is not None
    return (datetime.fromisoformat(text) - NOON).total_seconds()


def test_the_first_answers_are_waited_for_but_not_long() -> None:
    async def scenario(twin: SystemTwin, status: Status, polls: StatusPolls) -> None:
        twin.hung.update({"quote_service", "feed_service"})
        await polls.first_answers()
        assert asyncio.get_running_loop().time() <= 1.0
        assert status.whole().services["external_service"].state == "up"

    polled(scenario)


def test_a_source_of_another_program_is_up_and_has_no_faults() -> None:
    async def scenario(twin: SystemTwin, status: Status, polls: StatusPolls) -> None:
        twin.foreign.add("external_service")
        await polls.first_answers()
        whole = status.whole()
        assert whole.services["external_service"].state == "up"
        assert whole.faults is not None
        assert whole.faults.setting is None

    polled(scenario, "gateway_service", "external_service")


def test_a_status_that_nobody_wanted_for_long_is_asked_for_anew() -> None:
    async def scenario(_: SystemTwin, status: Status, polls: StatusPolls) -> None:
        await polls.first_answers()
        await asyncio.sleep(100)
        await polls.first_answers()
        now_s = asyncio.get_running_loop().time()
        assert now_s <= 101.1
        assert all(seconds_of(one.known_at) >= 100 for one in status.whole().services.values())

    polled(scenario)


def test_an_answer_that_is_no_answer_leaves_what_is_known() -> None:
    async def scenario(twin: SystemTwin, status: Status, polls: StatusPolls) -> None:
        await polls.first_answers()
        twin.progress = {"bitcoin": {"position": 5}}
        for _ in range(50):
            await asyncio.sleep(0.1)
            polls.want()
        assert status.whole().services["quote_service"].state == "up"

    polled(scenario)


def test_a_shard_is_away_while_quotes_of_one_of_its_coins_do_not_get_there() -> None:
    at = NOON
    status = new_status(lambda: at)
    held = Progress("5-7", "5-6", 1, "shard1", "shard1 did not answer in time")
    fine = Progress("5-7", "5-7", 0, "shard2")
    status.note_coins({"bitcoin": BITCOIN, "ethereum": BITCOIN}, {"bitcoin": held, "ethereum": fine})
    at += timedelta(seconds=5)
    status.note_coins({"bitcoin": BITCOIN, "ethereum": BITCOIN}, {"bitcoin": held, "ethereum": fine})
    shards = status.whole().shards
    assert (shards["shard1"].state, shards["shard1"].reason) == ("away", held.held)
    assert seconds_of(shards["shard1"].since) == 0
    assert seconds_of(shards["shard1"].known_at) == 5
    assert shards["shard2"].state == "up"


def test_only_what_has_changed_is_a_change_and_a_coin_that_is_gone_is_null() -> None:
    at = NOON
    status = new_status(lambda: at)
    progress = {"bitcoin": Progress("5-7", "5-7", 0, "shard1")}
    status.note_coins({"bitcoin": BITCOIN}, progress)
    status.note_answer("quote_service", [])
    changes = status.pop_changes()
    assert changes.keys() == {"generated_at", "coins", "shards", "services"}
    assert changes["services"].keys() == {"quote_service"}
    at += timedelta(seconds=1)
    status.note_coins({"bitcoin": BITCOIN}, progress)
    status.note_answer("quote_service", [])  # heard again, which is no change
    assert status.pop_changes().keys() == {"generated_at"}
    status.note_no_answer("quote_service", "it is away")
    status.note_coins({}, {})
    changes = status.pop_changes()
    assert changes["coins"] == {"bitcoin": None}
    assert changes["services"]["quote_service"].known_at == status.whole().services["quote_service"].known_at
    assert seconds_of(changes["services"]["quote_service"].known_at) == 1


def test_the_whole_is_encoded_once_for_all_that_want_it_until_it_changes_or_is_half_a_second_old() -> None:
    at = NOON
    status = new_status(lambda: at)
    first = status.encoded()
    assert status.encoded() is first
    status.note_answer("quote_service", [])
    second = status.encoded()
    assert json.loads(second)["services"]["quote_service"]["state"] == "up"
    at += timedelta(seconds=0.4)
    status.note_answer("quote_service", [])
    assert status.encoded() is second
    for step in (0.2, -5.0):  # a clock that is set back keeps nothing
        at += timedelta(seconds=step)
        status.note_answer("quote_service", [])
        assert datetime.fromisoformat(json.loads(status.encoded())["services"]["quote_service"]["known_at"]) == at


def merged(known: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """What a client makes of a change."""
    for section in ("services", "shards", "coins"):
        entries = known[section] | change.get(section, {})
        known[section] = {name: entry for name, entry in entries.items() if entry is not None}
    return known | {name: change[name] for name in change if name not in ("services", "shards", "coins")}


def test_the_topic_sends_the_whole_and_then_changes_from_which_a_client_makes_the_whole() -> None:
    async def scenario(rig: StreamRig) -> None:
        pushing = asyncio.create_task(rig.topic.run())
        client = rig.client()
        client.send({"op": "subscribe", "topics": ["status"], "id": "s"})
        begun, whole = client.read()
        assert begun == {"type": "subscribed", "id": "s", "mode": "every", "coins": {}, "topics": ["status"]}
        msgspec.convert({name: value for name, value in whole.items() if name != "type"}, StatusJson)
        known = whole
        for step in range(1, 6):
            rig.status.note_coins(
                {f"coin-{step}": BITCOIN}, {f"coin-{step}": Progress(f"5-{step}", None, step, f"shard{step % 2 + 1}")}
            )
            rig.status.note_no_answer("quote_service", f"away {step}")
            await asyncio.sleep(1)
            for frame in client.read():
                known = merged(known, frame)
        now = json.loads(msgspec.json.encode(rig.status.whole()))
        assert {name: known[name] for name in now} == now
        assert rig.wanted > 5
        await asyncio.sleep(3 * QUIET_S)
        assert [frame.keys() for frame in client.read()] == [{"type", "generated_at"}] * 3
        client.send({"op": "unsubscribe", "topics": ["status"]})
        assert client.read() == [{"type": "unsubscribed", "id": None, "coins": [], "topics": ["status"]}]
        rig.status.note_answer("quote_service", [])
        await asyncio.sleep(2 * QUIET_S)
        assert client.read() == []
        pushing.cancel()

    run(scenario)


def test_a_client_that_does_not_read_gets_the_whole_anew_when_it_reads_again() -> None:
    async def scenario(rig: StreamRig) -> None:
        pushing = asyncio.create_task(rig.topic.run())
        client = rig.client(room=1_000)
        client.answers_pings = False
        client.send({"op": "subscribe", "topics": ["status"]})
        for step in range(20):
            rig.status.note_no_answer("quote_service", f"away {step} {'x' * 9_000}")
            await asyncio.sleep(0.6)
        frames = [frame for frame in client.read() if frame["type"] == "status"]
        assert len(frames) < 10
        await asyncio.sleep(1)
        frames += client.read()
        known = frames[-1]
        assert known.keys() >= {"services", "shards", "limits"}
        assert known["services"]["quote_service"]["reason"].startswith("away 19")
        pushing.cancel()

    run(scenario)


def test_a_connection_that_has_ended_leaves_the_topic() -> None:
    async def scenario(rig: StreamRig) -> None:
        client = rig.client()
        client.send({"op": "subscribe", "topics": ["status"]})
        client.cut()
        await settle()
        assert not rig.topic._members

    run(scenario)


def test_topics_that_do_not_exist_and_no_coin_and_no_topic_are_refused() -> None:
    async def scenario(rig: StreamRig) -> None:
        client = rig.client()
        for op in ("subscribe", "unsubscribe"):
            client.send({"op": op, "topics": ["weather"]})
            (error,) = client.read()
            assert error["problem"]["detail"] == "topics: weather is no topic: the only one is status"
        client.send({"op": "subscribe"})
        assert client.read()[0]["problem"]["detail"] == "coins: give at least one coin, or topics"
        client.subscribe("bitcoin")
        client.send({"op": "unsubscribe", "coins": ["bitcoin"], "topics": ["weather"]})
        client.read()
        client.send({"op": "unsubscribe", "coins": ["bitcoin"]})
        assert client.read()[-1]["coins"] == ["bitcoin"], "nothing of a message with an error is done"

    run(scenario)


def test_a_heartbeat_follows_each_subscription_at_once_with_all_coins_of_the_connection() -> None:
    async def scenario(rig: StreamRig) -> None:
        await rig.publish("bitcoin", 3)
        await rig.publish("ethereum", 2)
        await settle()
        client = rig.client()
        client.subscribe("bitcoin")
        client.read()
        await rig.publish("bitcoin", 1)
        await settle()
        client.read()
        client.subscribe("ethereum")
        client.read()
        assert [beat["coins"] for beat in client.first_beats] == [
            {"bitcoin": "5-2"},
            {"bitcoin": "5-4", "ethereum": "5-1"},
        ]

    run(scenario, "bitcoin", "ethereum")


async def ask(
    method: str,
    path: str,
    twin: SystemTwin,
    *,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    **settings: Any,
) -> httpx2.Response:
    async with twin.client() as client, MemoryBus() as bus:
        service = app.wire(config.load({}, admin_token=TOKEN, **settings), client, bus)
        transport = httpx2.ASGITransport(service.app)
        async with service.resources(), httpx2.AsyncClient(transport=transport, base_url="http://gateway") as gateway:
            return await gateway.request(method, path, content=body, headers=headers or {})


async def test_the_status_and_the_coins_are_routes() -> None:
    twin = SystemTwin()
    status = (await ask("GET", "/v1/status", twin)).json()
    msgspec.convert(status, StatusJson)
    assert status["source"] == "sim"
    assert status["limits"] == {"fresh_ms": 5_000, "age_max_ms": 300_000, "stream_coins_max": 100}
    assert status["services"].keys() == {
        "external_service",
        "quote_service",
        "aggregator_service",
        "gateway_service",
        "redis",
    }
    coins = (await ask("GET", "/v1/coins", twin)).json()["coins"]
    assert coins["bitcoin"] == {"symbol": "BTC", "title": "Bitcoin", "currency": None, "decimals": 0, "first": None}


def test_decimals_are_the_most_that_were_seen() -> None:
    async def scenario() -> None:
        rig, twin = StreamRig("bitcoin"), SystemTwin()
        status = new_status()
        async with twin.client() as client:
            loop = asyncio.get_running_loop()
            polls = StatusPolls(
                status,
                client,
                rig.hub,
                services=["gateway_service", "quote_service"],
                own_breakers=list,
                ping_redis=twin.ping,
                report_s=1.0,
                clock=loop.time,
                now=lambda: NOON,
            )
            running = asyncio.create_task(polls.run(Restarts(Metrics())))
            for seq, price in enumerate(("67012.345", "67013", "67013.5"), start=1):
                quote = Quote("bitcoin", "USD", Decimal(price), 5, seq, NOON, NOON, "sim")
                await rig.hub.apply([QuoteReceived(quote)])
                polls.want()
                await asyncio.sleep(4)
            assert status.coins["bitcoin"].decimals == 3
            assert status.coins["bitcoin"].currency == "USD"
            running.cancel()

    fake_event_loop.run(scenario())


@pytest.mark.parametrize("is_away", [False, True], ids=["quote_service there", "away"])
async def test_the_first_status_after_a_start_has_coins(is_away: bool) -> None:
    twin = SystemTwin()
    twin.progress["dogecoin"] = {"position": None, "through": None, "pending": 0, "shard": "shard2"}
    if is_away:
        twin.away.add("quote_service")
    async with twin.client() as client, MemoryBus() as bus:
        service = app.wire(config.load({}), client, bus)
        async with service.resources():
            transport = httpx2.ASGITransport(service.app)
            async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as gateway:
                coins = (await gateway.get("/v1/status")).json()["coins"]
    assert coins.keys() == ({"bitcoin", "ethereum"} if is_away else {"bitcoin", "dogecoin"})


@pytest.mark.parametrize(
    ("path", "service", "inner"),
    [
        ("/v1/faults", "external_service", "/faults"),
        ("/v1/venues/kraken/faults", "external_service", "/venues/kraken/faults"),
        ("/v1/breakers/quote_service/source.quote", "quote_service", "/v1/breakers/source.quote"),
    ],
)
async def test_settings_are_passed_on_with_the_token_as_given(path: str, service: str, inner: str) -> None:
    twin = SystemTwin()
    headers = {"authorization": f"Bearer {TOKEN}"}
    answer = await ask("PUT", path, twin, body=b'{"error_rate":1}', headers=headers)
    assert answer.json() == {"done": inner}
    assert twin.puts == [(service, inner, b'{"error_rate":1}', f"Bearer {TOKEN}")]


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}], ids=["none", "wrong"])
@pytest.mark.parametrize("path", ["/v1/faults", "/v1/venues/kraken/faults", "/v1/breakers/quote_service/x"])
async def test_nothing_is_passed_on_without_the_token(path: str, headers: dict[str, str]) -> None:
    twin = SystemTwin()
    assert (await ask("PUT", path, twin, headers=headers)).status_code == 401
    assert twin.puts == []


async def test_a_breaker_of_no_service_is_not_found() -> None:
    headers = {"authorization": f"Bearer {TOKEN}"}
    answer = await ask("PUT", "/v1/breakers/elsewhere/x", SystemTwin(), headers=headers)
    assert answer.status_code == 404
    assert "quote_service" in answer.json()["detail"]


LISTED = "https://app.example"


@pytest.mark.parametrize("path", ["/v1/status", "/v1/quotes/bitcoin", "/v1/stream", "/v1/nowhere"])
async def test_a_listed_origin_may_read_and_may_ask_before(path: str) -> None:
    answer = await ask("GET", path, SystemTwin(), headers={"origin": LISTED}, allowed_origins=LISTED)
    assert (answer.headers["access-control-allow-origin"], answer.headers["vary"]) == (LISTED, "origin")
    preflight = {
        "origin": LISTED,
        "access-control-request-method": "GET",
        "access-control-request-headers": "last-event-id",
    }
    answer = await ask("OPTIONS", path, SystemTwin(), headers=preflight, allowed_origins=LISTED)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-methods"] == "GET"
    assert "last-event-id" in answer.headers["access-control-allow-headers"]


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
async def test_no_other_origin_may_read(method: str) -> None:
    headers = {"origin": "https://evil.example", "access-control-request-method": "GET"}
    answer = await ask(method, "/v1/status", SystemTwin(), headers=headers, allowed_origins=LISTED)
    assert not any(name.startswith("access-control") for name in answer.headers)


async def test_a_request_for_the_websocket_that_opens_none_says_what_a_proxy_has_to_do() -> None:
    answer = await ask("GET", "/v1/ws", SystemTwin())
    assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")
    assert "Upgrade and Connection" in answer.json()["detail"]
