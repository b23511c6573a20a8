"""Why a venue cannot be reached is named in `/v1/venues` in plain words, and logged once."""

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.conftest import free_port
from tests.contract.harness_feed_service import External, Feed, external, feeding

VENUE = "kraken"
NAMED = "x"  # a host that is not this machine, so that a proxy is used; external_service knows it by this name
PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority of its own, `ca.pem`, and a server's certificate, `server.pem` and `server.key`."""
    folder = tmp_path_factory.mktemp("authority")
    (folder / "server.ext").write_text(
        f"basicConstraints=CA:FALSE\nsubjectAltName=IP:127.0.0.1,DNS:{NAMED}\nauthorityKeyIdentifier=keyid\n"
    )
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "server.ext"]
    for command in (
        ["req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=own authority"],
        ["req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=venue"],
        ["x509", "-req", "-in", "server.csr", *signing, "-out", "server.pem"],
    ):
        try:
            subprocess.run(["openssl", *command], cwd=folder, check=True, capture_output=True, timeout=30)
        except FileNotFoundError:
            pytest.skip("there is no openssl on this machine, which makes the certificates")
    return folder


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


async def _join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    """Carry a connection to a port of this machine, both ways, until one side ends it."""
    there, back = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.gather(_pipe(reader, back), _pipe(there, writer))


@contextlib.asynccontextmanager
async def listening(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], **given: Any
) -> AsyncIterator[int]:
    tasks: set[asyncio.Task[None]] = set()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def work() -> None:
            try:
                await handle(reader, writer)
            finally:
                writer.transport.abort()

        tasks.add(asyncio.create_task(work()))

    server = await asyncio.start_server(begin, "127.0.0.1", 0, **given)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def tls(port: int, authority: Path) -> AsyncIterator[int]:
    """The port with TLS before it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "server.pem", authority / "server.key")
    async with listening(lambda reader, writer: _join(reader, writer, port), ssl=context) as secured:
        yield secured


@contextlib.asynccontextmanager
async def proxy(port: int, seen: list[str], answer: str = "200 OK") -> AsyncIterator[int]:
    """A proxy that answers CONNECT, and leads to the port whatever name is asked for."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        seen.append(head.split(b"\r\n", 1)[0].decode())
        writer.write(f"HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n".encode())
        if answer.startswith("200"):
            await _join(reader, writer, port)
        else:
            await writer.drain()
            await reader.read()

    async with listening(serve) as its_port:
        yield its_port


async def is_live(feed: Feed) -> None:
    await feed.wait_for(VENUE, lambda shown: shown["state"] == "live", 20)


async def named(url: str, reason: str, words: str) -> None:
    """Three connections to the address fail for this reason, which is logged once."""
    with capture_logs() as logged:
        async with feeding({VENUE: url}) as feed:
            shown = await feed.wait_for(VENUE, lambda shown: shown["openings"] >= 3, 30)
    closings = [entry for entry in logged if entry["event"] == "venue.closed"]
    assert shown["closed_reason"] == reason
    assert words in shown["closed_text"]
    assert [(entry["reason"], entry["venue"]) for entry in closings] == [(reason, VENUE)]


async def test_a_venue_with_a_certificate_of_an_own_authority_is_followed_once_that_is_named(
    authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with external() as venues, tls(venues.port, authority) as port:
        url = f"wss://127.0.0.1:{port}/venues/{VENUE}/stream"
        await named(url, "tls_failed", "SSL_CERT_FILE")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority / "ca.pem"))
        async with feeding({VENUE: url}) as feed:
            await is_live(feed)


async def test_a_certificate_for_another_name_is_not_trusted(authority: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority / "ca.pem"))
    async with external() as venues, tls(venues.port, authority) as port:
        await named(f"wss://localhost:{port}/venues/{VENUE}/stream", "tls_failed", "not trusted")


