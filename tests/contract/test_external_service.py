"""external_service over real sockets: good answers, and each fault as a client meets it."""

import asyncio
import contextlib
import gzip
import io
import json
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.harness_http_server import connect, read_to_end, serving

from cotacoes import config
from cotacoes.adapters.http_client import HttpClient, Response
from cotacoes.errors import SettingError, SourceGoneError, SourceMalformedError, SourceUnavailableError
from cotacoes.external_service import answers, app
from cotacoes.external_service.faults import FaultKind
from cotacoes.quote_service.source import HttpSource
from cotacoes.quote_service.source_pages import TapePage
from cotacoes.quote_service.source_quote import Fetched

TOKEN = "sesame"
COINS = {"bitcoin", "ethereum", "solana"}
DEADLINE_S = 0.4


@dataclass
class Running:
    port: int
    client: HttpClient
    stop: asyncio.Event

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def set_faults(self, *, token: str = TOKEN, **setting: Any) -> Response:
        body = json.dumps(setting).encode()
        return await self.client.put(f"{self.url}/faults", body, {"authorization": f"Bearer {token}"}, deadline_s=5.0)

    async def fetch(self) -> Fetched:
        return await HttpSource(self.client, self.url, COINS).fetch()


@contextlib.asynccontextmanager
async def running(**given: Any) -> AsyncIterator[Running]:
    with tempfile.TemporaryDirectory() as data:
        settings = config.load({}, **{"admin_token": TOKEN, "failure_rate": 0.0, "data": data} | given)
        stop = asyncio.Event()
        service = app.build(settings, stop)
        async with service.resources(), serving(service.app, stop) as port, HttpClient(DEADLINE_S, 65_536) as client:
            yield Running(port, client, stop)


def with_service(work: Any, **given: Any) -> None:
    async def run() -> None:
        async with running(**given) as rig:
            await work(rig)

    asyncio.run(run())


def test_a_quote_has_the_shape_of_the_contract_and_moves_with_the_ticks() -> None:
    async def work(rig: Running) -> None:
        answer = await rig.client.get(f"{rig.url}/quote")
        body = json.loads(answer.body)
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/json"
        assert set(body) == {"bitcoin", "ethereum", "observed_at", "observed", "currency", "origin"}
        assert body["observed_at"] == min(body["observed"].values())
        assert body["origin"] == "sim"
        first = await rig.fetch()
        assert not first.unreadable
        async with asyncio.timeout(5):
            later = first
            while later.observations == first.observations:
                later = await rig.fetch()

    with_service(work, tick_ms=20)


def test_by_default_about_a_fifth_of_the_requests_fail_at_once() -> None:
    async def work(rig: Running) -> None:
        answers = [await rig.client.get(f"{rig.url}/quote") for _ in range(300)]
        failed = [answer for answer in answers if answer.status != 200]
        assert {answer.status for answer in failed} == {500, 503}
        assert 0.1 < len(failed) / len(answers) < 0.3
        assert {answer.headers["content-type"] for answer in failed} == {"application/problem+json"}
        shown = json.loads((await rig.client.get(f"{rig.url}/faults")).body)
        assert (shown["error_rate"], shown["status"], shown["kinds"], shown["for_s"]) == (0.2, [500, 503], {}, None)

    with_service(work, failure_rate=config.Settings().failure_rate)


def test_the_bomb_is_small_and_a_valid_gzip_of_its_full_size() -> None:
    bomb = answers.gzip_bomb()
    assert len(bomb) < 250_000
    unpacked = 0
    with gzip.open(io.BytesIO(bomb)) as file:  # checks the checksum and the length at the end
        while chunk := file.read(1_000_000):
            unpacked += len(chunk)
    assert unpacked == answers.BOMB_BYTES


UNAVAILABLE = [FaultKind.HANG, FaultKind.CUT_BODY, FaultKind.DRIP_BODY, FaultKind.TOO_MANY_REQUESTS]
MALFORMED = [FaultKind.HUGE_BODY, FaultKind.GZIP_BOMB, FaultKind.GARBAGE, FaultKind.HTML_200, FaultKind.REDIRECT]


