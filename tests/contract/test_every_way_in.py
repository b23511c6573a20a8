"""Every way into a service, over real sockets: framework, lean, direct, stream, WebSocket, and what no app ever sees.

What holds for one of them holds for all: whom they answer, the shape of a refusal, the headers beside it.
"""

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog
from fastapi import APIRouter
from tests.harness_http_server import connect, exchange, read_to_end, serving
from tests.unit.harness_gateway_stream import StreamRig

from cotacoes import config
from cotacoes.adapters.http_server.accepting import ConnectionLimits, client_of
from cotacoes.adapters.http_server.connection import ASGIApp, Receive, Scope, Send
from cotacoes.adapters.http_server.hosts import AllowedHosts
from cotacoes.errors import ProblemError
from cotacoes.errors.problem_json import SAFETY_HEADERS
from cotacoes.gateway_service.admission import Admission
from cotacoes.gateway_service.event_stream import EventStreams
from cotacoes.observability.metrics import Metrics
from cotacoes.web.app import build_app

UPGRADE = "upgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-version: 13\r\n"
KEY = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
WAYS = {
    "framework": ("/livez", ""),
    "lean": ("/lean/bitcoin", ""),
    "direct": ("/direct", ""),
    "stream": ("/v1/stream?coins=bitcoin", ""),
    "websocket": ("/v1/ws", UPGRADE + KEY),
}
PROBLEM = "application/problem+json"


class Answer:
    """The head of an answer, and its body if it is JSON."""

    def __init__(self, received: bytes) -> None:
        head, _, body = received.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split()[1])
        self.headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        self.problem: dict[str, Any] = {}
        if self.headers.get("content-type") == PROBLEM:
            self.problem = json.loads(body)

    def assert_problem(self, status: int, slug: str) -> None:
        assert (self.status, self.problem["status"]) == (status, status)
        assert self.problem["type"] == f"/docs#{slug}"
        assert_safe(self)


def assert_safe(answer: Answer) -> None:
    assert {name: answer.headers.get(name) for name in SAFETY_HEADERS} == SAFETY_HEADERS


async def direct(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"{}"})


def app_of(rig: StreamRig, streams: ASGIApp | None = None) -> ASGIApp:
    router = APIRouter()

    @router.put("/put")
    async def put(body: dict[str, int]) -> int:
        return len(body)

    def lean(coin: str) -> bytes:
        if coin == "bug":
            raise ZeroDivisionError("hunter2")
        return b"{}"

    return build_app(
        "test",
        rig.settings,
        Metrics(),
        router,
        lean={"/lean": lean},
        direct={"/direct": direct},
        streams={"/v1/stream": streams or EventStreams(rig.hub, rig.admission, rig.settings, clock=rig.loop.time)},
    )


@contextlib.asynccontextmanager
async def service(
    limits: ConnectionLimits = ConnectionLimits(),  # noqa: B008  # frozen
    **settings: Any,
) -> AsyncIterator[tuple[int, list[str], StreamRig]]:
    """A service with every way in: its port, what it refused, and its streams."""
    rig, refused = StreamRig(**settings), list[str]()
    async with serving(app_of(rig), websocket=rig.sockets.protocol, note_refused=refused.append, limits=limits) as port:
        yield port, refused, rig


async def first_of(port: int, request: str) -> Answer:
    """The head of the answer, and as much of its body as it announces."""
    reader, writer = await connect(port)
    try:
        writer.write(request.encode("latin-1"))
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
            length = dict(Answer(head.replace(b"problem+json", b"x")).headers).get("content-length", "0")
            return Answer(head + await reader.readexactly(int(length)))
    finally:
        writer.transport.abort()


def request(way: str, *hosts: str, target: str = "") -> str:
    path, headers = WAYS[way]
    lines = "".join(f"host: {host}\r\n" for host in hosts)
    return f"GET {target or path} HTTP/1.1\r\n{lines}{headers}\r\n"


@pytest.mark.parametrize("way", WAYS)
async def test_every_answer_has_the_headers_that_keep_browsers_from_misusing_it(way: str) -> None:
    async with service() as (port, _, _):
        answer = await first_of(port, request(way, "x"))
        assert answer.status == (101 if way == "websocket" else 200)
        if way != "websocket":  # it is no document
            assert_safe(answer)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "x.evil.example", "127.0.0.2", "[::2]:80"])