async def test_a_venue_is_reached_through_the_proxy_of_the_environment(
    authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority / "ca.pem"))
    seen: list[str] = []
    async with external() as venues, tls(venues.port, authority) as port, proxy(port, seen) as its_port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{its_port}")
        async with feeding({VENUE: f"wss://{NAMED}:443/venues/{VENUE}/stream"}) as feed:
            await is_live(feed)
    assert seen == [f"CONNECT {NAMED}:443 HTTP/1.1"]


@pytest.mark.parametrize("answer", ["403 Forbidden", "407 Proxy Authentication Required", "502 Bad Gateway"])
async def test_a_proxy_that_refuses_is_named(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with proxy(0, [], answer) as its_port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{its_port}")
        await named(f"wss://{NAMED}:443/stream", "proxy_failed", "the proxy of HTTPS_PROXY")


@pytest.mark.parametrize("address", ["http://127.0.0.1:{port}", "http://proxy.invalid:8080"])
async def test_a_proxy_that_is_not_there_is_named(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", address.format(port=free_port()))
    await named(f"wss://{NAMED}:443/stream", "proxy_failed", "the proxy of HTTPS_PROXY")


async def test_this_machine_is_not_reached_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    async with external() as venues, feeding({VENUE: venues.address(VENUE)}) as feed:
        await is_live(feed)


async def test_a_name_that_does_not_resolve_is_named() -> None:
    await named("wss://kraken.invalid/v2", "no_name", "check DNS")


async def test_a_port_that_refuses_is_named() -> None:
    await named(f"ws://127.0.0.1:{free_port()}/v2", "unreachable", "check the network")


@pytest.mark.parametrize("said", [b"220 mail.example ESMTP\r\n", b"", b"HTTP/1.1 200 OK\r\n\r\nhello"])
async def test_what_does_not_speak_websocket_is_named(said: bytes) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()
        writer.close()
        await asyncio.sleep(0.1)

    async with listening(serve) as port:
        if said.startswith(b"HTTP"):
            await named(f"ws://127.0.0.1:{port}/v2", "refused", "(200)")
        else:
            await named(f"ws://127.0.0.1:{port}/v2", "no_websocket", "does not speak WebSocket")


async def refused(venues: External, status: int, retry_after_s: int | None) -> tuple[dict[str, Any], list[Any]]:
    faults = {"refuse": status} | ({} if retry_after_s is None else {"retry_after_s": retry_after_s})
    await venues.set_faults(VENUE, **faults)
    with capture_logs() as logged:
        async with feeding({VENUE: venues.address(VENUE)}) as feed:
            await feed.wait_for(VENUE, lambda shown: shown["closed_reason"], 10)
            await asyncio.sleep(2)
            shown = await feed.venue(VENUE)
            ready = await feed.get("/readyz")
    # a venue that is away is named, and does not make the service unready
    assert (ready["ready"], ready["checks"][VENUE]["ok"]) == (True, False)
    assert ready["checks"][VENUE]["reason"].endswith(shown["closed_text"])
    return shown, [entry["reason"] for entry in logged if entry["event"] == "venue.closed"]


@pytest.mark.parametrize(
    ("status", "retry_after_s", "reason", "words"),
    [
        (403, None, "blocked", "country or network"),
        (451, None, "blocked", "may not serve your country"),
        (429, 60, "rate_limited", "too many connections"),
        (418, None, "banned", "banned this address"),
        (503, 60, "unavailable", "is unavailable (503)"),
        (404, None, "refused", "refused the connection (404)"),
    ],
)
async def test_a_venue_that_refuses_is_named_and_its_wait_obeyed(
    status: int, retry_after_s: int | None, reason: str, words: str
) -> None:
    async with external() as venues:
        shown, logged = await refused(venues, status, retry_after_s)
    assert (shown["closed_reason"], logged) == (reason, [reason])
    assert words in shown["closed_text"]
    if retry_after_s is not None or status == 418:
        assert shown["openings"] == 1
    else:
        assert shown["openings"] > 1
