"""Calls to PostgreSQL that fail: each ends in time with one of our errors, and the next one succeeds."""

import asyncio
import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from tests.contract.conftest import psql
from tests.contract.harness_fault_proxy import FaultProxy

from cotacoes.adapters.postgres.pool import Pool, Session
from cotacoes.adapters.postgres.shard import PostgresShard
from cotacoes.adapters.postgres.wire import Framing, NotPostgresError
from cotacoes.errors import (
    InternalError,
    SettingError,
    ShardTimedOutError,
    ShardUnavailableError,
)

pytestmark = pytest.mark.anyio

DEADLINE_S = 5.0


async def unchecked(_: Any) -> None:
    pass


def pool_of(dsn: str, deadline_s: float = DEADLINE_S) -> Pool:
    return Pool("shard1", dsn, deadline_s=deadline_s, check=unchecked)


@pytest.fixture
async def proxy(migrated: str) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(migrated) as proxy:
        yield proxy


@pytest.mark.parametrize("kind", ["pool", "session"])
async def test_a_reply_and_the_deadline_in_one_turn_of_the_loop_give_either_of_the_two(
    migrated: str, kind: str
) -> None:
    """The process was stopped: the reply to one step of a statement is read when the deadline has passed."""
    deadline_s = 0.1
    ends = []
    for turns in range(1, 21):  # of the loop, in which the statement comes to another one of its steps each time
        asked: Pool | Session = pool_of(migrated, deadline_s)
        if kind == "session":
            asked = Session("shard1", migrated, connect_s=DEADLINE_S, deadline_s=deadline_s)
        async with asked:
            with contextlib.suppress(ShardTimedOutError):  # on a machine that is busy
                await asked.fetch("SELECT 1")
            call = asyncio.create_task(asked.fetch("SELECT 2"))
            for _ in range(turns):
                await asyncio.sleep(0)
            time.sleep(deadline_s + 0.02)  # noqa: ASYNC251  # the loop stands still, and the server answers
            try:
                ends.append([tuple(row) for row in await call])
            except ShardTimedOutError:
                ends.append([])
    assert [end for end in ends if end not in ([], [(2,)])] == []
    assert [] in ends


