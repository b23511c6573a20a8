"""The simulated venues over real sockets: each fault as a client meets it, and clients that mean no good."""

import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import websockets
from tests.harness_http_server import connect, exchange, read_to_end, serving
from tests.harness_recordings import MADE_MARKET
from tests.harness_simulated_venues import BITCOIN, NAMES, UNKNOWN, WITH_SNAPSHOT, sides, subscription
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from cotacoes import config
from cotacoes.adapters.http_client import HttpClient, Response
from cotacoes.adapters.http_server.accepting import Ended
from cotacoes.adapters.http_server.connection import Receive, Scope, Send
from cotacoes.adapters.http_server.context import Context
from cotacoes.adapters.http_server.server import GRACE_S
from cotacoes.adapters.websocket_server import ServerConnection, Unanswered
from cotacoes.external_service import app
from cotacoes.external_service.venues.exchange import CONNECTIONS_MAX
from cotacoes.external_service.venues.stream import LIMITS

TOKEN = "sesame"
each_venue = pytest.mark.parametrize("venue", NAMES)


@dataclass
class Running:
    port: int
    client: HttpClient

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def put(self, path: str, *, token: str = TOKEN, **setting: Any) -> Response:
        body = json.dumps(setting).encode()
        return await self.client.put(f"{self.url}{path}", body, {"authorization": f"Bearer {token}"}, deadline_s=10.0)

    async def get(self, path: str) -> Any:
        return json.loads((await self.client.get(f"{self.url}{path}")).body)

    async def set_faults(self, venue: str, **faults: Any) -> None:
        answer = await self.put(f"/venues/{venue}/faults", **faults)
        assert answer.status == 200, answer.body

    @contextlib.asynccontextmanager
    async def connected(self, venue: str, *symbols: str, **given: Any) -> AsyncIterator[ClientConnection]:
        """A client that has asked for the books of these symbols."""
        address = f"ws://127.0.0.1:{self.port}/venues/{venue}/stream"
        async with websockets.connect(address, **{"ping_interval": None, "close_timeout": 0.1, **given}) as client:
            for symbol in symbols:
                await client.send(json.dumps(subscription(venue, symbol)))
            yield client


Book = tuple[str | None, str | None]


async def next_book(venue: str, client: ClientConnection, within_s: float = 15.0) -> Book:
    """The next frame that has a book; TimeoutError if none comes."""
    async with asyncio.timeout(within_s):
        while True:
            if (book := sides(venue, await client.recv())) is not None:
                return book


async def books_within(venue: str, client: ClientConnection, seconds: float) -> list[Book]:
    """The books that come within so many seconds."""
    found: list[Book] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                found.append(await next_book(venue, client))
    return found


def with_venues(work: Callable[[Running], Awaitable[None]], **given: Any) -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory() as data:
            settings = config.load({}, **{"admin_token": TOKEN, "failure_rate": 0.0, "data": data} | given)
            stop = asyncio.Event()
            service = app.build(settings, stop)
            async with (
                service.resources(),
                serving(service.app, stop, service.websocket) as port,
                HttpClient(10.0, 262_144) as client,
            ):
                await work(Running(port, client))

    asyncio.run(run())


@each_venue
def test_a_client_of_each_venue_gets_books_that_move_around_one_market(venue: str) -> None:
    async def work(rig: Running) -> None:
        market = Decimal((await rig.get("/quote"))["bitcoin"])
        async with rig.connected(venue, BITCOIN[venue]) as client:
            books = [await next_book(venue, client) for _ in range(6)]
        bids = [Decimal(bid) for bid, _ in books if bid is not None]
        assert bids
        assert all(abs(bid / market - 1) < Decimal("0.01") for bid in bids)

    with_venues(work)