async def test_a_request_that_names_another_host_is_misdirected(way: str, host: str) -> None:
    """A page that points its own name at this machine would read what is answered."""
    async with service() as (port, refused, _):
        answer = await first_of(port, request(way, host))
        answer.assert_problem(421, "misdirected-request")
        assert "COTACOES_ALLOWED_HOSTS" in answer.problem["detail"]
        assert refused == ["misdirected_request"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scheme", ["http", "https", "HTTP"])
async def test_the_host_of_an_absolute_target_counts_too(way: str, scheme: str) -> None:
    async with service() as (port, _, _):
        path = WAYS[way][0]
        answer = await first_of(port, request(way, "x", target=f"{scheme}://evil.example{path}"))
        answer.assert_problem(421, "misdirected-request")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "hosts", [(), ("x", "x"), ("x", "evil.example"), ("",), ("x y",), ("x:y",), ("a@x",), ("x,y",)]
)
async def test_a_request_names_exactly_one_host(way: str, hosts: tuple[str, ...]) -> None:
    async with service() as (port, _, _):
        (await first_of(port, request(way, *hosts))).assert_problem(400, "malformed-request")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8002", "[::1]:9", "box.example:80"])
def test_loopback_the_services_own_address_and_listed_names_are_hosts_with_any_port(host: str) -> None:
    settings = config.load({}, host="10.0.0.1", allow_public=True, allowed_hosts="box.example,quote_service")
    hosts = AllowedHosts(settings.hosts)
    for _ in range(2):  # the second time it is known
        assert hosts.refusal([(b"host", host.encode())], b"/") is None
    assert hosts.refusal([(b"host", b"10.0.0.1:8000")], b"/") is None
    assert hosts.refusal([(b"host", b"box.example.evil.example")], b"/") is not None


def test_only_a_limited_number_of_hosts_is_remembered() -> None:
    hosts = AllowedHosts(["x"])
    for port in range(60_000):
        hosts.refusal([(b"host", b"x:%d" % port)], b"/")
    assert len(hosts._seen) < 1_000


@pytest.mark.parametrize("origin", ["http://[", "http://", "://", "null", "[", "http://x:y:z", "\xff", "http://evil"])
@pytest.mark.parametrize("way", ["stream", "websocket"])
async def test_an_invalid_origin_is_refused_properly_and_not_logged(way: str, origin: str) -> None:
    with structlog.testing.capture_logs() as logs:
        async with service() as (port, _, _):
            given = request(way, "x").replace("\r\n\r\n", f"\r\norigin: {origin}\r\n\r\n")
            (await first_of(port, given)).assert_problem(403, "forbidden")
    assert logs == []


HANDSHAKES = {
    "no key": UPGRADE,
    "no version": UPGRADE.replace("sec-websocket-version: 13\r\n", "") + KEY,
    "another version": UPGRADE.replace("13", "12") + KEY,
    "two versions": UPGRADE + KEY + "sec-websocket-version: 13\r\n",
    "two keys": UPGRADE + KEY + KEY,
    "a short key": UPGRADE + "sec-websocket-key: aGk=\r\n",
    "an invalid key": UPGRADE + "sec-websocket-key: \xff\r\n",
    "a long header": UPGRADE + KEY + "cookie: " + "c" * 9_000 + "\r\n",
    "many headers": UPGRADE + KEY + "".join(f"h{number}: x\r\n" for number in range(200)),
    "a body": UPGRADE + KEY + "content-length: 5\r\n",
    "a body in chunks": UPGRADE + KEY + "transfer-encoding: chunked\r\n",
    "extensions": UPGRADE + KEY + "sec-websocket-extensions: ;;;=\r\n",
    "protocols": UPGRADE + KEY + "sec-websocket-protocol: ,,\x01\r\n",
    "words in latin-1": UPGRADE + KEY + "user-agent: \xe9\xff\r\n",
}


