"""The streams over real sockets: what an unmodified client of each wire gets, and what a hostile one does not."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import APIRouter
from tests.harness_asyncapi import check_frame
from tests.harness_http_server import connect, exchange, read_to_end, serving
from tests.unit.harness_gateway_stream import StreamRig
from websockets.asyncio.client import connect as connect_web_socket
from websockets.frames import Frame, Opcode

from cotacoes.adapters.http_server import server
from cotacoes.adapters.http_server.accepting import HEAD_DEADLINE_S, ConnectionLimits
from cotacoes.adapters.http_server.hosts import AllowedHosts
from cotacoes.gateway_service.event_stream import EventStreams
from cotacoes.gateway_service.websocket import WebSocketConnection
from cotacoes.observability.metrics import Metrics
from cotacoes.web.app import build_app
from cotacoes.web.background import Restarts

HANDSHAKE = (
    b"GET /v1/ws HTTP/1.1\r\nhost: gateway\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Wired:
    """A hub with both wires, served on `port`."""

    def __init__(self, rig: StreamRig, port: int) -> None:
        self.rig = rig
        self.port = port
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection that is gone at the end of the test."""
        reader, writer = await connect(self.port)
        self._writers.append(writer)
        return reader, writer

    async def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def open(self, target: str = "/v1/stream?coins=bitcoin", version: str = "1.1", **headers: str) -> Any:
        """A stream of events, as (status line, headers, reader, writer)."""
        reader, writer = await self.connect()
        received = "".join(f"{name.replace('_', '-')}: {text}\r\n" for name, text in headers.items())
        writer.write(f"GET {target} HTTP/{version}\r\nhost: gateway\r\n{received}\r\n".encode())
        async with asyncio.timeout(5):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        names = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        return head[0], names, reader, writer


@contextlib.asynccontextmanager
async def wired(*, head_deadline_s: float = HEAD_DEADLINE_S, **settings: Any) -> AsyncIterator[Wired]:
    rig = StreamRig("bitcoin", "ethereum", **settings)
    streams = {"/v1/stream": EventStreams(rig.hub, rig.admission, rig.settings, clock=rig.loop.time)}
    limits = ConnectionLimits(head_deadline_s=head_deadline_s)
    app = build_app("gateway_service", rig.settings, Metrics(), APIRouter(), streams=streams)
    running = asyncio.create_task(rig.hub.run(Restarts(Metrics())))
    try:
        async with serving(app, websocket=rig.sockets.protocol, limits=limits) as port:
            gateway = Wired(rig, port)
            try:
                yield gateway
            finally:
                await gateway.close()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def next_event(reader: asyncio.StreamReader, *, limit_s: float = 10.0) -> dict[str, str]:
    """The fields of the next event; comments and `retry` alone are none."""
    while True:
        async with asyncio.timeout(limit_s):
            block = (await reader.readuntil(b"\n\n")).decode()
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line and not line.startswith(":"))
        if "data" in fields:
            check_frame(fields["data"])
            return fields


async def test_events_have_a_cursor_over_all_coins_of_the_stream() -> None:
    async with wired() as gateway:
        await gateway.rig.publish("ethereum", 2)
        status, headers, reader, _ = await gateway.open("/v1/stream?coins=ethereum,bitcoin&mode=every")
        assert status == "HTTP/1.1 200 OK"
        assert headers["content-type"] == "text/event-stream"
        assert headers["cache-control"] == "no-store"
        assert (await next_event(reader))["event"] == "heartbeat"
        first = await next_event(reader)
        assert (first["event"], first["id"]) == ("quote", "ethereum:5-2")
        await gateway.rig.publish("bitcoin")
        second = await next_event(reader)
        assert second["id"] == "bitcoin:5-1,ethereum:5-2"
        assert json.loads(second["data"])["coin"] == "bitcoin"


