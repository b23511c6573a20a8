"""The HTTP client over real sockets: one deadline, one bounded body, no redirect followed, nothing leaked."""

import asyncio
import contextlib
import gzip
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx2
import pytest

from cotacoes.adapters.http_client import CONNECTIONS_MAX, HttpClient, Response
from cotacoes.errors import HttpError, HttpMalformedError, HttpUnavailableError
from cotacoes.patterns.resilience import Deadline

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
BYTES_MAX = 4096


@contextlib.asynccontextmanager
async def peer(handler: Handler) -> AsyncIterator[str]:
    """A server of raw bytes; yields its address."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await handler(reader, writer)
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)


def says(*pieces: bytes, pause_s: float = 0.0, hold: bool = False) -> Handler:
    """A peer that reads a head, sends the pieces, then closes; with `hold` it never closes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            if pause_s:
                await asyncio.sleep(pause_s)
        if hold:
            await asyncio.Event().wait()

    return handle


def head(status: str = "200 OK", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def ask(handler: Handler, *, deadline_s: float = 5.0, times: int = 1) -> Response:
    """The last of `times` answers of such a peer."""

    async def run() -> Response:
        async with peer(handler) as url, HttpClient(deadline_s, BYTES_MAX) as client:
            for _ in range(times - 1):
                await client.get(url)
            return await client.get(f"{url}/quote")

    return asyncio.run(run())


def test_an_answer_is_complete_and_has_lower_case_headers() -> None:
    response = ask(says(head(Content_Length="5", X_Two="a") + b"hello"))
    assert (response.status, response.body) == (200, b"hello")
    assert response.headers == {"content-length": "5", "x-two": "a"}


@pytest.mark.parametrize("status", ["204 No Content", "302 Found", "404 Not Found", "503 Service Unavailable"])
def test_every_status_is_an_answer_and_no_redirect_is_followed(status: str) -> None:
    response = ask(says(head(status, Content_Length="0", Location="/elsewhere", Retry_After="7")))
    assert response.status == int(status[:3])
    assert response.headers["retry-after"] == "7"


def test_a_body_of_exactly_the_limit_is_accepted_and_one_byte_more_is_not() -> None:
    chunk = b"x" * 1024
    whole = [b"400\r\n" + chunk + b"\r\n"] * 4
    assert len(ask(says(head(Transfer_Encoding="chunked"), *whole, b"0\r\n\r\n")).body) == BYTES_MAX
    with pytest.raises(HttpMalformedError):
        ask(says(head(Transfer_Encoding="chunked"), *whole, b"1\r\nx\r\n", b"0\r\n\r\n"))


@pytest.mark.parametrize(
    "answer",
    [
        head(Content_Length=str(BYTES_MAX + 1)),  # refused unread: nothing more ever comes
        head(Content_Length="2", Content_Encoding="gzip") + b"xx",
        head(Content_Length="2", Content_Encoding="identity, br") + b"xx",
        head(Transfer_Encoding="chunked", Content_Encoding="gzip"),
        head() + b"x" * 100_000,
    ],
)
def test_an_answer_that_is_too_large_or_encoded_is_malformed_at_once(answer: bytes) -> None:
    with pytest.raises(HttpMalformedError):
        ask(says(answer, hold=True))


def test_a_bomb_is_never_inflated() -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    with pytest.raises(HttpMalformedError):
        ask(says(head(Content_Length=str(len(bomb)), Content_Encoding="gzip") + bomb))


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b"HTTP/1.1 200"],
        [head(Content_Length="10") + b"short"],
        [head(Transfer_Encoding="chunked") + b"5\r\nhel"],
        [head(Transfer_Encoding="chunked") + b"zz\r\n"],
        [b"\x16\x03\x01 not http\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\n" + b"x-flood: 1\r\n" * 50_000],
        [head(Content_Length="-1")],
    ],
)
def test_an_answer_that_is_cut_or_not_http_is_unavailable(pieces: list[bytes]) -> None:
    with pytest.raises(HttpUnavailableError):
        ask(says(*pieces))


@pytest.mark.parametrize(
    "handler",
    [
        says(hold=True),
        says(head(Content_Length="9"), hold=True),
        says(head(Content_Length="4000"), *[b"x"] * 4000, pause_s=0.02),
        says(*[bytes([byte]) for byte in head(Content_Length="1")], pause_s=0.02, hold=True),
    ],
    ids=["nothing", "head only", "dripped body", "dripped head"],
)
def test_one_deadline_bounds_the_whole_call_however_slowly_it_drips(handler: Handler) -> None:
    started = time.monotonic()
    with pytest.raises(HttpUnavailableError):
        ask(handler, deadline_s=0.3)
    assert 0.25 < time.monotonic() - started < 40.0  # the quickest of these peers takes 80 s


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/", "http://nowhere.invalid/", "ftp://x/", "x", "", "http://x:99999/"]
)
def test_a_call_without_an_answer_is_unavailable_with_a_text(url: str) -> None:
    async def run() -> None:
        async with HttpClient(5.0, BYTES_MAX) as client:
            with pytest.raises(HttpUnavailableError) as caught:
                await client.get(url)
            assert str(caught.value)

    asyncio.run(run())


@pytest.mark.parametrize("raised", [KeyError("x"), RuntimeError("not open"), OverflowError("port"), LookupError()])
def test_every_error_of_the_library_is_unavailable_but_a_wrong_call_is_raised(raised: Exception) -> None:
    def fail(_: httpx2.Request) -> httpx2.Response:
        raise raised

    async def run() -> None:
        async with HttpClient(5.0, BYTES_MAX, transport=httpx2.MockTransport(fail)) as client:
            with pytest.raises(HttpUnavailableError, match=type(raised).__name__):
                await client.get("http://quote_service/")
            with pytest.raises(TypeError):
                await client.get("http://quote_service/", {"x-header": 7})  # type: ignore[dict-item]

    asyncio.run(run())


