"""One HTTP connection without a socket: what a client sends is read, parsed and held within bounds."""

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.server import ServerState

from cotacoes.adapters.http_server import protocol, reading
from cotacoes.adapters.http_server.connection import HttpConnection, Receive, Scope, Send
from cotacoes.adapters.http_server.context import READ_BYTES_MAX, UNREAD_S, Context
from cotacoes.adapters.http_server.hosts import AllowedHosts
from cotacoes.adapters.http_server.reading import Pieces

HEAD = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
IN_CHUNKS = b"PUT / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"


class NoSocket:
    def getpeername(self) -> tuple[str, int]:
        return ("127.0.0.1", 50_000)

    def getsockname(self) -> tuple[str, int]:
        return ("127.0.0.1", 8000)

    def setsockopt(self, *_: int) -> None:
        raise OSError


class MemoryTransport(asyncio.Transport):
    """Keeps what is written; `is_reading` and `is_cut` are what the protocol asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.reads = True
        self.has_ended = False
        self.is_cut = False
        self.waiting: Iterator[int] = itertools.repeat(0)
        self.looks = 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return NoSocket() if name == "socket" else default

    def get_write_buffer_size(self) -> int:
        self.looks += 1
        return next(self.waiting)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def write(self, data: Any) -> None:
        assert not self.has_ended
        self.written += data

    def write_eof(self) -> None:
        self.has_ended = True

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def is_closing(self) -> bool:
        return self.is_cut

    def close(self) -> None:
        self.is_cut = True

    def abort(self) -> None:
        self.is_cut = True


class Connection:
    """A connection to an app that answers each request once `answer` is set; made inside a running loop."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Any] | None = None, unread_s: float = UNREAD_S) -> None:
        self.scopes: list[Scope] = []
        self.answer = asyncio.Event()
        self.refused: list[str] = []
        self.buffer = memoryview(bytearray(READ_BYTES_MAX))
        config = uvicorn.Config(app or self.app, interface="asgi3", ws="none", lifespan="off", log_config=None)
        config.load()
        context = Context(AllowedHosts(["x"]), self.refused.append, unread_s=unread_s, read_buffer=self.buffer)
        self.transport = MemoryTransport()
        self.ended = 0
        self.protocol = HttpConnection(config, ServerState(), context, self._end)
        self.protocol.connection_made(self.transport)

    def _end(self) -> None:
        self.ended += 1

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        await self.answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    def read(self, data: bytes) -> None:
        """As the event loop does with what has come."""
        assert self.transport.reads
        room = self.protocol.get_buffer(-1)
        assert len(data) <= len(room)
        room[: len(data)] = data
        self.protocol.buffer_updated(len(data))

    @property
    def statuses(self) -> list[int]:
        return [int(part[:3]) for part in bytes(self.transport.written).split(b"HTTP/1.1 ")[1:]]


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_while_an_answer_is_in_progress_nothing_more_is_parsed_and_the_connection_is_not_read() -> None:
    connection = Connection()
    connection.read((HEAD * 1_000)[:READ_BYTES_MAX])
    await turns(20)
    assert len(connection.scopes) == 1
    assert not connection.transport.reads


async def test_requests_that_came_at_once_are_answered_one_per_turn_and_then_reading_resumes() -> None:
    connection = Connection()
    connection.answer.set()
    connection.read(HEAD * 50)
    most = before = 0
    for _ in range(400):
        await asyncio.sleep(0)
        most, before = max(most, len(connection.scopes) - before), len(connection.scopes)
    assert most == 1
    assert connection.statuses == [200] * 50
    assert connection.transport.reads


async def test_the_refusal_of_a_later_request_comes_after_the_answers_to_earlier_ones() -> None:
    connection = Connection()
    connection.read(HEAD * 3 + b"nonsense\r\n\r\n" + HEAD)
    await turns(5)
    assert connection.statuses == []
    connection.answer.set()
    await turns(50)
    assert connection.statuses == [200, 200, 200, 400]


