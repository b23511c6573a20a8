"""What only a real server can do to a bus: freeze, refuse, answer late, or be something else."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from tests.conftest import free_port
from tests.contract.conftest import Server, end, start, start_valkey
from tests.contract.test_bus import DEADLINE_S, answered, take, url

from cotacoes.adapters.redis_bus import RedisBus
from cotacoes.errors import BusTimedOutError, BusUnavailableError, SettingError
from cotacoes.patterns.pub_sub.bus import MESSAGE_BYTES_MAX
from cotacoes.up import embedded_servers

SHORT_DEADLINE_S = 0.05
HUNG_S = 30.0  # a frozen server never answers: what ends before this was ended by its deadline, on any machine


@pytest.fixture(autouse=True)
async def no_task_outlives_its_test() -> AsyncIterator[None]:
    yield
    assert [task for task in asyncio.all_tasks() if "TestRunner" not in repr(task.get_coro())] == []


async def test_a_frozen_server_fails_a_publish_by_its_deadline_and_no_reply_is_ever_mixed_up(valkey: Server) -> None:
    async with RedisBus(url(valkey), deadline_s=SHORT_DEADLINE_S) as bus, bus.subscribe(["heard"]) as messages:
        assert await bus.publish([("heard", b"first")]) == [1]
        valkey.freeze()
        for _ in range(3):
            async with asyncio.timeout(HUNG_S):
                with pytest.raises(BusTimedOutError, match="within 50 ms"):
                    await bus.publish([("heard", b"late")])
        valkey.thaw()
        assert await answered(bus, [("nobody", b"x")] * 3) == [0, 0, 0], "these are the answers of a call given up"
        assert await answered(bus, [("heard", b"last")]) == [1]
        heard = [(await take(messages, 1))[0][1]]
        while heard[-1] != b"last":
            heard.append((await take(messages, 1))[0][1])
        assert heard[0] == b"first"
        assert set(heard[1:-1]) <= {b"late"}


async def test_data_that_a_frozen_server_did_not_read_is_released(valkey: Server) -> None:
    large = [("one", bytes(MESSAGE_BYTES_MAX))] * 16  # more than the kernel holds for a link
    async with RedisBus(url(valkey), deadline_s=SHORT_DEADLINE_S) as bus:
        await answered(bus, [("one", b"x")])
        valkey.freeze()
        open_before = psutil.Process().num_fds()
        for _ in range(5):
            with pytest.raises(BusUnavailableError):
                await bus.publish(large)
        await asyncio.sleep(0)  # a transport closes its socket in the next turn
        await asyncio.sleep(0)
        assert psutil.Process().num_fds() <= open_before


async def test_a_cancelled_publish_leaves_no_reply_behind(valkey: Server) -> None:
    async with RedisBus(url(valkey), deadline_s=DEADLINE_S) as bus, bus.subscribe(["heard"]):
        await bus.ping()
        for delay_turns in range(12):
            call = asyncio.create_task(bus.publish([("heard", b"x")] * 5))
            for _ in range(delay_turns):
                await asyncio.sleep(0)
            call.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await call
            assert await bus.publish([("nobody", b"x")] * 2) == [0, 0]


async def test_a_silent_link_is_found_dead_in_time(valkey: Server) -> None:
    bus = RedisBus(url(valkey), deadline_s=DEADLINE_S, idle_s=0.1, pong_s=0.2)
    async with bus, bus.subscribe(["one"]) as messages:
        valkey.freeze()
        started = time.monotonic()
        async with asyncio.timeout(HUNG_S):
            with pytest.raises(BusUnavailableError, match="dead"):
                await take(messages, 1)
        assert time.monotonic() - started >= 0.3


async def test_a_quiet_link_that_answers_is_kept(valkey: Server) -> None:
    bus = RedisBus(url(valkey), deadline_s=DEADLINE_S, idle_s=0.02, pong_s=1.0)
    async with bus, bus.subscribe(["one"]) as messages:
        next_one = asyncio.create_task(take(messages, 1))
        await asyncio.wait([next_one], timeout=1.5)  # longer than a link without answers would last
        assert not next_one.done()
        await bus.publish([("one", b"x")])
        assert await next_one == [("one", b"x")]


async def test_a_port_where_nobody_speaks_redis_is_unavailable_not_a_crash() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with server, RedisBus(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}", deadline_s=1.0) as bus:
        with pytest.raises(BusUnavailableError):
            await bus.ping()


@pytest.mark.parametrize(
    "junk",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",  # hiredis raises an error that is not of redis
        b":1\r\n",
        b"$-1\r\n",
        b"*0\r\n",
        b"*2\r\n$7\r\nmessage\r\n$3\r\none\r\n",
        b"*3\r\n$7\r\nmessage\r\n$3\r\n\xff\xfe\xfd\r\n$1\r\nx\r\n",
    ],
)
async def test_any_other_server_than_redis_is_unavailable_to_a_listener_and_to_a_publisher(junk: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            if b"SUBSCRIBE" in await reader.read(4096):
                writer.write(b"*3\r\n$9\r\nsubscribe\r\n$3\r\none\r\n:1\r\n")
            writer.write(junk)
            await reader.read()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        address = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with RedisBus(address, deadline_s=1.0, idle_s=0.1, pong_s=0.1) as bus:
            with pytest.raises(BusUnavailableError):
                async with bus.subscribe(["one"]) as messages:
                    await take(messages, 1)
            with contextlib.suppress(BusUnavailableError):  # `:1` is an answer
                assert await bus.publish([("one", b"x")]) == [1]


async def test_an_error_in_the_middle_of_listening_ends_it() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"one\r\n")
        writer.write(
            b"*3\r\n$9\r\nsubscribe\r\n$3\r\none\r\n:1\r\n" + b"*3\r\n$7\r\nmessage\r\n$3\r\none\r\n$2\r\nhi\r\n"
        )
        writer.write(b"-ERR no more\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    address = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, RedisBus(address, deadline_s=1.0) as bus, bus.subscribe(["one"]) as messages:
        assert await take(messages, 1) == [("one", b"hi")]
        with pytest.raises(BusUnavailableError, match="refused"):
            await take(messages, 1)


async def test_messages_that_come_one_after_the_other_are_read_together(valkey: Server) -> None:
    loop = asyncio.get_running_loop()
    reads: list[float] = []
    has_turned = asyncio.Event()
    has_turned.set()

    async def noted(messages: AsyncIterator[tuple[str, bytes]]) -> AsyncIterator[tuple[str, bytes]]:
        """Note the time of each message before which the event loop has turned, since the bus has read."""
        async for message in messages:
            if has_turned.is_set():
                reads.append(loop.time())
                has_turned.clear()
                loop.call_soon(has_turned.set)
            yield message

    bus = RedisBus(url(valkey), deadline_s=DEADLINE_S, read_every_s=0.2)
    async with bus, bus.subscribe(["heard"]) as messages:
        taking = asyncio.create_task(take(noted(messages), 100))
        for number in range(100):
            await bus.publish([("heard", b"%d" % number)])
            await asyncio.sleep(0.005)
        assert await taking == [("heard", b"%d" % number) for number in range(100)]
    assert len(reads) > 2
    assert all(later - earlier >= 0.19 for earlier, later in itertools.pairwise(reads))


async def test_a_command_refused_among_others_leaves_no_reply_behind(valkey: Server) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", valkey.port)
    writer.write(b"ACL SETUSER limited on >secret resetchannels &heard +@all\r\n")
    assert await reader.readline() == b"+OK\r\n"
    writer.close()
    await writer.wait_closed()
    limited = f"redis://limited:secret@127.0.0.1:{valkey.port}"
    async with RedisBus(limited, deadline_s=DEADLINE_S) as bus, bus.subscribe(["heard"]):
        with pytest.raises(BusUnavailableError, match="refused the command"):
            await bus.publish([("other", b"x"), ("other", b"x")])
        assert await bus.publish([("heard", b"x")]) == [1]


async def test_a_refused_password_is_reported_and_not_taken_for_a_missing_server(valkey: Server) -> None:
    async with RedisBus(f"redis://:hunter2@127.0.0.1:{valkey.port}", deadline_s=DEADLINE_S) as bus:
        with pytest.raises(BusUnavailableError, match="refused the user or the password"):
            await bus.ping()


@pytest.mark.parametrize(
    "query", ["protocol=3", "decode_responses=1", "socket_timeout=0.001", "health_check_interval=1"]
)
async def test_no_query_of_a_url_makes_a_listener_deaf(valkey: Server, query: str) -> None:
    async with RedisBus(f"{url(valkey)}/3?{query}", deadline_s=DEADLINE_S) as bus, bus.subscribe(["one"]) as messages:
        assert await bus.publish([("one", b"x")]) == [1]
        assert await take(messages, 1) == [("one", b"x")]


async def test_no_error_carries_the_password_of_the_url() -> None:
    async with RedisBus(f"redis://user:hunter2@127.0.0.1:{free_port()}", deadline_s=1.0) as bus:
        with pytest.raises(BusUnavailableError) as caught:
            await bus.ping()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("end", [":none", ":1?socket_timeout=soon", ":1?nonsense=1"])
async def test_an_invalid_url_is_refused_by_the_name_of_its_setting(end: str) -> None:
    with pytest.raises(SettingError, match="COTACOES_REDIS_URL"):
        RedisBus(f"redis://127.0.0.1{end}", deadline_s=1.0)


async def test_a_valkey_with_a_password_lets_nobody_publish_without_it(tmp_path: Path) -> None:
    file, port = tmp_path / "valkey.conf", free_port()
    embedded_servers.require_password_of_valkey(file, "hunter2")
    server = start(
        embedded_servers.valkey_command(tmp_path, port, file),
        port,
        lambda _: embedded_servers.valkey_is_ready(port, "hunter2"),
    )
    try:
        assert not embedded_servers.valkey_is_ready(port)
        async with RedisBus(embedded_servers.valkey_url(port, "hunter2"), deadline_s=DEADLINE_S) as bus:
            await bus.ping()
        for url in (f"redis://127.0.0.1:{port}", embedded_servers.valkey_url(port, "hunter3")):
            async with RedisBus(url, deadline_s=DEADLINE_S) as stranger:
                with pytest.raises(BusUnavailableError):
                    await stranger.publish([("cotacoes:bitcoin", b'{"price":"1.00"}')])
    finally:
        end(server)


async def test_a_dump_of_a_newer_server_does_not_prevent_a_start(tmp_path: Path) -> None:
    (tmp_path / "dump.rdb").write_bytes(b"REDIS0099")
    end(start_valkey(tmp_path, free_port()))