def test_calls_that_end_early_give_their_connection_back() -> None:
    """More failures than the pool has places, deadlines and cancellations while connecting and reading among them."""

    async def run() -> None:
        held: set[asyncio.StreamWriter] = set()

        async def watch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            held.add(writer)
            try:
                while b"/good" in await reader.readuntil(b"\r\n\r\n"):
                    writer.write(head(Content_Length="2") + b"ok")
                writer.write(head(Content_Length="2"))
                await reader.read(1)
            finally:
                held.remove(writer)

        async with peer(watch) as url, HttpClient(0.05, BYTES_MAX) as client:
            for _ in range(2):
                calls = (client.get(url) for _ in range(CONNECTIONS_MAX + 8))
                results = await asyncio.gather(*calls, return_exceptions=True)
                assert all(isinstance(result, HttpUnavailableError) for result in results)
            for turns in range(20):
                call = asyncio.ensure_future(client.get(url))
                for _ in range(turns):
                    await asyncio.sleep(0)
                call.cancel()
                with contextlib.suppress(asyncio.CancelledError, HttpError):
                    await call
            assert (await client.get(f"{url}/good", deadline_s=5.0)).body == b"ok"
            async with asyncio.timeout(5):
                while len(held) > 1:  # all but the good one
                    await asyncio.sleep(0.01)
            answers = await asyncio.gather(*(client.get(f"{url}/good", deadline_s=5.0) for _ in range(CONNECTIONS_MAX)))
            assert [answer.body for answer in answers] == [b"ok"] * CONNECTIONS_MAX

    asyncio.run(run())


def test_a_cancelled_call_is_cancelled_and_not_an_error() -> None:
    async def run() -> None:
        async with peer(says(hold=True)) as url, HttpClient(5.0, BYTES_MAX) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await client.get(url)

    asyncio.run(run())


def test_a_request_asks_for_no_encoding_sends_its_headers_and_stores_no_cookie(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    requests: list[bytes] = []

    async def record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await reader.readuntil(b"\r\n\r\n")
            if b"PUT" in request:
                request += await reader.readexactly(7)
            requests.append(request)
            writer.write(head(Content_Length="0", Set_Cookie="a=b"))

    async def run() -> None:
        async with peer(record) as url, HttpClient(5.0, BYTES_MAX) as client:
            await client.get(f"{url}/quote")
            await client.put(f"{url}/faults", b'{"a":1}', {"authorization": "Bearer t"})

    asyncio.run(run())
    get, put = (request.lower() for request in requests)
    assert get.startswith(b"get /quote http/1.1\r\n")
    assert put.startswith(b"put /faults http/1.1\r\n")
    assert put.endswith(b'{"a":1}')
    assert b"authorization: bearer t\r\n" in put
    assert b"content-type: application/json\r\n" in put
    for request in (get, put):
        assert b"accept-encoding: identity\r\n" in request
        assert b"x-deadline-ms: 5000\r\n" in request
        assert b"cookie" not in request


def test_the_upstream_learns_the_time_left_and_never_more_than_the_caller_has() -> None:
    requests: list[bytes] = []

    async def record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(head(Content_Length="0"))

    async def run() -> None:
        deadline = Deadline.after(60.0, time.monotonic)
        async with peer(record) as url, HttpClient(300.0, BYTES_MAX) as client, deadline.enforced():
            await client.get(url)

    asyncio.run(run())
    left_ms = int(requests[0].lower().partition(b"x-deadline-ms: ")[2].partition(b"\r\n")[0])
    assert 0 < left_ms <= 60_000


def two_in_one(first: bytes, second: bytes) -> tuple[list[int], Handler]:
    """A peer that sends `second` in the packet of its first answer, and says which connection asked what."""
    connections: list[int] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(0)
        while await reader.readuntil(b"\r\n\r\n"):
            connections[-1] += 1
            first_ever = connections == [1]
            writer.write(first + second if first_ever else head(Content_Length="4") + b"true")

    return connections, handle


@pytest.mark.parametrize(
    "first",
    [
        head(Content_Length="5") + b"first",
        head("204 No Content"),
        head("304 Not Modified", Content_Length="5"),
        head(Transfer_Encoding="chunked") + b"5\r\nfirst\r\n0\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" + head(content_length="5") + b"first",
    ],
)
@pytest.mark.parametrize("second", [head(Content_Length="5") + b"false", b"\r\n", b"HTTP/1.1 2"])
def test_bytes_after_an_answer_are_never_taken_for_the_next_answer(first: bytes, second: bytes) -> None:
    connections, handler = two_in_one(first, second)

    async def run() -> None:
        async with peer(handler) as url, HttpClient(5.0, BYTES_MAX) as client:
            await client.get(url)
            assert (await client.get(url)).body == b"true"
            assert (await client.get(url)).body == b"true"

    asyncio.run(run())
    assert connections == [1, 2]


def test_the_framing_of_an_answer_is_bounded_like_the_answer() -> None:
    extension = b"1;" + b"e" * 1_000 + b"\r\nx\r\n"
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head(Transfer_Encoding="chunked"))
        while sent < 50_000_000:
            writer.write(b"1;" + b"e" * 60_000 + b"\r\n" if sent else extension)
            await writer.drain()
            sent += 60_000

    with pytest.raises(HttpUnavailableError):
        ask(flood, deadline_s=30.0)
    assert sent < 20_000_000