def test_the_venues_are_listed_with_their_connections_and_their_faults() -> None:
    async def work(rig: Running) -> None:
        async with rig.connected("kraken", "BTC/USD", "ETH/USD") as client:
            await next_book("kraken", client)
            await rig.set_faults("okx", stall=True, lie="0.10", coins=["bitcoin"])
            shown = await rig.get("/venues")
        assert list(shown["venues"]) == NAMES
        kraken = shown["venues"]["kraken"]
        assert (kraken["stream"], kraken["connections"]) == ("/venues/kraken/stream", 1)
        assert kraken["subscriptions"] == 2
        assert kraken["pairs"] > 100
        okx = shown["venues"]["okx"]["faults"]
        assert (okx["stall"], okx["lie"], okx["coins"], okx["for_s"]) == (True, "0.10", ["bitcoin"], None)
        assert shown["market"] == {"for_s": None, "shock": "1", "peg": {}, "pace": 1.0}
        assert (await rig.get("/venues/okx/faults")) == okx

    with_venues(work)


def test_only_administrators_set_faults_and_what_is_wrong_is_named() -> None:
    async def work(rig: Running) -> None:
        for path in ("/venues/kraken/faults", "/venues/market"):
            assert (await rig.put(path, token="wrong")).status == 401
            refused = await rig.put(path, explode=1)
            assert refused.status == 422
            assert b"explode" in refused.body
        nowhere = await rig.put("/venues/nasdaq/faults", stall=True)
        assert nowhere.status == 404
        assert b"binance, coinbase, kraken" in nowhere.body

    with_venues(work)


def test_a_replay_has_no_venues() -> None:
    async def work(rig: Running) -> None:
        assert (await rig.get("/venues"))["venues"] == {}
        assert (await rig.put("/venues/market", shock="0.7")).status == 404
        with pytest.raises(InvalidStatus, match="404"):
            async with rig.connected("kraken"):
                pass

    with_venues(work, source=MADE_MARKET.source)


def test_a_coin_that_is_added_is_sold_at_the_venues_as_well() -> None:
    async def work(rig: Running) -> None:
        async with rig.connected("kraken", "MYCOIN/USD") as client:
            assert b"not supported" in (await _received(client, 2))[-1]
            assert (await rig.put("/coins/my-coin")).status == 200
            await client.send(json.dumps(subscription("kraken", "MYCOIN/USD")))
            assert await next_book("kraken", client)

    with_venues(work)


async def _received(client: ClientConnection, count: int) -> list[bytes]:
    async with asyncio.timeout(5):
        return [await client.recv(decode=False) for _ in range(count)]


@each_venue
def test_an_unknown_symbol_brings_no_book_and_leaves_the_connection_open(venue: str) -> None:
    async def work(rig: Running) -> None:
        async with rig.connected(venue, UNKNOWN[venue]) as client:
            assert await books_within(venue, client, 0.5) == []
            await client.send(json.dumps(subscription(venue, BITCOIN[venue])))
            assert await next_book(venue, client)

    with_venues(work)


# Faults


@each_venue
def test_a_stalled_venue_answers_pings_and_gives_a_snapshot_but_no_further_book(venue: str) -> None:
    async def work(rig: Running) -> None:
        async with rig.connected(venue, BITCOIN[venue]) as client:
            await next_book(venue, client)
            await rig.set_faults(venue, stall=True)
            await books_within(venue, client, 0.05)
            assert await books_within(venue, client, 1.0) == []
            async with asyncio.timeout(1):
                await (await client.ping())
        async with rig.connected(venue, BITCOIN[venue]) as client:
            assert len(await books_within(venue, client, 0.7)) == (1 if venue in WITH_SNAPSHOT else 0)

    with_venues(work)


def test_a_dead_venue_answers_neither_a_ping_nor_a_handshake_until_it_is_back() -> None:
    async def work(rig: Running) -> None:
        async with rig.connected("kraken", "BTC/USD") as client:
            await next_book("kraken", client)
            await rig.set_faults("kraken", dead=True)
            await books_within("kraken", client, 0.1)
            pong = asyncio.ensure_future(await client.ping())
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.2):
                    await client.recv()
            assert not pong.done()
            with pytest.raises(TimeoutError):
                async with rig.connected("kraken", open_timeout=0.5):
                    pass
            async with rig.connected("okx", "BTC-USDT") as other:
                assert await next_book("okx", other)
            await rig.set_faults("kraken")
            assert await next_book("kraken", client)
            async with asyncio.timeout(1):
                await (await client.ping())

    with_venues(work)