async def test_last_event_id_resumes_exactly_and_wins_over_since() -> None:
    async with wired() as gateway:
        await gateway.rig.publish("bitcoin", 5)
        target = "/v1/stream?coins=bitcoin,ethereum&since=bitcoin:5-4"
        _, _, reader, _ = await gateway.open(target, last_event_id="bitcoin:5-2,ethereum:5-1")
        assert (await next_event(reader))["event"] == "heartbeat"
        ids = [(await next_event(reader))["id"] for _ in range(3)]
        assert ids == [f"bitcoin:5-{seq},ethereum:5-1" for seq in (3, 4, 5)]
        _, _, reader, _ = await gateway.open(target)
        assert (await next_event(reader))["event"] == "heartbeat"
        assert (await next_event(reader))["id"] == "bitcoin:5-5"


async def test_a_stream_begins_with_when_to_come_back_and_a_comment_and_is_kept_alive() -> None:
    async with wired() as gateway:
        _, _, reader, _ = await gateway.open()
        async with asyncio.timeout(10):
            assert await reader.readuntil(b"\n\n") == b": cotacoes\nretry: 2000\n\n"
            assert (await reader.readuntil(b"\n")).startswith(b": ")
        beat = await next_event(reader)
        assert beat["event"] == "heartbeat"
        assert "id" not in beat


async def test_a_client_that_answers_stays_longer_than_any_deadline() -> None:
    impatient = {"head_deadline_s": 0.3, "ping_s": 0.5, "check_s": 0.1}
    async with wired(**impatient, stream_stall_s=1, stream_subscribe_s=1) as gateway:
        _, _, reader, _ = await gateway.open()
        async with connect_web_socket(f"ws://127.0.0.1:{gateway.port}/v1/ws", ping_interval=None) as link:
            await link.send('{"op":"subscribe","coins":["bitcoin"]}')
            await link.recv()
            await asyncio.sleep(3)
            await gateway.rig.publish()
            async with asyncio.timeout(5):
                while json.loads(await link.recv())["type"] != "quote":
                    pass
            while (await next_event(reader))["event"] != "quote":
                pass


async def test_a_proxy_that_speaks_http_1_0_gets_the_same_bytes() -> None:
    async with wired() as gateway:
        await gateway.rig.publish()
        status, headers, reader, _ = await gateway.open(version="1.0")
        assert status == "HTTP/1.1 200 OK"
        assert "transfer-encoding" not in headers
        assert headers["connection"] == "close"
        assert (await next_event(reader))["event"] == "heartbeat"
        assert (await next_event(reader))["id"] == "bitcoin:5-1"


@pytest.mark.parametrize(
    ("origin", "status", "allowed"),
    [
        ("http://gateway", "200", None),
        ("https://page.example", "200", "https://page.example"),
        ("https://evil.example", "403", None),
    ],
)
async def test_a_page_of_another_origin_reads_only_if_it_is_listed(
    origin: str, status: str, allowed: str | None
) -> None:
    async with wired(allowed_origins="https://page.example") as gateway:
        received, headers, _, _ = await gateway.open(origin=origin)
        assert received.split()[1] == status
        assert headers.get("access-control-allow-origin") == allowed


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/v1/stream", "422"),
        ("/v1/stream?coins=", "422"),
        ("/v1/stream?coins=bitcoi", "404"),
        ("/v1/stream?coins=bitcoin&coins=ethereum", "422"),
        ("/v1/stream?coins=bitcoin&limit=3", "422"),
        ("/v1/stream?coins=bitcoin&mode=often", "422"),
        ("/v1/stream?coins=bitcoin&since=5-1", "422"),
        ("/v1/stream?coins=%00", "404"),
        ("/v1/stream?coins=bitcoin,ethereum", "422"),
    ],
)
async def test_an_invalid_request_is_refused_before_the_stream_begins(target: str, status: str) -> None:
    async with wired(stream_coins_max=1) as gateway:
        received, headers, reader, _ = await gateway.open(target)
        assert received.split()[1] == status
        assert headers["content-type"] == "application/problem+json"
        assert json.loads(await reader.readexactly(int(headers["content-length"])))["detail"]