@pytest.mark.parametrize("kind", [*UNAVAILABLE, *MALFORMED])
def test_a_fault_of_the_answer_meets_the_client_as_what_it_is_and_the_next_answer_is_whole(kind: FaultKind) -> None:
    async def work(rig: Running) -> None:
        await rig.set_faults(kinds={kind: 1.0})
        with pytest.raises(SourceUnavailableError if kind in UNAVAILABLE else SourceMalformedError):
            await HttpSource(rig.client, rig.url, COINS).fetch()
        await rig.set_faults()
        assert len((await rig.fetch()).observations) == 2

    with_service(work)


@pytest.mark.parametrize(
    ("kind", "reason"), [(FaultKind.NAN, "not_finite"), (FaultKind.ZERO, "zero"), (FaultKind.NEGATIVE, "negative")]
)
def test_a_price_fault_alters_the_named_coins(kind: FaultKind, reason: str) -> None:
    async def work(rig: Running) -> None:
        await rig.set_faults(kinds={kind: 1.0}, coins=["ethereum"])
        fetched = await rig.fetch()
        assert [observation.coin for observation in fetched.observations] == ["bitcoin"]
        assert fetched.unreadable == [("ethereum", reason)]

    with_service(work)


def test_a_frozen_price_repeats_price_and_time_while_the_market_moves_on() -> None:
    async def work(rig: Running) -> None:
        await rig.set_faults(kinds={"frozen_price": 1.0}, coins=["bitcoin"])
        first = {quote.coin: quote for quote in (await rig.fetch()).observations}
        async with asyncio.timeout(5):
            while True:
                later = {quote.coin: quote for quote in (await rig.fetch()).observations}
                assert later["bitcoin"] == first["bitcoin"]
                if later["ethereum"] != first["ethereum"]:
                    break

    with_service(work, tick_ms=20)


def test_only_429_and_503_have_retry_after() -> None:
    async def work(rig: Running) -> None:
        for status, wait in ((503, "9"), (500, None)):
            await rig.set_faults(error_rate=1, status=[status], retry_after_s=9)
            answer = await rig.client.get(f"{rig.url}/quote")
            assert (answer.status, answer.headers.get("retry-after")) == (status, wait)
        await rig.set_faults(kinds={"too_many_requests": 1.0}, retry_after_s=9)
        answer = await rig.client.get(f"{rig.url}/quote")
        assert (answer.status, answer.headers["retry-after"]) == (429, "9")

    with_service(work)


def test_only_administrators_set_faults_and_unknown_fields_are_refused() -> None:
    async def work(rig: Running) -> None:
        assert (await rig.set_faults(token="wrong", error_rate=1)).status == 401
        assert (await rig.set_faults(token="wrong", nonsense=1)).status == 401
        for setting, named in (
            ({"nonsense": 1}, "nonsense"),
            ({"kinds": {"explode": 1}}, "explode"),
            ({"error_rate": 1.5}, "error_rate"),
            ({"coins": ["dogecoin"]}, "dogecoin"),
        ):
            refused = await rig.set_faults(**setting)
            assert refused.status == 422
            assert refused.headers["content-type"] == "application/problem+json"
            assert named in json.loads(refused.body)["detail"]
        assert json.loads((await rig.client.get(f"{rig.url}/faults")).body)["error_rate"] == 0.0
        accepted = await rig.set_faults(error_rate=1, for_s=3600)
        assert accepted.status == 200
        assert 0 < json.loads(accepted.body)["for_s"] <= 3600

    with_service(work)


def test_no_fault_touches_the_routes_of_operators() -> None:
    async def work(rig: Running) -> None:
        await rig.set_faults(error_rate=1)
        for route in ("/livez", "/readyz", "/metrics", "/faults", "/openapi.json"):
            assert (await rig.client.get(f"{rig.url}{route}", deadline_s=5.0)).status == 200
        await rig.client.get(f"{rig.url}/quote")
        metrics = (await rig.client.get(f"{rig.url}/metrics")).body.decode()
        assert 'cotacoes_source_requests_total{fault="error"} 1.0' in metrics

    with_service(work)


