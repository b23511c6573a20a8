"""The stream over real sockets, against servers that cut, hang, refuse and say goodbye."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import pytest
from tests.unit import fake_gateway as twins
from tests.unit.fake_gateway import era
from websockets.asyncio.server import ServerConnection, serve
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response

from cotacoes.adapters.websocket_client import MESSAGE_BYTES_MAX, MESSAGES_AHEAD, Link, connect
from cotacoes.client import Client, Position, Stream
from cotacoes.client.stream_state import StreamState
from cotacoes.errors import (
    NotFoundError,
    StreamClosedError,
    StreamMalformedError,
    StreamRefusedError,
    StreamUnavailableError,
)

Handler = Callable[[ServerConnection], Awaitable[None]]
Refuse = Callable[[ServerConnection, Request], Response | None]
QUOTES = era(5, 6)
HANG_S = 30.0  # far beyond what anything here takes


@contextlib.asynccontextmanager
async def serving(handler: Handler, refuse: Refuse | None = None, **options: Any) -> AsyncIterator[str]:
    """A server of WebSockets; yields the address of a gateway."""
    async with serve(
        handler,
        "127.0.0.1",
        0,
        process_request=refuse,
        compression=None,
        ping_interval=None,
        close_timeout=1,
        **options,
    ) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def endpoint(url: str) -> str:
    return f"ws{url.removeprefix('http')}/v1/ws"


async def opened(url: str) -> Link:
    return await connect(endpoint(url), deadline_s=HANG_S)


def stream_of(url: str, *, silent_s: float, since: str = "5-1") -> Stream:
    """A stream that gives a link up after so long, instead of 11 s."""
    state = StreamState(["bitcoin"], time.monotonic(), since={"bitcoin": Position.parse(since)})
    return Stream(
        endpoint(url),
        state,
        lambda address: connect(address, deadline_s=HANG_S),
        clock=time.monotonic,
        now=lambda: datetime.now(UTC),
        random=random.Random(1),
        silent_s=silent_s,
    )


class Gateway:
    """Answers subscriptions after their positions; `spoil` is what happens to each connection instead of its end."""

    def __init__(self, *spoils: Handler) -> None:
        self.spoils = list(spoils)
        self.connections = 0

    async def __call__(self, connection: ServerConnection) -> None:
        self.connections += 1
        with contextlib.suppress(Exception):
            asked = json.loads(await connection.recv())
            since = Position.parse(asked["since"]["bitcoin"])
            await connection.send(twins.subscribed_frame({"bitcoin": (True, since)}))
            rest = [quote for quote in QUOTES if quote.position > since]
            if not self.spoils:
                for quote in rest:
                    await connection.send(twins.quote_frame(quote))
                await connection.wait_closed()
            spoil = self.spoils.pop(0)
            await connection.send(twins.quote_frame(rest.pop(0)))
            await spoil(connection)


async def cut_in_a_frame(connection: ServerConnection) -> None:
    frame = Frame(Opcode.TEXT, twins.quote_frame(QUOTES[5]).encode()).serialize(mask=False)
    connection.transport.write(frame[: len(frame) // 2])
    connection.transport.close()


async def reset(connection: ServerConnection) -> None:
    connection.transport.abort()


async def stop_sending(connection: ServerConnection) -> None:
    await connection.wait_closed()


async def say_bye(connection: ServerConnection) -> None:
    await connection.send('{"type":"bye","reason":"shutdown","retry_ms":100}')
    await connection.close(1001, "shutdown")


async def send_what_is_no_websocket(connection: ServerConnection) -> None:
    connection.transport.write(b"HTTP/1.1 500 Oops\r\n\r\n" * 9)
    await connection.wait_closed()


async def send_too_much(connection: ServerConnection) -> None:
    await connection.send("x" * (MESSAGE_BYTES_MAX + 1))
    await connection.wait_closed()


async def send_what_is_no_text(connection: ServerConnection) -> None:
    connection.transport.write(Frame(Opcode.TEXT, b"\xff").serialize(mask=False))
    await connection.wait_closed()


async def crash(connection: ServerConnection) -> None:
    await connection.close(1011, "a bug")


SPOILS: list[Handler] = [
    cut_in_a_frame,
    reset,
    stop_sending,
    say_bye,
    send_what_is_no_websocket,
    send_too_much,
    send_what_is_no_text,
    crash,
]


@pytest.mark.parametrize("spoil", SPOILS, ids=lambda spoil: spoil.__name__)
def test_however_a_link_ends_the_stream_continues_where_it_was(spoil: Handler) -> None:
    async def scenario() -> None:
        gateway = Gateway(spoil, spoil)
        async with serving(gateway) as url, stream_of(url, silent_s=0.5) as stream:
            assert [await anext(stream) for _ in QUOTES[1:]] == QUOTES[1:]
            assert gateway.connections == 3

    asyncio.run(scenario())


def test_messages_that_came_while_the_loop_was_blocked_are_read_before_the_link_counts_as_dead() -> None:
    connections: list[ServerConnection] = []

    async def stay(connection: ServerConnection) -> None:
        connections.append(connection)
        await connection.wait_closed()

    async def scenario() -> None:
        gateway = Gateway(stay)
        async with serving(gateway) as url, stream_of(url, silent_s=0.2) as stream:
            assert await anext(stream) == QUOTES[1]
            while not connections:
                await asyncio.sleep(0)
            frame = Frame(Opcode.TEXT, twins.quote_frame(QUOTES[2]).encode()).serialize(mask=False)
            connections[0].transport.write(frame)  # into the socket, without the loop
            time.sleep(0.3)  # noqa: ASYNC251  # what is tested
            assert await anext(stream) == QUOTES[2]
            assert gateway.connections == 1

    asyncio.run(scenario())


def test_a_refusal_with_retry_after_is_obeyed() -> None:
    refused_at: list[float] = []

    def refuse(connection: ServerConnection, _: Request) -> Response | None:
        if refused_at:
            return None
        refused_at.append(time.monotonic())
        response = connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "full")
        response.headers["Retry-After"] = "1"
        return response

    async def scenario() -> None:
        async with serving(Gateway(), refuse) as url, stream_of(url, silent_s=HANG_S) as stream:
            await anext(stream)
            assert time.monotonic() - refused_at[0] >= 1.0

    asyncio.run(scenario())


def test_another_path_and_a_redirect_are_raised_and_not_followed() -> None:
    asked: list[str] = []

    def refuse(connection: ServerConnection, request: Request) -> Response:
        asked.append(request.path)
        response = connection.respond(HTTPStatus.NOT_FOUND if len(asked) == 1 else HTTPStatus.FOUND, "")
        response.headers["Location"] = "/v1/elsewhere"
        return response

    async def scenario() -> None:
        async with serving(Gateway(), refuse) as url:
            async with Client(url) as client:
                with pytest.raises(NotFoundError):
                    await anext(client.stream("bitcoin"))
            with pytest.raises(StreamRefusedError) as refusal:
                await opened(url)
            assert refusal.value.status == 302
            assert asked == ["/v1/ws", "/v1/ws"]

    asyncio.run(scenario())


def test_a_close_of_the_other_side_carries_its_code_and_reason() -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.send("last words")
        await connection.close(4002, "rate")

    async def scenario() -> None:
        async with serving(handler) as url:
            link = await opened(url)
            assert await link.receive() == "last words"
            for call in (link.receive, lambda: link.send("too late")):
                with pytest.raises(StreamClosedError) as closed:
                    await call()
                assert (closed.value.code, closed.value.reason) == (4002, "rate")

    asyncio.run(scenario())


@pytest.mark.parametrize("spoil", [send_too_much, send_what_is_no_text, send_what_is_no_websocket])
def test_a_breach_of_the_protocol_is_the_other_sides_fault(spoil: Handler) -> None:
    async def scenario() -> None:
        async with serving(spoil) as url:
            link = await opened(url)
            with pytest.raises(StreamMalformedError):
                await link.receive()

    asyncio.run(scenario())


def test_nothing_is_compressed_and_no_proxy_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "ws_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    heads: list[Request] = []

    def note(_: ServerConnection, request: Request) -> None:
        heads.append(request)

    async def scenario() -> None:
        async with serving(Gateway(), note) as url:
            link = await opened(url)
            await link.close()

    asyncio.run(scenario())
    assert "Sec-WebSocket-Extensions" not in heads[0].headers
    assert "Origin" not in heads[0].headers


@contextlib.asynccontextmanager
async def silent_peer(answer: bytes) -> AsyncIterator[str]:
    """Accepts, says this, and nothing more."""
    writers: list[asyncio.StreamWriter] = []

    async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(answer)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 101 Switching", b"HTTP/1.1 503 x\r\nContent-Length: 9\r\n\r\nshort"]
)
def test_the_deadline_covers_the_whole_opening(answer: bytes) -> None:
    async def scenario() -> None:
        async with silent_peer(answer) as url:
            with pytest.raises(StreamUnavailableError, match="within"):
                await connect(url, deadline_s=0.1)

    asyncio.run(scenario())


def test_an_invalid_opening_is_no_connection() -> None:
    async def scenario() -> None:
        async with silent_peer(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: tea\r\n\r\n") as url:
            with pytest.raises(StreamUnavailableError, match="no connection"):
                await connect(url, deadline_s=HANG_S)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "url", ["ws://127.0.0.1:9", f"ws://{'x' * 64}.invalid", "ws://no such host", "ws://x:99999", "ws://[::1"]
)
def test_an_address_without_a_server_is_no_connection(url: str) -> None:
    with pytest.raises(StreamUnavailableError, match="no connection"):
        asyncio.run(connect(url, deadline_s=HANG_S))


def test_a_slow_caller_slows_the_sender_down_and_then_gets_everything() -> None:
    count, size = 2_000, 16_384  # 32 MB, more than all buffers between hold
    sent: list[int] = []

    async def handler(connection: ServerConnection) -> None:
        for number in range(count):
            await connection.send(f"{number}".ljust(size))
            sent.append(number)
        await connection.wait_closed()

    async def scenario() -> None:
        async with serving(handler, write_limit=65_536) as url:
            link = await opened(url)
            came = -1
            while came < len(sent):
                came = len(sent)
                for _ in range(1_000):
                    await asyncio.sleep(0)
            assert came < count
            connection = link._connection  # type: ignore[attr-defined]  # the bound is inside the library
            assert len(connection.recv_messages.frames) <= MESSAGES_AHEAD + 262_144 // size + 1
            for number in range(count):
                assert int(await link.receive()) == number
            await link.close()

    asyncio.run(scenario())


def test_cancelling_one_wait_loses_no_message() -> None:
    async def handler(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async def scenario() -> None:
        async with serving(handler) as url:
            link = await opened(url)
            for number in range(50):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0):
                        await link.receive()
                await link.send(f"{number}")
                assert await link.receive() == f"{number}"
            await link.close()

    asyncio.run(scenario())


def test_closing_sends_a_goodbye() -> None:
    codes: list[int | None] = []

    async def handler(connection: ServerConnection) -> None:
        await connection.wait_closed()
        codes.append(connection.close_code)

    async def scenario() -> None:
        async with serving(handler) as url, Client(url) as client:
            stream = client.stream("bitcoin")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await anext(stream)
        assert codes == [1000]

    asyncio.run(scenario())


def test_a_peer_that_does_not_answer_our_close_is_cut() -> None:
    async def handler(connection: ServerConnection) -> None:
        connection.transport.pause_reading()
        await connection.wait_closed()

    async def scenario() -> None:
        async with serving(handler) as url:
            link = await opened(url)
            async with asyncio.timeout(HANG_S):
                await link.close()

    asyncio.run(scenario())