def test_a_dead_venue_does_not_close_a_connection_in_good_manners() -> None:
    async def work(rig: Running) -> None:
        async with rig.connected("okx", "BTC-USDT", close_timeout=0.3) as client:
            await next_book("okx", client)
            await rig.set_faults("okx", dead=True)
            started = time.monotonic()
            await client.close()
            assert time.monotonic() - started > 0.25
            assert client.close_code == 1006
        await _until(lambda: _connections(rig, "okx"), 0)

    with_venues(work)


async def _connections(rig: Running, venue: str) -> Any:
    return (await rig.get("/venues"))["venues"][venue]["connections"]


async def _until(ask: Callable[[], Awaitable[Any]], expected: Any) -> None:
    async with asyncio.timeout(5):
        while await ask() != expected:
            await asyncio.sleep(0.02)


def test_a_handshake_that_a_dead_venue_holds_ends_with_its_client() -> None:
    async def work(rig: Running) -> None:
        await rig.set_faults("kraken", dead=True)
        reader, writer = await connect(rig.port)
        writer.write(HANDSHAKE.replace(b"VENUE", b"kraken"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await reader.read(1)
        writer.write(b"x" * 100_000)  # it is read and dropped
        await writer.drain()
        writer.write_eof()
        async with asyncio.timeout(2):
            assert await reader.read(1) == b""
        writer.transport.abort()

    with_venues(work)


def test_a_handshake_without_an_answer_is_cut_after_its_time() -> None:
    def protocol(context: Context, ended: Ended) -> ServerConnection:
        return ServerConnection(context, ended, admit=lambda _: Unanswered(0.3), limits=LIMITS)

    async def run() -> None:
        async with serving(_nothing, websocket=protocol) as port:
            reader, writer = await connect(port)
            started = time.monotonic()
            writer.write(HANDSHAKE)
            async with asyncio.timeout(5):
                assert await read_to_end(reader) == b""
            assert time.monotonic() - started >= 0.3
            writer.transport.abort()

    asyncio.run(run())


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """An app for a server whose connections all become WebSockets."""


HANDSHAKE = (
    b"GET /venues/VENUE/stream HTTP/1.1\r\nhost: 127.0.0.1\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
)


@pytest.mark.parametrize("status", [403, 418, 429, 451, 503])
def test_a_refused_handshake_has_its_status_and_when_to_try_again(status: int) -> None:
    async def work(rig: Running) -> None:
        await rig.set_faults("bybit", refuse=status, retry_after_s=7)
        with pytest.raises(InvalidStatus) as caught:
            async with rig.connected("bybit"):
                pass
        assert caught.value.response.status_code == status
        assert caught.value.response.headers["retry-after"] == "7"
        await rig.set_faults("bybit")
        async with rig.connected("bybit", "BTCUSDT") as client:
            assert await next_book("bybit", client)

    with_venues(work)


def test_a_connection_is_accepted_and_dropped_or_cut_at_its_age_without_a_close_frame() -> None:
    async def work(rig: Running) -> None:
        await rig.set_faults("coinbase", accept_then_drop=True)
        async with rig.connected("coinbase") as client:
            with pytest.raises(ConnectionClosed):
                async with asyncio.timeout(2):
                    await client.recv()
            assert client.close_code == 1006
        await rig.set_faults("coinbase", cut_after_s=0.5)
        started = time.monotonic()
        async with rig.connected("coinbase", "BTC-USD") as client:
            with pytest.raises(ConnectionClosed):
                async with asyncio.timeout(5):
                    while True:
                        await client.recv()
            assert time.monotonic() - started >= 0.5
            assert client.close_code == 1006

    with_venues(work)


def test_maintenance_is_announced_and_closes_old_and_new_connections() -> None:
    async def work(rig: Running) -> None:
        async with rig.connected("kraken", "BTC/USD") as client:
            await next_book("kraken", client)
            await rig.set_faults("kraken", maintenance=True)
            last = await _last_frame(client)
            assert json.loads(last)["data"][0]["system"] == "maintenance"
            assert (client.close_code, client.close_reason) == (1012, "maintenance")
        async with rig.connected("kraken") as client:
            assert json.loads(await _last_frame(client))["data"][0]["system"] == "maintenance"

    with_venues(work)


async def _last_frame(client: ClientConnection) -> bytes:
    last = b""
    with contextlib.suppress(ConnectionClosed):
        async with asyncio.timeout(3):
            while True:
                last = await client.recv(decode=False)
    return last


@pytest.mark.parametrize("venue", ["binance", "kraken", "bitstamp"])
def test_a_lie_a_freeze_and_half_a_book_reach_the_client_and_end_by_themselves(venue: str) -> None:
    async def work(rig: Running) -> None:
        async with rig.connected(venue, BITCOIN[venue]) as client:
            honest = _bid(await next_book(venue, client))
            await rig.set_faults(venue, lie="0.10", for_s=0.6)
            await books_within(venue, client, 0.1)
            assert _bid(await next_book(venue, client)) / honest > Decimal("1.05")
            await books_within(venue, client, 0.7)
            assert _bid(await next_book(venue, client)) / honest < Decimal("1.05")
            await rig.set_faults(venue, freeze=True)
            await books_within(venue, client, 0.1)
            assert len(set(await books_within(venue, client, 1.5))) == 1
            await rig.set_faults(venue, half="ask")
            await books_within(venue, client, 0.1)
            assert {bid for bid, _ in await books_within(venue, client, 1.0)} == {None}

    with_venues(work)


def _bid(book: Book) -> Decimal:
    assert book[0] is not None
    return Decimal(book[0])


def test_garbage_and_lost_frames_leave_a_connection_open() -> None:
    async def work(rig: Running) -> None:
        await rig.put("/venues/market", pace=6)
        await rig.set_faults("coinbase", garbage=0.5, lost=0.3)
        numbers, unreadable = [], 0
        async with rig.connected("coinbase", "BTC-USD") as client:
            for frame in await _received(client, 60):
                try:
                    numbers.append(json.loads(frame)["sequence_num"])
                except (ValueError, TypeError, RecursionError, KeyError):
                    unreadable += 1
        assert unreadable > 5
        assert numbers == sorted(set(numbers))
        assert numbers[-1] - numbers[0] + 1 > len(numbers)

    with_venues(work)


def test_a_shock_and_a_lost_peg_reach_all_venues() -> None:
    async def work(rig: Running) -> None:
        market = Decimal((await rig.get("/quote"))["bitcoin"])
        await rig.put("/venues/market", shock="0.7", peg={"USDT": "0.90"})
        for venue, expected in (("binance", "0.7778"), ("kraken", "0.7"), ("bitfinex", "0.7")):
            async with rig.connected(venue, BITCOIN[venue]) as client:
                share = _bid(await next_book(venue, client)) / market
            assert abs(share - Decimal(expected)) < Decimal("0.01")
        async with rig.connected("kraken", "USDT/USD") as client:
            assert abs(_bid(await next_book("kraken", client)) - Decimal("0.9")) < Decimal("0.001")

    with_venues(work)


# Clients that mean no good


def test_a_venue_takes_so_many_connections_and_others_have_to_come_later() -> None:
    async def work(rig: Running) -> None:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(CONNECTIONS_MAX):
                await stack.enter_async_context(rig.connected("gemini"))
            with pytest.raises(InvalidStatus, match="503"):
                async with rig.connected("gemini"):
                    pass
            async with rig.connected("okx", "BTC-USDT") as client:
                assert await next_book("okx", client)
        await _until(lambda: _connections(rig, "gemini"), 0)

    with_venues(work)


def test_a_client_that_reads_nothing_costs_others_no_book() -> None:
    async def work(rig: Running) -> None:
        await rig.put("/venues/market", pace=20)
        reader, writer = await connect(rig.port)
        writer.write(HANDSHAKE.replace(b"VENUE", b"bitstamp"))
        await reader.readuntil(b"\r\n\r\n")
        for coin in ("btc", "eth"):
            writer.write(_masked(json.dumps(subscription("bitstamp", f"{coin}usd")).encode()))
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a read transport
        async with rig.connected("bitstamp", "btcusd") as client:
            async with asyncio.timeout(30):
                while b'outcome="skipped",venue="bitstamp"' not in (await rig.client.get(f"{rig.url}/metrics")).body:
                    await books_within("bitstamp", client, 0.2)
            assert len(await books_within("bitstamp", client, 0.5)) > 20
        writer.transport.abort()

    with_venues(work)


def _masked(payload: bytes) -> bytes:
    """A text frame of a client, with a mask of zeros."""
    assert len(payload) < 126
    return bytes([0x81, 0x80 | len(payload), 0, 0, 0, 0]) + payload


@each_venue
def test_strangers_are_answered_or_closed_and_the_venue_goes_on(venue: str) -> None:
    async def work(rig: Running) -> None:
        for stranger in (b"[" * 60_000, b"\x00", b'{"op":{}}', b"[]", b"null", b'{"method":"subscribe","params":7}'):
            async with rig.connected(venue) as client:
                await client.send(stranger, text=True)
                await books_within(venue, client, 0.05)
        async with rig.connected(venue, max_queue=None) as client:  # it reads although nobody takes what it reads
            with contextlib.suppress(ConnectionClosed):
                for _ in range(500):
                    await client.send("x")
            async with asyncio.timeout(5):
                while (close := client.protocol.close_rcvd) is None:
                    await asyncio.sleep(0.01)
            assert close.code == 1008
        async with rig.connected(venue, BITCOIN[venue]) as client:
            assert await next_book(venue, client)

    with_venues(work)


def test_a_plain_request_for_a_stream_and_a_stream_elsewhere_are_refused() -> None:
    async def work(rig: Running) -> None:
        answer = await exchange(rig.port, b"GET /venues/kraken/stream HTTP/1.0\r\nhost: 127.0.0.1\r\n\r\n")
        assert b" 404 " in answer
        for path in (b"/v1/ws", b"/venues/nasdaq/stream"):
            answer = await exchange(rig.port, HANDSHAKE.replace(b"/venues/VENUE/stream", path))
            assert b" 404 " in answer

    with_venues(work)


def test_open_streams_end_when_the_service_stops() -> None:
    async def run(data: Path) -> None:
        settings = config.load({}, admin_token=TOKEN, data=data)
        stop = asyncio.Event()
        service = app.build(settings, stop)
        async with (
            service.resources(),
            HttpClient(10.0, 262_144) as client,
            serving(service.app, stop, service.websocket) as port,
        ):
            rig = Running(port, client)
            async with rig.connected("okx", "BTC-USDT") as stream, rig.connected("kraken") as other:
                await next_book("okx", stream)
                stop.set()
                await _last_frame(stream)
                await _last_frame(other)
                assert (stream.close_code, other.close_code) == (1001, 1001)


def test_a_dead_venue_does_not_hold_up_the_end_of_the_service() -> None:
    async def run(data: Path) -> None:
        settings = config.load({}, admin_token=TOKEN, data=data)
        stop = asyncio.Event()
        service = app.build(settings, stop)
        async with (
            contextlib.AsyncExitStack() as clients,
            service.resources(),
            HttpClient(10.0, 262_144) as http,
        ):
            async with serving(service.app, stop, service.websocket) as port:
                rig = Running(port, http)
                client = await clients.enter_async_context(rig.connected("okx", "BTC-USDT"))
                await next_book("okx", client)
                await rig.set_faults("okx", dead=True)
                started = time.monotonic()
            assert time.monotonic() - started < GRACE_S - 0.5

    with tempfile.TemporaryDirectory() as data:
        asyncio.run(run(Path(data)))

    with tempfile.TemporaryDirectory() as data:
        asyncio.run(run(Path(data)))
