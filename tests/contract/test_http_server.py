"""The HTTP server over real sockets: late, huge and malformed requests end, and never as a 500 or a hang."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import structlog
from fastapi import APIRouter, Request
from tests.harness_http_server import connect, exchange, read_to_end, serving

from cotacoes import config
from cotacoes.adapters.http_server import connection as http_connection
from cotacoes.adapters.http_server import protocol
from cotacoes.adapters.http_server.accepting import HEAD_DEADLINE_S, ConnectionLimits
from cotacoes.adapters.http_server.connection import ASGIApp, Receive, Scope, Send
from cotacoes.errors import NoQuoteError
from cotacoes.model.coins import require_coin
from cotacoes.observability.metrics import Metrics
from cotacoes.web.app import build_app

FINE = b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


def app() -> ASGIApp:
    """A service as all of them are built, with routes that misbehave."""
    router = APIRouter()

    @router.get("/q/{coin}")
    async def quote(coin: str) -> dict[str, str]:
        return {"coin": require_coin(coin, ["bitcoin"])}

    @router.put("/body")
    async def take(request: Request) -> dict[str, int]:
        return {"bytes": len(await request.body())}

    @router.put("/json")
    async def take_json(body: dict[str, Any]) -> dict[str, int]:
        return {"keys": len(body)}

    @router.get("/slow")
    async def slow() -> None:
        await asyncio.Event().wait()

    @router.get("/bug")
    async def bug() -> None:
        raise RuntimeError("password=hunter2")

    def lean(coin: str) -> bytes:
        if coin == "bug":
            raise RuntimeError("password=hunter2")
        if coin != "bitcoin":
            raise NoQuoteError("no quote yet")
        return b'{"coin":"bitcoin"}'

    settings = config.load({}, request_deadline_s=0.5)
    return build_app("test", settings, Metrics(), router, lean={"/lean": lean})


def run(
    work: Callable[[int], Awaitable[None]], asgi: ASGIApp | None = None, *, head_deadline_s: float = HEAD_DEADLINE_S
) -> None:
    limits = ConnectionLimits(head_deadline_s=head_deadline_s)

    async def served() -> None:
        async with serving(asgi or app(), limits=limits) as port:
            await work(port)

    asyncio.run(served())


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


async def ask(port: int, target: bytes, method: bytes = b"GET", *more: bytes) -> bytes:
    lines = [method + b" " + target + b" HTTP/1.1", b"host: x", b"connection: close", *more, b"", b""]
    return await exchange(port, b"\r\n".join(lines))


@pytest.mark.parametrize(
    "start", [b"", b"GET", b"GET /livez HTTP/1.1\r\nhost: x\r\n", b"GET /livez HTTP/1.1\r\nhost: x\r\nx-half: "]
)
def test_a_head_that_does_not_arrive_is_refused_at_its_deadline(start: bytes) -> None:
    async def work(port: int) -> None:
        started = time.monotonic()
        answer = await exchange(port, start)
        assert status_of(answer) == 408
        assert time.monotonic() - started > 0.15

    run(work, head_deadline_s=0.2)


@pytest.mark.parametrize("before", [b"", b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"], ids=["first", "kept alive"])
@pytest.mark.parametrize("drops", [b"GET /livez HTTP/1.1\r\nx: " + b"y" * 1000, b"\r\n" * 500], ids=["head", "blank"])
def test_a_head_that_arrives_too_slowly_is_refused_too(before: bytes, drops: bytes) -> None:
    async def work(port: int) -> None:
        reader, writer = await connect(port)
        writer.write(before)
        if before:
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
        answer = asyncio.ensure_future(reader.readline())
        for drop in drops:
            if answer.done():
                break
            writer.write(bytes([drop]))
            await asyncio.sleep(0.01)
        assert status_of(await answer) == 408
        writer.transport.abort()

    run(work, head_deadline_s=0.3)


def test_a_body_that_goes_on_slowly_after_its_answer_is_cut_too() -> None:
    async def work(port: int) -> None:
        reader, writer = await connect(port)
        writer.write(b"GET /livez HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n")
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
        rest = asyncio.ensure_future(read_to_end(reader))
        for _ in range(500):
            if rest.done():
                break
            writer.write(b"x")
            await asyncio.sleep(0.01)
        assert rest.done()
        writer.transport.abort()
        await rest

    run(work, head_deadline_s=0.3)


def test_a_head_that_arrives_in_pieces_but_in_time_is_answered() -> None:
    async def work(port: int) -> None:
        reader, writer = await connect(port)
        for byte in FINE:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        assert status_of(await read_to_end(reader)) == 200
        writer.transport.abort()

    run(work)


@pytest.mark.parametrize(
    "flood",
    [
        b"GET /livez HTTP/1.1\r\nhost: x\r\n" + b"x-flood: y\r\n" * 20_000,
        b"GET /livez HTTP/1.1\r\nx: " + b"y" * 200_000,
        b"GET /" + b"a" * 200_000,
        b"GET /livez?" + b"a=b&" * 50_000 + b" HTTP/1.1\r\n\r\n",
    ],
    ids=["headers", "one header", "target", "query"],
)
def test_a_head_without_an_end_is_refused(flood: bytes) -> None:
    async def work(port: int) -> None:
        answer = await exchange(port, flood)
        assert not answer or status_of(answer) in {400, 414, 431}
        reader, writer = await connect(port)  # slowly enough that each piece is read by itself: the status arrives
        for start in range(0, protocol.HEAD_BYTES_MAX + 1, 2048):
            writer.write(flood[start : start + 2048])
            await asyncio.sleep(0.001)
        async with asyncio.timeout(5):
            assert status_of(await read_to_end(reader)) == 431
        writer.transport.abort()
        assert status_of(await exchange(port, FINE)) == 200

    run(work)


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"/q/bitcoin", 200),
        (b"/q/%62itcoin", 200),
        (b"/q/%00", 404),
        (b"/q/btc%0d%0aX", 404),
        (b"/q/btc%0d%0aX-Evil:%201", 404),
        (b"/q/%ff%fe", 404),
        (b"/q/%zz", 404),
        (b"/q/" + b"a" * 5000, 404),
        (b"/q/..%2f..%2fetc%2fpasswd", 404),
        (b"/q/../../etc/passwd", 404),
        (b"/q/bitcoin/", 404),
        (b"//", 404),
        (b"/lean/bitcoin", 200),
        (b"/lean/%00", 503),
        (b"/lean/a%0d%0ab", 503),
        (b"/nowhere", 404),
        (b"/q/bitcoin?" + b"x=1&" * 1000, 200),
        (b"/q/bitcoin#f", 200),
        (b"http://x/q/bitcoin", 200),
    ],
)
def test_an_odd_target_gets_a_proper_answer(target: bytes, status: int) -> None:
    async def work(port: int) -> None:
        answer = await ask(port, target)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert status_of(answer) == status
        assert b"evil" not in head.lower()
        if status != 200:
            assert b"content-type: application/problem+json" in head.lower()
            assert json.loads(body)["status"] == status

    run(work)


MALFORMED = [
    b"\r\n\r\n",
    b"nonsense\r\n\r\n",
    b"\x00\x01\x02\x03\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET http:// HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET http://[::1 HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET x:y:z HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET * HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    b"CONNECT x:80 HTTP/1.1\r\nhost: x\r\n\r\n",
    b"CONNECT / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    b"GET /q/\xff\xfe HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    "GET /q/é HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode(),
    b"GET / HTTP/1.1\r\nhost : x\r\n\r\n",
    b"GET / HTTP/1.1\r\nho\x00st: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: x\x00y\r\n\r\n",
    b"GET / HTTP/1.1\r\n folded\r\n\r\n",
    b"PUT /body HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
    b"PUT /body HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999999999\r\n\r\n",
    b"PUT /body HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
    b"PUT /body HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"PUT /body HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    b"PUT /body HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\nzz\r\n",
    b"GET /livez HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade, close\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\nconnection: upgrade, close\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /livez HTTP/1.0\r\n\r\n",
    b"HEAD /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
]


@pytest.mark.parametrize("request_bytes", MALFORMED, ids=repr)
def test_malformed_http_is_refused_or_answered_and_the_server_continues(
    request_bytes: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(port: int) -> None:
        answer = await exchange(port, request_bytes)
        assert not answer or (status_of(answer) < 500 or status_of(answer) in {501, 504, 505}), answer
        after = status_of(await exchange(port, FINE))
        while after == 408:  # on a busy machine even this one can be late
            after = status_of(await exchange(port, FINE))
        assert after == 200

    run(work, head_deadline_s=0.5)
    assert not [record for record in caplog.records if record.exc_info]


def test_pipelined_requests_are_answered_in_order() -> None:
    async def work(port: int) -> None:
        first = b"GET /q/bitcoin HTTP/1.1\r\nhost: x\r\n\r\n"
        answer = await exchange(port, first + b"GET /q/none HTTP/1.1\r\nhost: x\r\n\r\n" + FINE)
        assert [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]] == [200, 404, 200]

    run(work)


@pytest.mark.parametrize("route", [b"/body", b"/json"])
def test_a_huge_body_is_refused_whether_its_length_was_announced_or_not(route: bytes) -> None:
    async def work(port: int) -> None:
        announced = await ask(port, route, b"PUT", b"content-length: 100000000")
        assert status_of(announced) == 413
        chunk = b"1000\r\n" + b"x" * 4096 + b"\r\n"
        reader, writer = await connect(port)
        writer.write(
            b"PUT " + route + b" HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        )
        for _ in range(17):  # one more than fits, so that nothing is sent after the refusal
            writer.write(chunk)
            await asyncio.sleep(0.001)
        async with asyncio.timeout(5):
            assert status_of(await reader.readline()) == 413
        writer.transport.abort()

    run(work)


def test_a_request_whose_body_never_arrives_ends_at_its_deadline() -> None:
    async def work(port: int) -> None:
        answer = await ask(port, b"/body", b"PUT", b"content-length: 10")
        assert status_of(answer) == 504

    run(work)


def test_a_hanging_handler_is_a_504_and_a_crash_is_a_500_without_details() -> None:
    async def work(port: int) -> None:
        assert status_of(await ask(port, b"/slow")) == 504
        for target in (b"/bug", b"/lean/bug"):
            answer = await ask(port, target)
            assert status_of(answer) == 500
            assert b"application/problem+json" in answer
            assert b"hunter2" not in answer
            assert b"Traceback" not in answer

    run(work)


def test_a_client_that_disconnects_in_the_middle_of_its_body_causes_no_crash() -> None:
    async def work(port: int) -> None:
        _, writer = await connect(port)
        writer.write(b"PUT /body HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf")
        await writer.drain()
        writer.transport.abort()
        metrics = b""
        async with asyncio.timeout(5):
            while b'route="/body"' not in metrics:
                metrics = await ask(port, b"/metrics")
        assert b'cotacoes_http_requests_total{route="/body",status="499"} 1.0' in metrics

    with structlog.testing.capture_logs() as logs:
        run(work)
    assert not logs


def test_when_a_client_disconnects_its_get_is_cancelled_and_its_put_is_finished() -> None:
    begun, ended, may_end = [], [], asyncio.Event()
    router = APIRouter()

    @router.api_route("/wait", methods=["GET", "PUT"])
    async def wait(request: Request) -> None:
        begun.append(request.method)
        try:
            await may_end.wait()
            ended.append(f"{request.method} whole")
        except asyncio.CancelledError:
            ended.append(f"{request.method} given up")
            raise

    async def until(is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not is_so():
                await asyncio.sleep(0.01)

    async def work(port: int) -> None:
        for count, method in enumerate(("PUT", "GET"), start=1):
            _, writer = await connect(port)
            writer.write(f"{method} /wait HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".encode())
            await until(lambda count=count: len(begun) == count)  # type: ignore[misc]
            writer.transport.abort()
        await until(lambda: ended == ["GET given up"])
        may_end.set()
        await until(lambda: ended == ["GET given up", "PUT whole"])
        assert b'cotacoes_http_requests_total{route="/wait",status="499"} 1.0' in await ask(port, b"/metrics")

    settings = config.load({}, request_deadline_s=60)
    with structlog.testing.capture_logs() as logs:
        run(work, build_app("test", settings, Metrics(), router))
    assert not logs


def test_an_unsupported_method_is_a_405_that_lists_the_supported_ones() -> None:
    async def work(port: int) -> None:
        answer = await ask(port, b"/livez", b"POST")
        assert status_of(answer) == 405
        assert b"allow: get" in answer.lower()

    run(work)


def test_a_stop_waits_for_an_open_answer_and_cancels_one_that_does_not_end() -> None:
    gate = asyncio.Event()

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        if scope["path"] == "/ends":
            await gate.wait()
            await send({"type": "http.response.body", "body": b"ended"})
        else:
            await asyncio.Event().wait()

    async def served() -> tuple[bytes, bytes, float]:
        stop = asyncio.Event()
        async with serving(stream, stop, grace_s=1) as port:
            readers = []
            for path in (b"/ends", b"/stays"):
                reader, writer = await connect(port)
                writer.write(b"GET " + path + b" HTTP/1.1\r\nhost: x\r\n\r\n")
                await reader.readuntil(b"begun")
                readers.append((reader, writer))
            started = time.monotonic()
            stop.set()
            gate.set()
            async with asyncio.timeout(60):  # one never ends by itself: only the end of the grace period ends it
                answers = [await read_to_end(reader) for reader, _ in readers]
            for _, writer in readers:
                writer.transport.abort()
        return answers[0], answers[1], time.monotonic() - started

    ended, given_up, seconds = asyncio.run(served())
    assert b"ended" in ended
    assert not given_up.endswith(b"0\r\n\r\n")
    assert seconds > 0.5


def test_a_client_sees_that_an_answer_was_cut_and_the_server_logs_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async def cutting(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await http_connection.cut(scope)

    async def work(port: int) -> None:
        answer = await exchange(port, FINE)
        assert answer.endswith(b"half")

    run(work, cutting)
    assert not caplog.records


def test_answers_on_a_reused_connection_do_not_wait_for_acknowledgements() -> None:
    """With Nagle's algorithm on, each answer in two writes waits 40 ms; a busy machine delays some, but never all."""

    async def work(port: int) -> None:
        reader, writer = await connect(port)
        seconds = []
        for _ in range(100):
            started = time.monotonic()
            writer.write(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
            await reader.readuntil(b"}")
            seconds.append(time.monotonic() - started)
        assert min(seconds[50:]) < 0.03  # the kernel delays no acknowledgement of the first few
        writer.transport.abort()

    run(work)