@pytest.mark.parametrize("kind", [FaultKind.HANG, FaultKind.DRIP_BODY])
def test_an_answer_that_holds_the_connection_ends_with_a_cut(kind: FaultKind) -> None:
    async def work(rig: Running) -> None:
        await rig.set_faults(kinds={kind: 1.0})
        reader, writer = await connect(rig.port)
        writer.write(b"GET /quote HTTP/1.1\r\nhost: x\r\n\r\n")
        async with asyncio.timeout(5):
            received = await read_to_end(reader)
        writer.transport.abort()
        assert b"504" not in received
        assert not received.endswith(b"}")

    with_service(work, request_deadline_s=0.5)


@pytest.mark.parametrize("kind", [FaultKind.HANG, FaultKind.DRIP_BODY, FaultKind.HUGE_BODY])
def test_held_answers_do_not_delay_a_stop(kind: FaultKind, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> float:
        async with running(request_deadline_s=60) as rig:
            await rig.set_faults(kinds={kind: 1.0})
            reader, writer = await connect(rig.port)
            writer.write(b"GET /quote HTTP/1.1\r\nhost: x\r\n\r\n")
            if kind is not FaultKind.HANG:
                await reader.readline()
            else:
                await rig.client.get(f"{rig.url}/livez")
            started = time.monotonic()
            rig.stop.set()
            async with asyncio.timeout(10):
                await read_to_end(reader)
            writer.transport.abort()
        return time.monotonic() - started

    assert asyncio.run(run()) < 2.5
    assert not caplog.records


def test_a_recording_is_served_under_its_own_name_and_currency(tmp_path: Path) -> None:
    path = tmp_path / "some market.txt"
    frame = (
        b'{"stream":"btcusdt@bookTicker","data":{"u":1,"s":"BTCUSDT","b":"61837.63","B":"1","a":"61837.64","A":"1"}}'
    )
    path.write_bytes(b"1723161254087891268 " + frame + b"\n")

    async def work(rig: Running) -> None:
        async with asyncio.timeout(5):
            fetched = await rig.fetch()
            while not fetched.observations:
                fetched = await rig.fetch()
        [quote] = fetched.observations
        assert (quote.coin, str(quote.price), quote.currency) == ("bitcoin", "61837.635", "USDT")
        assert quote.origin == "replay:some_market"

    with_service(work, source=f"replay:{path}")


@pytest.mark.parametrize("given", [{"source": "replay:/nowhere/at/all.gz"}, {"coins": "origin:shard1"}])
def test_an_unusable_setting_is_refused_before_anything_starts(given: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="COTACOES_"):
        app.build(config.load({}, **given), asyncio.Event())


RECORDED = Path(__file__).parents[2] / "docs" / "recordings" / "simulated_market.ndjson.gz"


async def take(rig: Running, cursor: str | None = None, limit: int = 1000, wait_s: float = 0.0) -> TapePage:
    async with HttpClient(5.0, 4_000_000) as client:
        return await HttpSource(client, rig.url, COINS).after(cursor, limit, wait_s)


def test_the_tape_gives_every_price_of_the_simulated_market_in_order_and_waits_for_the_next() -> None:
    async def work(rig: Running) -> None:
        first = await take(rig, limit=1)
        assert (first.first, first.count) == (1, 1)
        taken = [first]
        while sum(page.count for page in taken) < 20:
            taken.append(await take(rig, taken[-1].next, wait_s=2.0))
            assert taken[-1].count, "a page that waits for what comes is not empty"
        entries = [entry for page in taken for entry in page.entries]
        assert [index for index, _ in entries] == list(range(1, len(entries) + 1))
        assert {observed.coin for _, observed in entries} == {"bitcoin", "ethereum"}
        times = [observed.observed_at for _, observed in entries]
        assert times == sorted(times)
        again = await take(rig, limit=len(entries))
        assert again.entries == entries

    with_service(work, tick_ms=50)


def test_a_restart_resumes_the_tape_and_another_market_does_not_know_its_cursor(tmp_path: Path) -> None:
    pages: list[TapePage] = []

    async def first(rig: Running) -> None:
        pages.append(await take(rig, limit=5))

    async def again(rig: Running) -> None:
        pages.append(await take(rig, limit=5))
        assert (await take(rig, pages[0].next, limit=1)).first == 6

    async def other(rig: Running) -> None:
        with pytest.raises(SourceGoneError) as gone:
            await take(rig, pages[0].next)
        begun = await take(rig, gone.value.cursor, limit=1)
        assert (begun.first, begun.run != pages[0].run) == (1, True)

    source = f"replay:{RECORDED}"
    how = {"source": source, "data": str(tmp_path), "speed": "max", "source_mode": "tape"}
    with_service(first, **how)
    with_service(again, **how)
    assert pages[0].entries[0][1].price == pages[1].entries[0][1].price
    assert pages[0].run == pages[1].run
    with_service(other, **how, loop=True)


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("after=nonsense", 422),
        ("after=0123456789ab.1-1", 410),
        ("limit=0", 422),
        ("limit=1000000", 422),
        ("wait_ms=999999", 422),
    ],
)
def test_an_invalid_request_to_the_tape_is_refused(query: str, status: int) -> None:
    async def work(rig: Running) -> None:
        answer = await rig.client.get(f"{rig.url}/quotes?{query}")
        assert answer.status == status
        if status == 410:
            payload = json.loads(answer.body)
            assert (payload["first"], payload["next"].endswith("-0")) == (1, True)

    with_service(work)