async def test_every_error_of_the_library_becomes_one_of_ours(migrated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its origin decides, as no list of the library's errors is ever complete."""
    own = asyncpg.Connection.fetch
    for raised in (
        AttributeError("'NoneType' object has no attribute 'bind_execute'"),
        asyncpg.InternalClientError("got result for unknown protocol state 7"),
        RuntimeError("unable to perform operation on a closed transport"),
        KeyError("x"),
        TimeoutError(),
    ):

        async def failing(connection: Any, *arguments: Any, error: Exception = raised, own: Any = own) -> Any:
            await own(connection, *arguments)
            raise error

        async with pool_of(migrated) as pool:
            with monkeypatch.context() as patch:
                patch.setattr(asyncpg.Connection, "fetch", failing)
                with pytest.raises(ShardUnavailableError):
                    await pool.fetch("SELECT 1")
            assert await pool.fetch("SELECT 1") == [(1,)]  # on another connection


async def test_a_call_with_wrong_arguments_is_a_bug_and_not_an_absent_shard(migrated: str) -> None:
    async with pool_of(migrated) as pool, Session("shard1", migrated, connect_s=5.0, deadline_s=5.0) as session:
        for asked in (pool, session):
            with pytest.raises(InternalError, match="shard1"):
                await asked.fetch("SELECT $1::integer", "no number")
            with pytest.raises(InternalError, match="shard1"):
                await asked.fetch("SELECT $1::integer")
        assert await pool.fetch("SELECT $1::integer", 1) == [(1,)]


async def test_a_cancelled_call_opens_no_second_connection_and_ends_its_own(proxy: FaultProxy) -> None:
    async with pool_of(proxy.dsn, 0.3) as pool:
        await answered(pool)
        taken = proxy.taken
        proxy.freeze()
        with pytest.raises(ShardTimedOutError, match=r"did not answer within 0\.3 s"):
            await pool.fetch("SELECT 2")
        proxy.thaw()
        await until(lambda: proxy.links == 0)
        assert proxy.taken == taken
    async with pool_of(proxy.dsn, 60.0) as pool:
        await answered(pool)
        taken, sent = proxy.taken, proxy.passed["client"]
        call = asyncio.create_task(pool.fetch("SELECT pg_sleep(60)"))
        await until(lambda: proxy.passed["client"] > sent)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(lambda: proxy.links == 0)
        assert proxy.taken == taken


async def test_a_transaction_on_a_frozen_server_ends_by_its_deadline(proxy: FaultProxy) -> None:
    """Its beginning, its statements and its end are all bounded."""
    async with Session("shard1", proxy.dsn, connect_s=5.0, deadline_s=0.3) as session:
        proxy.freeze()
        with pytest.raises(ShardTimedOutError):
            async with asyncio.timeout(DEADLINE_S), session.transaction():
                pass
        proxy.thaw()
    async with Session("shard1", proxy.dsn, connect_s=5.0, deadline_s=0.3) as session:
        with pytest.raises(ShardTimedOutError):
            async with asyncio.timeout(DEADLINE_S), session.transaction():
                await session.execute("CREATE TABLE half_done (n integer)")
                proxy.freeze()
        proxy.thaw()
    async with Session("shard1", proxy.dsn, connect_s=5.0, deadline_s=5.0) as session:
        with pytest.raises(ZeroDivisionError):
            async with session.transaction():
                await session.execute("CREATE TABLE undone (n integer)")
                raise ZeroDivisionError
        with pytest.raises(ShardUnavailableError, match="not reachable"):
            await session.fetch("SELECT 1")
    async with Session("shard1", proxy.dsn, connect_s=5.0, deadline_s=5.0) as session:
        assert await session.fetch("SELECT to_regclass('undone')::text") == [(None,)]


NOT_POSTGRESQL = {
    "a length of 0": b"S\x00\x00\x00\x00",
    "a length of 3": b"S\x00\x00\x00\x03",
    "a negative length": b"S\xff\xff\xff\xff",
    "a length beyond all measure": b"D\x7f\xff\xff\xff",
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "Redis": b"-ERR unknown command\r\n",
    "zeros": bytes(64),
}
ANSWERING = """
import asyncio, sys
from cotacoes.adapters.postgres.pool import Pool, Session
from cotacoes.errors import ShardUnavailableError

async def unchecked(_):
    pass

async def ask(dsn):
    async with Pool("shard1", dsn, deadline_s=20.0, check=unchecked) as pool:
        for attempt in (pool.fetch, pool.fetch, Session("shard1", dsn, connect_s=20.0, deadline_s=20.0).__aenter__):
            try:
                await (attempt("SELECT 1") if attempt == pool.fetch else attempt())
            except ShardUnavailableError as error:
                print(error, flush=True)

async def main(options, *answers):
    for answer in map(bytes.fromhex, answers):
        async def serve(reader, writer):
            while await reader.read(4096):
                writer.write(answer)
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            await ask(f"postgresql://user:password@127.0.0.1:{port}/database{options}")

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("options", ["?sslmode=prefer", "?sslmode=disable"])
def test_a_port_of_another_program_blocks_neither_the_process_nor_the_deadline(options: str) -> None:
    """It runs in a process of its own, since the library's parser may spin in C, beyond any time limit of a test."""
    answers = [answer.hex() for answer in NOT_POSTGRESQL.values()]
    done = subprocess.run([sys.executable, "-c", ANSWERING, options, *answers], capture_output=True, timeout=60)
    assert done.stderr == b""
    assert done.stdout.splitlines() == [b"shard1 does not answer as PostgreSQL does"] * 3 * len(answers)


async def test_a_message_of_length_zero_on_an_open_connection_is_refused_too(proxy: FaultProxy) -> None:
    async with pool_of(proxy.dsn) as pool:
        await pool.fetch("SELECT 1")
        proxy.babble(b"Z\x00\x00\x00\x05I" + b"1\x00\x00\x00\x00")
        with pytest.raises(ShardUnavailableError, match="does not answer as PostgreSQL does"):
            await pool.fetch("SELECT 2")
        proxy.mend()
        assert await pool.fetch("SELECT 1") == [(1,)]


def test_framing_follows_messages_split_at_any_byte() -> None:
    messages = b"".join(
        kind + (4 + size).to_bytes(4, "big") + b"\x00" * size
        for kind, size in ((b"R", 8), (b"S", 0), (b"D", 70), (b"Z", 1))
    )
    for piece in range(1, len(messages) + 1):
        framing = Framing()
        for start in range(0, len(messages), piece):
            framing.check(messages[start : start + piece])
        for wrong in (b"Z\x00\x00\x00\x00", b"Z\x00\x00\x00\x03", b"\x00\x00\x00\x00\x04"):
            with pytest.raises(NotPostgresError):
                for byte in wrong:
                    framing.check(bytes([byte]))
            framing = Framing()


async def test_the_hosts_of_a_dsn_are_tried_until_one_meets_its_demand(migrated: str, proxy: FaultProxy) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{closed.getsockname()[1]}"
        address = proxy.dsn.partition("@")[2].partition("/")[0]
        several = proxy.dsn.replace(address, f"{nobody},{address}")
        for demand in ("any", "primary", "read-write", "prefer-standby"):
            dsn = f"{several}&target_session_attrs={demand}"
            async with pool_of(dsn) as pool, Session("shard1", dsn, connect_s=5.0, deadline_s=5.0) as session:
                assert await pool.fetch("SELECT 1") == await session.fetch("SELECT 1") == [(1,)]


async def test_a_dsn_may_name_the_folder_of_a_unix_socket(proxy: FaultProxy) -> None:
    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", proxy.port)
        await asyncio.gather(pipe(reader, there[1]), pipe(there[0], writer))

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    address = proxy.dsn.partition("@")[2].partition("/")[0]
    with tempfile.TemporaryDirectory() as folder:  # whose path is short enough for a socket
        dsn = f"{proxy.dsn.replace(address, '')}&host={folder}"
        async with await asyncio.start_unix_server(pass_on, f"{folder}/.s.PGSQL.5432"), pool_of(dsn) as pool:
            assert await pool.fetch("SELECT 1") == [(1,)]


@pytest.mark.parametrize("demand", ["standby", "read-only"])
async def test_a_shard_is_away_if_no_host_meets_the_demand_of_its_dsn(proxy: FaultProxy, demand: str) -> None:
    await refused(f"{proxy.dsn}&target_session_attrs={demand}", "has no host that meets target_session_attrs")


@pytest.mark.parametrize(
    "option",
    ["target_session_attrs=writable", "sslmode=yes", "sslmode=verify-ca&sslrootcert=/nowhere", "keepalives=1"],
)
async def test_an_unusable_option_is_named_without_its_value(proxy: FaultProxy, option: str) -> None:
    dsn = proxy.dsn.replace("sslmode=disable", option)
    for attempt in attempts(dsn):
        with pytest.raises(SettingError, match="the DSN of shard1 is not usable") as raised:
            await attempt()
        assert option.partition("=")[0] in str(raised.value)
        assert "password" not in str(raised.value).replace("USER:PASSWORD", "").replace("in a password as", "")
    async with Pool("shard1", dsn, deadline_s=5.0, check=unchecked, is_setting=False) as pool:
        with pytest.raises(ShardUnavailableError, match="the DSN of shard1 is not usable here"):
            await pool.fetch("SELECT 1")


async def test_the_problem_of_a_server_is_named_in_words(migrated: str, proxy: FaultProxy) -> None:
    base = proxy.dsn
    await refused(base.replace("sslmode=disable", "sslmode=require"), r"not reachable \(the handshake failed\)")
    await refused(base.replace("127.0.0.1", "nowhere.invalid"), r"not reachable \(no such host\)")
    await refused(base.rpartition("/")[0] + "/none", r"has no database with the name in its DSN \(3D000\)")
    await refused(base.replace("password@", "wrong@"), r"does not accept the password of its DSN \(28P01\)")
    async with pool_of(base) as pool:
        await pool.fetch("SELECT 1")
        psql(migrated, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                       " AND datname = current_database()")  # fmt: skip
        proxy.refuse()
        with pytest.raises(ShardUnavailableError, match=r"not reachable|is shutting down"):
            await pool.fetch("SELECT 1")
        with pytest.raises(ShardUnavailableError, match=r"not reachable \(connection refused\)"):
            await pool.fetch("SELECT 1")


def fatal(sqlstate: str) -> bytes:
    """The refusal that a server sends after the first message of a connection."""
    fields = b"".join(part + b"\x00" for part in (b"SFATAL", b"VFATAL", b"C" + sqlstate.encode(), b"Mits own words"))
    return b"E" + (len(fields) + 5).to_bytes(4, "big") + fields + b"\x00"


@pytest.mark.parametrize(
    ("sqlstate", "words"),
    [
        ("57P03", "is starting up or shutting down"),
        ("57P01", "is shutting down"),
        ("53300", "has no connection left"),
        ("08P01", "is behind a pooler that refused the connection"),
        ("XX000", "failed"),
    ],
)
async def test_a_refused_connection_is_explained_by_its_sqlstate(proxy: FaultProxy, sqlstate: str, words: str) -> None:
    proxy.babble(fatal(sqlstate))
    await refused(proxy.dsn, rf"shard1 {words}.*\({sqlstate}\)")


async def test_statements_lost_by_a_pooler_are_explained_so(migrated: str) -> None:
    """Behind PgBouncer in transaction mode, a statement may be missing, or prepared already, on the next connection."""
    async with pool_of(migrated) as pool:
        await pool.fetch("SELECT 1")
        await pool.fetch("DEALLOCATE ALL")
        with pytest.raises(ShardUnavailableError, match=r"is behind a pooler.*pool_mode = session \(26000\)"):
            await pool.fetch("SELECT 1")


async def refused(dsn: str, words: str) -> None:
    for attempt in attempts(dsn):
        with pytest.raises(ShardUnavailableError, match=words) as raised:
            await attempt()
        assert "own words" not in str(raised.value)


def attempts(dsn: str) -> list[Callable[[], Awaitable[None]]]:
    async def by_pool() -> None:
        async with pool_of(dsn) as pool:
            await pool.fetch("SELECT 1")

    async def by_session() -> None:
        async with Session("shard1", dsn, connect_s=DEADLINE_S, deadline_s=DEADLINE_S):
            pass

    return [by_pool, by_session]


async def answered(pool: Pool) -> None:
    """Return once the pool has a connection that answers, on a machine that may be busy."""
    async with asyncio.timeout(30.0):
        while True:
            with contextlib.suppress(ShardTimedOutError):
                await pool.fetch("SELECT 1")
                return


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("is_by_default", [True, False])
async def test_a_read_only_shard_answers_and_is_not_writable(migrated: str, is_by_default: bool) -> None:
    async with PostgresShard("shard1", migrated, deadline_s=DEADLINE_S) as shard:
        await shard.check_writable()
    database = migrated.rpartition("/")[2].partition("?")[0]
    role = migrated.partition("://")[2].partition(":")[0]
    scope = f"DATABASE {database}" if is_by_default else f"ROLE {role} IN DATABASE {database}"
    psql(migrated, f"ALTER {scope} SET default_transaction_read_only = on")
    async with PostgresShard("shard1", migrated, deadline_s=DEADLINE_S) as shard:
        await shard.ping()
        with pytest.raises(ShardUnavailableError, match="shard1 takes no writes"):
            await shard.check_writable()
        with pytest.raises(ShardUnavailableError, match=r"shard1 takes no writes.*\(25006\)"):
            await shard.become_writer("bitcoin", 7, "a")