@pytest.mark.parametrize("case", HANDSHAKES)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_invalid_handshake_gets_a_proper_answer(method: str, case: str) -> None:
    with structlog.testing.capture_logs() as logs:
        async with service() as (port, refused, _):
            answer = await first_of(port, f"{method} /v1/ws HTTP/1.1\r\nhost: x\r\n{HANDSHAKES[case]}\r\n")
            if answer.status != 101:
                answer.assert_problem(answer.status, answer.problem["type"].removeprefix("/docs#"))
                assert answer.status in ({426} if "version" in case and method == "GET" else {400, 405})
                assert len(refused) == 1
    assert logs == []


async def test_an_internal_error_is_answered_alike_everywhere_with_the_id_that_the_log_has() -> None:
    async def crash(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError("hunter2")

    class BrokenAdmission(Admission):
        def refusal(self, origin: str | None, host: str | None, address: str) -> ProblemError | None:
            raise ZeroDivisionError("hunter2")

    rig = StreamRig(admission=BrokenAdmission)
    with structlog.testing.capture_logs() as logs:
        async with serving(app_of(rig, streams=crash), websocket=rig.sockets.protocol) as port:
            answers = [await first_of(port, request("lean", "x", target="/lean/bug"))]
            answers += [await first_of(port, request(way, "x")) for way in ("stream", "websocket")]
    for answer in answers:
        answer.assert_problem(500, "internal")
        assert "hunter2" not in str(answer.problem)
    assert [log["request_id"] for log in logs] == [answer.problem["request_id"] for answer in answers]


@pytest.mark.parametrize(
    ("sent", "status", "slug"),
    [
        ("nonsense\r\n\r\n", 400, "malformed-request"),
        ("GET / HTTP/1.1\r\nhost: x\r\nh: " + "y" * 40_000, 431, "headers-too-large"),
        ("CONNECT x:80 HTTP/1.1\r\nhost: x\r\n\r\n", 400, "malformed-request"),
        ("PUT /put HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400, "malformed-request"),
    ],
    ids=["no request", "large head", "no target", "no chunk"],
)
async def test_requests_that_no_app_sees_are_refused_properly(sent: str, status: int, slug: str) -> None:
    async with service() as (port, refused, _):
        answer = await first_of(port, sent)
        answer.assert_problem(status, slug)
        assert answer.headers["connection"] == "close"
        assert refused == [slug.replace("-", "_")]


def send_all_then_read(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for start in range(0, len(request), 8_192):  # so that a reset meets a send
            connection.sendall(request[start : start + 8_192])
        received = b""
        while chunk := connection.recv(65_536):
            received += chunk
        return received


@pytest.mark.parametrize("announced", [True, False])
async def test_a_refusal_arrives_although_the_client_sends_everything_before_it_reads(announced: bool) -> None:
    """A connection that is closed with bytes unread is reset: most clients then report that, and not the answer."""
    body = b"x" * 400_000
    if announced:
        head, sent = f"content-length: {len(body)}", body
    else:
        head, sent = "transfer-encoding: chunked", b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    async with service() as (port, _, _):
        for _ in range(20):
            request = f"PUT /put HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n".encode() + sent
            Answer(await asyncio.to_thread(send_all_then_read, port, request)).assert_problem(413, "too-large")


async def test_an_answer_repeats_only_part_of_what_a_caller_sent() -> None:
    async with service() as (port, _, _):
        name = "n" * 50_000
        body = json.dumps({name: "x"})
        head = f"PUT /put HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        answer = await first_of(port, f"{head}\r\n{body}")
        answer.assert_problem(422, "bad-request")
        assert len(answer.problem["detail"]) < 300


async def test_one_address_cannot_take_all_connections() -> None:
    async with service(limits=ConnectionLimits(total=6, per_address=3)) as (port, refused, _):
        held = [await connect(port) for _ in range(3)]
        for reader, writer in held:
            writer.write(request("framework", "x").encode())
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
        Answer(await exchange(port, b"")).assert_problem(503, "overloaded")
        assert refused == ["connections_of_address"]
        held[0][1].transport.abort()
        async with asyncio.timeout(5):
            while Answer(await exchange(port, request("framework", "x", "x").encode())).status == 503:
                await asyncio.sleep(0.01)
        for _, writer in held:
            writer.transport.abort()


@pytest.mark.parametrize(
    ("streams", "per_address", "limits"),
    [
        (2_000, 1_000, ConnectionLimits(4_000, 3_000)),
        (2_000, 2_000, ConnectionLimits(4_000, 4_000)),
        (2_000, 10, ConnectionLimits(4_000, 2_010)),
        (10, 1_000, ConnectionLimits(4_000, 4_000)),
        (50_000, 1_000, ConnectionLimits(100_000, 51_000)),
    ],
)
def test_one_address_leaves_the_others_the_connections_for_their_streams(
    streams: int, per_address: int, limits: ConnectionLimits
) -> None:
    assert ConnectionLimits.beside_streams(streams, per_address) == limits


def test_all_addresses_of_one_client_count_as_one() -> None:
    assert client_of("10.0.0.1") == client_of("::ffff:10.0.0.1") == "10.0.0.1"
    assert client_of("2001:db8::1") == client_of("2001:db8::ffff:1") != client_of("2001:db8:0:1::1")
    assert client_of("fe80::1%eth0") == client_of("fe80::2%eth0")


@pytest.mark.parametrize("way", ["stream", "websocket"])
async def test_one_address_cannot_take_all_streams(way: str) -> None:
    async with service(streams_max=10, streams_per_address_max=2) as (port, _, rig):
        held = [await connect(port) for _ in range(2)]
        for reader, writer in held:
            writer.write(request(way, "x").encode())
            await reader.readuntil(b"\r\n\r\n")
        answer = await first_of(port, request(way, "x"))
        answer.assert_problem(503, "overloaded")
        assert "COTACOES_STREAMS_PER_ADDRESS_MAX" in answer.problem["detail"]
        assert "retry-after" in answer.headers
        assert rig.metrics.streams_refused.labels(reason="address")._value.get() == 1
        held[0][1].transport.abort()
        async with asyncio.timeout(5):
            while (await first_of(port, request(way, "x"))).status == 503:
                await asyncio.sleep(0.01)
        for _, writer in held:
            writer.transport.abort()


SERVER = """
    import asyncio, os, resource, sys
    from cotacoes.observability.logs import configure_logging
    from cotacoes.adapters.http_server import server as http_server
    from cotacoes.adapters.http_server.hosts import AllowedHosts
    from cotacoes.observability.bounded_log import log_loop_errors

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"{}"})

    async def main():
        log_loop_errors(asyncio.get_running_loop())
        listener = http_server.listen("127.0.0.1", 0)
        refused = []
        asyncio.get_running_loop().call_later(60, os._exit, 1)
        task = asyncio.ensure_future(http_server.serve(
            app, listener, asyncio.Event(), hosts=AllowedHosts(["x"]), note_refused=refused.append))
        while not listener.getsockopt(1, 30):  # SO_ACCEPTCONN
            await asyncio.sleep(0.01)
        highest = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 10, highest + 10))
        print(listener.getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        print(len(refused), flush=True)
        os._exit(0)

    configure_logging("test")
    asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
async def test_without_a_free_descriptor_new_connections_are_refused_and_open_ones_answered() -> None:
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", textwrap.dedent(SERVER)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert server.stdout is not None
    assert server.stdin is not None
    async with asyncio.timeout(50):
        port = int(await server.stdout.readline())
        reader, writer = await connect(port)
        writer.write(request("framework", "x").encode())
        await reader.readuntil(b"{}")
        crowd = [await connect(port) for _ in range(40)]
        turned_away = [await read_to_end(one) for one, _ in crowd[20:]]
        assert turned_away == [b""] * 20
        writer.write(request("framework", "x").encode())
        await reader.readuntil(b"{}")
        for _, one in crowd:
            one.transport.abort()
        assert Answer(await exchange(port, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).status == 200
        writer.transport.abort()
        server.stdin.write(b"\n")
        refused, log = await server.communicate()
    assert int(refused) >= 20
    lines = log.decode().splitlines()
    assert 1 <= len(lines) <= 3
    assert json.loads(lines[0])["event"] == "connection.refused"