async def test_a_client_that_reads_a_stream_may_send_only_a_limited_number_of_bytes() -> None:
    connection = Connection()
    connection.read(HEAD)
    await turns(2)
    handler = type("Handler", (), {"serve": None, "shut_down": None, "lost": lambda *_, **__: None})()
    connection.scopes[0]["extensions"]["cotacoes.open_stream"]["now"](
        b"HTTP/1.1 200 OK\r\n\r\n", 65_536, lambda _: handler
    )
    for _ in range(10):
        if not connection.transport.is_cut:
            connection.read(b"x" * READ_BYTES_MAX)
    assert connection.transport.is_cut


@pytest.mark.parametrize(
    ("error", "is_unanswered"), [(TimeoutError(), True), (ConnectionResetError(), False), (None, False)]
)
async def test_a_stream_learns_whether_its_client_stopped_acknowledging(
    error: Exception | None, is_unanswered: bool
) -> None:
    heard: list[bool] = []

    class Handler:
        def lost(self, *, is_unanswered: bool) -> None:
            heard.append(is_unanswered)

    connection = Connection()
    connection.read(HEAD)
    await turns(2)
    open_stream = connection.scopes[0]["extensions"]["cotacoes.open_stream"]["now"]
    open_stream(b"HTTP/1.1 200 OK\r\n\r\n", 65_536, lambda _: Handler())
    connection.protocol.connection_lost(error)
    assert heard == [is_unanswered]


@pytest.mark.parametrize(
    ("begin", "flood"),
    [
        (b"1;", b"e" * 16_000),
        (b"", b"1;a=b\r\nx\r\n" * 1_400),
        (b"0\r\n", b"a: b\r\n" * 2_700),
        (b"0\r\na:", b"b" * 16_000),
    ],
    ids=["one extension", "many extensions", "many trailers", "one trailer"],
)
async def test_the_framing_of_a_chunked_body_is_bounded_too(begin: bytes, flood: bytes) -> None:
    connection = Connection()
    connection.read(IN_CHUNKS + begin)
    await turns(2)
    taken = 0
    while not connection.transport.has_ended and taken < 50_000_000:
        connection.read(flood)
        await turns(60)
        taken += len(flood)
    assert taken <= protocol.MESSAGE_BYTES_MAX + 2 * len(flood)
    assert connection.statuses == [413]
    assert connection.refused == ["too_large"]