def test_the_faults_of_answers_hit_the_tape_and_those_of_prices_do_not() -> None:
    async def work(rig: Running) -> None:
        await rig.set_faults(error_rate=1.0)
        with pytest.raises(SourceUnavailableError):
            await take(rig)
        await rig.set_faults(kinds={"garbage": 1.0})
        with pytest.raises(SourceMalformedError):
            await take(rig)
        await rig.set_faults(kinds={"nan": 1.0})
        page = await take(rig, limit=10)
        assert (page.count, page.unreadable) == (len(page.entries), [])

    with_service(work)


def test_an_ended_replay_starts_again_for_a_poll_and_not_for_a_tape(tmp_path: Path) -> None:
    runs = []

    async def work(rig: Running) -> None:
        runs.append((await take(rig, limit=1)).run)

    for mode in ("latest", "tape"):
        for _ in range(2):
            data = str(tmp_path / mode)
            with_service(work, source=f"replay:{RECORDED}", data=data, speed=1000.0, source_mode=mode)
            time.sleep(0.2)  # 90 s of recording at a thousand times the pace
    assert runs[0] != runs[1]
    assert runs[2] == runs[3]


def test_an_administrator_adds_a_coin_to_the_simulated_market_and_it_is_remembered(
    tmp_path: Path,
) -> None:
    async def add(rig: Running, coin: str, token: str = TOKEN) -> Response:
        return await rig.client.put(
            f"{rig.url}/coins/{coin}", b"", {"authorization": f"Bearer {token}"}, deadline_s=5.0
        )

    async def work(rig: Running) -> None:
        before = (await HttpSource(rig.client, rig.url, COINS).after(None, 1, 0.0)).run
        assert (await add(rig, "solana", token="wrong")).status == 401
        assert (await add(rig, "Sol ana")).status == 422
        assert (await add(rig, "origin")).status == 422
        assert [seen.coin for seen in (await rig.fetch()).observations] == ["bitcoin", "ethereum"]
        for _ in range(2):
            assert json.loads((await add(rig, "solana")).body) == {
                "coins": ["bitcoin", "ethereum", "solana"],
                "open": True,
            }
        assert [seen.coin for seen in (await rig.fetch()).observations] == ["bitcoin", "ethereum", "solana"]
        page = await HttpSource(rig.client, rig.url, COINS).after(None, 3, 0.0)
        assert page.run != before
        assert {seen.coin for _, seen in page.entries} == {"bitcoin", "ethereum", "solana"}

    async def again(rig: Running) -> None:
        assert [seen.coin for seen in (await rig.fetch()).observations] == ["bitcoin", "ethereum", "solana"]

    with_service(work, data=tmp_path)
    with_service(again, data=tmp_path)
