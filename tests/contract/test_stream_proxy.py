"""The proxy does each fault that it says, and nothing else: else what is tested behind it proves nothing."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from tests.contract.harness_stream_proxy import BUFFER_BYTES, StreamProxy

LIMIT_S = 10.0
QUIET_S = 0.2  # in which nothing may come

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def proxy() -> AsyncIterator[StreamProxy]:
    """In front of a server that sends back what it gets."""
    open_ones: set[asyncio.StreamWriter] = set()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_ones.add(writer)
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with StreamProxy(server.sockets[0].getsockname()[1]) as proxy:
        yield proxy
    server.close()
    for writer in open_ones:
        writer.transport.abort()


async def connected(proxy: StreamProxy) -> Connection:
    """A connection over which something has come back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    await said(reader, writer, b"hello")
    return reader, writer


async def said(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> None:
    async with asyncio.timeout(LIMIT_S):
        writer.write(data)
        assert await reader.readexactly(len(data)) == data


async def is_quiet(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(QUIET_S):
            await reader.read(1)
    except TimeoutError:
        return True
    return False


async def test_without_a_fault_all_passes_both_ways(proxy: StreamProxy) -> None:
    reader, writer = await connected(proxy)
    data = bytes(range(256)) * 4096
    writer.write(data)
    async with asyncio.timeout(LIMIT_S):
        assert await reader.readexactly(len(data)) == data
    writer.close()
    async with asyncio.timeout(LIMIT_S):
        assert await reader.read() == b"", "its end passes too"


async def test_in_a_black_hole_connections_stay_open_for_good_and_nothing_passes(proxy: StreamProxy) -> None:
    reader, writer = await connected(proxy)
    proxy.blackhole()
    writer.write(b"x")
    late_reader, late_writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    late_writer.write(b"x")
    assert await is_quiet(reader)
    assert await is_quiet(late_reader)
    proxy.mend()
    assert await is_quiet(reader)
    _, fresh = await connected(proxy)
    for one in (writer, late_writer, fresh):
        one.close()


async def test_a_black_hole_may_leave_new_connections_alone(proxy: StreamProxy) -> None:
    reader, old = await connected(proxy)
    proxy.blackhole(new=False)
    _, fresh = await connected(proxy)
    old.write(b"x")
    assert await is_quiet(reader)
    old.close()
    fresh.close()


async def test_a_reset_is_one(proxy: StreamProxy) -> None:
    reader, writer = await connected(proxy)
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        async with asyncio.timeout(LIMIT_S):
            await reader.read(1)
    writer.close()
    _, fresh = await connected(proxy)
    fresh.close()


async def test_a_cut_comes_behind_its_byte_once(proxy: StreamProxy) -> None:
    reader, writer = await connected(proxy)
    proxy.cut_after(7)
    writer.write(b"0123")
    async with asyncio.timeout(LIMIT_S):
        assert await reader.readexactly(4) == b"0123"
        writer.write(b"456789")
        assert await reader.read() == b"456"
    assert proxy.cuts == 1
    writer.close()
    _, fresh = await connected(proxy)
    fresh.close()


async def test_a_throttled_stream_is_no_faster_and_complete(proxy: StreamProxy) -> None:
    reader, writer = await connected(proxy)
    proxy.throttle(20_000)
    started = time.monotonic()
    await said(reader, writer, b"x" * 10_000)
    assert time.monotonic() - started >= 0.5
    writer.close()


async def test_what_a_throttled_stream_cannot_take_is_held_by_the_sender(proxy: StreamProxy) -> None:
    _, writer = await connected(proxy)
    proxy.throttle(1_000)
    writer.transport.set_write_buffer_limits(0)
    sent = 0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(LIMIT_S):
            while True:
                async with asyncio.timeout(QUIET_S):
                    writer.write(b"x" * BUFFER_BYTES)
                    await writer.drain()
                sent += BUFFER_BYTES
    assert sent < 8_000_000
    writer.transport.abort()


async def test_a_delayed_piece_comes_that_much_later(proxy: StreamProxy) -> None:
    reader, writer = await connected(proxy)
    proxy.delay(0.1)
    started = time.monotonic()
    await said(reader, writer, b"x")
    assert time.monotonic() - started >= 0.2, "there and back"
    proxy.mend()
    writer.close()