async def test_another_method_is_refused() -> None:
    async with wired() as gateway:
        received = await exchange(gateway.port, b"POST /v1/stream HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert received.startswith(b"HTTP/1.1 405")


async def test_streams_take_no_place_of_a_request_and_give_their_own_back() -> None:
    async with wired(streams_max=2) as gateway:
        opened = [await gateway.open() for _ in range(2)]
        assert (await gateway.open())[0].split()[1] == "503"
        received = await exchange(gateway.port, b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert received.startswith(b"HTTP/1.1 200")
        for _, _, _, writer in opened:
            writer.transport.abort()
        async with asyncio.timeout(5):
            while (await gateway.open())[0].split()[1] != "200":
                await asyncio.sleep(0.02)
        assert len(gateway.rig.hub.connections) == 1


async def test_later_input_of_an_event_stream_client_is_ignored() -> None:
    async with wired() as gateway:
        _, _, reader, writer = await gateway.open()
        writer.write(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n" * 10)
        await writer.drain()
        await gateway.rig.publish()
        assert (await next_event(reader))["event"] == "heartbeat"
        assert (await next_event(reader))["id"] == "bitcoin:5-1"


async def test_a_reader_that_does_not_read_is_closed_and_its_cost_is_bounded() -> None:
    async with wired(stream_stall_s=1.0, stream_write_buffer_bytes=8_192) as gateway:
        _, _, _, slow = await gateway.open()
        _, _, reader, _ = await gateway.open()
        slow.transport.pause_reading()
        read = asyncio.create_task(read_to_end(reader))
        async with asyncio.timeout(20):
            while len(gateway.rig.hub.connections) == 2:
                await gateway.rig.publish("bitcoin", 500)
                await asyncio.sleep(0.02)
        assert len(gateway.rig.hub.connections) == 1
        read.cancel()
        slow.transport.abort()


async def test_at_a_stop_each_client_learns_when_to_come_back() -> None:
    rig = StreamRig("bitcoin")
    streams = {"/v1/stream": EventStreams(rig.hub, rig.admission, rig.settings, clock=rig.loop.time)}
    app = build_app("gateway_service", rig.settings, Metrics(), APIRouter(), streams=streams)
    stop = asyncio.Event()
    with server.listen("127.0.0.1", 0) as listener:
        served = asyncio.create_task(
            server.serve(app, listener, stop, hosts=AllowedHosts(["gateway"]), websocket=rig.sockets.protocol)
        )
        gateway = Wired(rig, int(listener.getsockname()[1]))
        _, _, reader, _ = await gateway.open()
        web_reader, _ = await shaken(gateway)
        stop.set()
        events = await read_to_end(reader)
        frames = await read_to_end(web_reader)
        await gateway.close()
        async with asyncio.timeout(10):
            await served
    assert b"retry: " in events.split(b"\n\n")[-2]
    assert b'"type":"bye","reason":"shutdown"' in frames
    assert frames.endswith(b"\x03\xe9shutdown")  # 1001
    assert not rig.hub.connections


async def shaken(gateway: Wired, handshake: bytes = HANDSHAKE) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A WebSocket, by hand."""
    reader, writer = await gateway.connect()
    writer.write(handshake)
    async with asyncio.timeout(5):
        head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101"), head
    return reader, writer


def text(payload: bytes, **more: Any) -> bytes:
    return Frame(Opcode.TEXT, payload, **more).serialize(mask=True)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (Frame(Opcode.TEXT, b'{"op":"ping"}').serialize(mask=False), 1002),
        (text(b"x" * 20_000), 1009),
        (text(b"x" * 10_000, fin=False) + Frame(Opcode.CONT, b"x" * 10_000).serialize(mask=True), 1009),
        (Frame(Opcode.BINARY, b"x").serialize(mask=True), 1003),
        (b"\xff\xff\xff\xff\xff\xff", 1002),
        (text(b"\xff\xfe"), 1007),
        (Frame(Opcode.CONT, b"x").serialize(mask=True), 1002),
        (b"".join(Frame(Opcode.PING, b"x").serialize(mask=True) for _ in range(50)), 4002),
    ],
    ids=[
        "unmasked",
        "too large",
        "too large in pieces",
        "binary",
        "garbage",
        "not UTF-8",
        "no beginning",
        "a flood of pings",
    ],
)
async def test_a_client_that_breaks_the_rules_is_closed_with_the_code_for_it(sent: bytes, code: int) -> None:
    async with wired() as gateway:
        reader, writer = await shaken(gateway)
        other_reader, other = await shaken(gateway)
        writer.write(sent)
        async with asyncio.timeout(10):
            received = await read_to_end(reader)
        assert code.to_bytes(2, "big") in received
        other.write(text(b'{"op":"ping","id":"here"}'))
        async with asyncio.timeout(5):
            assert b'"pong","id":"here"' in await other_reader.readuntil(b"}")
        assert len(gateway.rig.hub.connections) == 1


async def test_a_bug_of_ours_ends_one_connection_and_says_whose_fault_it_is() -> None:
    async with wired() as gateway:
        reader, writer = await shaken(gateway)
        other_reader, other = await shaken(gateway)

        def crash(*_: Any) -> None:
            raise RuntimeError("planted")

        (connection, _) = gateway.rig.hub.connections
        assert isinstance(connection, WebSocketConnection)
        connection.unsubscribe = crash  # type: ignore[method-assign,assignment]
        for one in (writer, other):
            one.write(text(b'{"op":"unsubscribe","coins":["bitcoin"]}'))
        async with asyncio.timeout(5):
            received = await asyncio.wait_for(reader.read(200), 5), await asyncio.wait_for(other_reader.read(200), 5)
        assert sorted((1011).to_bytes(2, "big") in each for each in received) == [False, True]


async def test_a_message_in_pieces_is_one_message() -> None:
    async with wired() as gateway:
        reader, writer = await shaken(gateway)
        writer.write(text(b'{"op":', fin=False) + Frame(Opcode.CONT, b'"ping"}').serialize(mask=True))
        async with asyncio.timeout(5):
            assert b'"pong"' in await reader.readuntil(b"}")


@pytest.mark.parametrize(
    ("handshake", "status"),
    [
        (HANDSHAKE.replace(b"/v1/ws", b"/elsewhere"), b"404"),
        (HANDSHAKE.replace(b"13\r\n", b"12\r\n"), b"426"),
        (HANDSHAKE.replace(b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b""), b"400"),
        (HANDSHAKE.replace(b"host: gateway", b"host: gateway\r\norigin: https://evil.example"), b"403"),
    ],
    ids=["path", "version", "key", "origin"],
)
async def test_a_handshake_that_is_refused_is_an_answer_and_leaves_nothing_open(
    handshake: bytes, status: bytes
) -> None:
    async with wired() as gateway:
        received = await exchange(gateway.port, handshake, limit_s=10)
        assert received.split()[1] == status
        assert not gateway.rig.hub.connections


async def test_a_websocket_that_vanishes_is_forgotten() -> None:
    async with wired() as gateway:
        for _ in range(20):
            _, writer = await shaken(gateway)
            writer.write(text(b'{"op":"subscribe","coins":["bitcoin"]}'))
            await writer.drain()
            writer.transport.abort()
        async with asyncio.timeout(5):
            while gateway.rig.hub.connections:
                await asyncio.sleep(0.02)
        assert not gateway.rig.hub._channels


async def test_a_client_that_does_not_read_is_not_read_either() -> None:
    async with wired(stream_messages_per_s=1_000, stream_write_buffer_bytes=8_192, stream_stall_s=2) as gateway:
        _, writer = await shaken(gateway)
        transport = writer.transport
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()
        question = text(b'{"op":"subscribe","coins":["bitcoin","ethereum"]}')
        sent = 0
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(15):
                while gateway.rig.hub.connections:
                    writer.write(question * 10)
                    await writer.drain()
                    sent += 10
                    await asyncio.sleep(0.01)
        assert not gateway.rig.hub.connections
        writer.transport.abort()