async def test_after_a_refusal_the_client_is_read_for_a_limited_time_so_that_the_answer_arrives() -> None:
    connection = Connection()
    connection.read(b"nonsense\r\n\r\n")
    assert connection.statuses == [400]
    assert (connection.transport.has_ended, connection.transport.is_cut) == (True, False)
    for _ in range(reading.LINGER_BYTES_MAX // READ_BYTES_MAX + 1):
        connection.read(b"x" * READ_BYTES_MAX)
    assert connection.transport.is_cut
    assert connection.statuses == [400]


async def test_trailers_do_not_become_headers_of_the_request() -> None:
    connection = Connection()
    connection.read(IN_CHUNKS)
    await turns(2)
    connection.read(b"1\r\nx\r\n0\r\nauthorization: Bearer stolen\r\n\r\n")
    assert [name for name, _ in connection.scopes[0]["headers"]] == [b"host", b"transfer-encoding"]


async def test_a_request_for_another_protocol_ends_the_connection_after_its_answer() -> None:
    """Where the other protocol begins is unknown: what follows must not be taken for a request."""
    connection = Connection()
    connection.answer.set()
    upgrade = b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\nconnection: upgrade\r\ncontent-length: 5\r\n\r\n"
    connection.read(upgrade + b"DELETE / HTTP/1.1\r\nhost: x\r\n\r\n")
    await turns(20)
    assert [scope["method"] for scope in connection.scopes] == ["GET"]
    assert b"connection: close" in connection.transport.written


@pytest.mark.parametrize(("waiting", "is_cut"), [([9, 9], True), ([9, 8, 7, 7], True), ([9, 8, 7, 6, 5, 4], False)])
async def test_a_client_that_reads_nothing_of_its_answer_is_cut_and_a_slow_one_is_not(
    waiting: list[int], is_cut: bool
) -> None:
    connection = Connection(unread_s=0.0)
    connection.transport.waiting = itertools.chain(waiting, itertools.count(waiting[-1] - 1, -1))
    connection.protocol.pause_writing()
    while connection.transport.looks < len(waiting):
        assert not connection.transport.is_cut
        await turns(1)
    assert connection.transport.is_cut is is_cut
    connection.protocol.connection_lost(None)


TOKENS = [
    b"GET / HTTP/1.1\r\n",
    b"PUT /x HTTP/1.1\r\n",
    b"GET http://[ HTTP/1.1\r\n",
    b"CONNECT x:80 HTTP/1.1\r\n",
    b"GET / HTTP/1.0\r\n",
    b"host: x\r\n",
    b"content-length: 3\r\n",
    b"transfer-encoding: chunked\r\n",
    b"expect: 100-continue\r\n",
    b"upgrade: websocket\r\nconnection: upgrade\r\n",
    b"connection: close\r\n",
    b"\r\n",
    b"\n",
    b"abc",
    b"3;x=y\r\nabc\r\n",
    b"0\r\n",
    b"a: b\r\n",
]


@pytest.mark.slow
@given(st.lists(st.one_of(st.sampled_from(TOKENS), st.binary(max_size=8)), max_size=30), st.integers(1, 200))
def test_any_bytes_are_answered_properly_or_awaited_and_never_cause_an_internal_error(
    tokens: list[bytes], read_bytes: int
) -> None:
    failures: list[object] = []
    log, handler = logging.getLogger("uvicorn.error"), logging.Handler(logging.ERROR)
    handler.emit = failures.append  # type: ignore[method-assign,assignment]

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        connection = Connection()
        connection.answer.set()
        stream = b"".join(tokens)
        for start in range(0, len(stream), read_bytes):
            if connection.transport.reads and not connection.transport.is_cut:
                connection.read(stream[start : start + read_bytes])
            await turns(3)
        await turns(100)
        assert set(connection.statuses) <= {100, 200, 400, 421}
        assert len([status for status in connection.statuses if status >= 400]) <= 1
        if not connection.transport.is_cut:
            connection.protocol.connection_lost(None)
        await turns(5)

    log.addHandler(handler)
    try:
        asyncio.run(run())
    finally:
        log.removeHandler(handler)
    assert failures == []


async def test_a_connection_reports_its_end_once() -> None:
    connection = Connection()
    connection.read(HEAD * 2)
    await turns(2)
    connection.protocol.connection_lost(None)
    assert connection.ended == 1


REQUESTS = st.lists(
    st.one_of(
        st.just(HEAD),
        st.just(b"\r\n" + HEAD),
        st.just(IN_CHUNKS + b"3\r\na\r\n\r\n0\r\n\r\n"),
        st.binary(max_size=30).map(lambda body: b"PUT / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(body) + body),
    ),
    max_size=5,
)


@given(REQUESTS, st.lists(st.integers(1, 40), min_size=1))
def test_pieces_are_the_bytes_that_were_read_and_each_contains_the_end_of_one_head_at_most(
    requests: list[bytes], reads: list[int]
) -> None:
    """Whatever the reads; the length of a body is known only to the parser, and is left out here."""
    stream = b"".join(requests)
    pieces, at = Pieces(), 0
    taken: list[Any] = []
    while at < len(stream):
        size = reads[len(taken) % len(reads)]
        pieces.add(stream[at : at + size])
        at += size
        while pieces:
            taken.append(pieces.take(None))
    assert b"".join(taken) == stream
    before = b""
    for piece in taken:
        text = before[-3:] + piece
        assert text.find(b"\r\n\r\n") in {-1, len(text) - 4}
        before += piece
