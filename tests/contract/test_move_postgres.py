"""Moves on PostgreSQL withstand sealed and dropped days, foreign changes, real load and real kills."""

import asyncio
import contextlib
import random
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.contract.conftest import Placed, psql
from tests.contract.harness_move import COIN, ThreeShards, Writer, check, filled, in_memory, nothing, on_postgres

from cotacoes import config
from cotacoes.adapters.postgres.shard import PostgresShard
from cotacoes.admin.copies import MoveLimits
from cotacoes.admin.copying import MoveProgress, OnStep
from cotacoes.cli import shards
from cotacoes.errors import CoinMovedError, CopyDiffersError, CopyRefusedError, SettingError
from cotacoes.model.quote import Quote
from cotacoes.up import embedded_servers


@pytest.fixture
async def world(placed: Placed) -> AsyncIterator[ThreeShards]:
    async with on_postgres(placed) as world:
        yield world


SEAL = """
UPDATE day AS d SET sum = c.sum, digest = c.digest, sealed_at = '2026-12-01 12:34:56.789Z'
FROM digest_quotes(1, 0, 0, 9223372036854775807, 1) AS c
WHERE d.day = c.day AND d.day < (SELECT max(day) FROM day);
"""
DROP = """
UPDATE day SET dropped_at = '2026-12-02Z' WHERE day <= date '2026-11-20' + {days};
DELETE FROM quote WHERE at < date '2026-11-20' + {days} + 1;
UPDATE fence SET (floor_epoch, floor_seq) =
    (SELECT first_epoch, first_seq FROM day WHERE dropped_at IS NULL ORDER BY day LIMIT 1);
"""
ALL_DAYS = "SELECT d FROM day AS d ORDER BY day"
ALL_CANDLES = """
SELECT minutes, at, name, currency, open, high, low, close, sum, count, first_epoch, first_seq, last_epoch, last_seq
FROM candle JOIN origin USING (origin_id) ORDER BY 1, 2, 3, 4
"""
ALL_CONFLICTS = """
SELECT epoch, seq, at, observed_at, price, name, currency, noted_at
FROM conflict JOIN origin USING (origin_id) ORDER BY 1, 2
"""
ALL_EPOCHS = "SELECT e FROM era AS e ORDER BY epoch"
FENCE = "SELECT writer_epoch, writer, floor_epoch, floor_seq, last_epoch, last_seq, last_at FROM fence"
EVERYTHING = (ALL_DAYS, ALL_CANDLES, ALL_CONFLICTS, ALL_EPOCHS, FENCE)


def stored_in(world: ThreeShards, shard: str) -> list[str]:
    return [psql(world.dsns[shard], sql) for sql in EVERYTHING]


async def held(world: ThreeShards, shard: str) -> list[Quote]:
    return await world.shards[shard].after(COIN, None, 10**6)


async def test_sealed_and_dropped_days_move_with_their_manifests_candles_and_epochs(world: ThreeShards) -> None:
    await filled(world, days=5)
    psql(world.dsns["shard1"], SEAL + DROP.format(days=2))
    before, quotes = stored_in(world, "shard1"), await held(world, "shard1")
    for to in ("shard2", "shard3", "shard1"):
        await world.move(to)
        assert stored_in(world, to) == before
        assert await held(world, to) == quotes
        await world.purge()
    assert psql(world.dsns["shard2"], "SELECT count(*) FROM quote") == "0"
    assert [psql(world.dsns["shard2"], sql) for sql in EVERYTHING] == [""] * 5


async def test_days_sealed_or_dropped_while_they_are_copied_are_so_on_the_target(world: ThreeShards) -> None:
    world.limits = MoveLimits(page_quotes=100, rest_quotes=5)
    writer = await filled(world, days=5)
    due = [SEAL, DROP.format(days=0), DROP.format(days=2), DROP.format(days=3)]

    async def on_step(step: str, progress: MoveProgress) -> None:
        if (step == "copied" and progress.copied % 300 == 0) or step in ("verified", "sampled"):
            if due:
                psql(world.dsns["shard1"], due.pop(0))
            if due:
                writer.record(10)
                await writer.deliver()

    await world.move("shard2", on_step)
    assert due == []
    psql(world.dsns["shard1"], "UPDATE fence SET state = 'open', moved_to = NULL")
    assert stored_in(world, "shard2") == stored_in(world, "shard1")
    assert await held(world, "shard2") == await held(world, "shard1") != []


TAMPERED = {
    "a price": "UPDATE quote SET price = price + 0.01 WHERE (epoch, seq) = (6, 3)",
    "the digits of a price": "UPDATE quote SET price = (price::text || '0')::numeric WHERE (epoch, seq) = (6, 3)",
    "a row less": "DELETE FROM quote WHERE (epoch, seq) = (6, 3)",
    "a row more": "INSERT INTO quote SELECT 5, at, observed_at, coin_id, 9999, origin_id, price FROM quote"
    " WHERE (epoch, seq) = (6, 1)",
    "a time": "UPDATE quote SET observed_at = observed_at + interval '1 microsecond' WHERE (epoch, seq) = (6, 3)",
    "an agreement": "UPDATE quote SET agreement = '3/4 0' WHERE (epoch, seq) = (6, 3)",
    "a missing agreement": "UPDATE quote SET agreement = NULL WHERE (epoch, seq) = (6, 3)",
    "an origin": "UPDATE quote SET origin_id = 3 - origin_id WHERE (epoch, seq) = (6, 3)",
    "the predecessor of an epoch": "UPDATE era SET prev_seq = prev_seq - 1 WHERE epoch = 6",
    "a conflict": "DELETE FROM conflict WHERE epoch = 6 AND seq = (SELECT max(seq) FROM conflict WHERE epoch = 6);"
    " INSERT INTO conflict SELECT coin_id, 6, 1, at, observed_at, price, origin_id FROM quote LIMIT 2",
    "the count of a day": "UPDATE day SET count = count + 1 WHERE day = '2026-11-22'",
    "a candle of a dropped day": "UPDATE candle SET close = close + 1 WHERE at < '2026-11-21Z' AND minutes = 60",
}


def other_hand(world: ThreeShards, what: str, wanted: str) -> OnStep:
    """Once the target has quotes, something else changes its copy."""
    due = [TAMPERED[what]]

    async def on_step(step: str, progress: MoveProgress) -> None:
        if step == wanted and progress.copied > 0 and due:
            psql(world.dsns["shard2"], due.pop())

    return on_step


@pytest.mark.parametrize("what", TAMPERED)
async def test_a_target_whose_content_differs_is_never_opened(world: ThreeShards, what: str) -> None:
    await filled(world, days=5)
    psql(world.dsns["shard1"], SEAL + DROP.format(days=0))
    quotes = await held(world, "shard1")
    for on_step in (other_hand(world, what, "copied"), nothing, nothing):
        with pytest.raises((CopyDiffersError, CopyRefusedError)):
            await world.move("shard2", on_step)
        assert (await world.state("shard1"), await world.state("shard2")) == ("open", "incoming")
    await world.move("shard2", abort=True)
    await world.move("shard2")
    assert await held(world, "shard2") == quotes


@pytest.mark.parametrize("what", ["a conflict", "the count of a day"])
@pytest.mark.parametrize("step", ["sampled", "closed"])
async def test_counts_are_taken_behind_the_closed_fence(world: ThreeShards, what: str, step: str) -> None:
    await filled(world, days=5)
    with pytest.raises((CopyDiffersError, CopyRefusedError)):
        await world.move("shard2", other_hand(world, what, step))
    assert (await world.state("shard1"), await world.state("shard2")) == ("open", "incoming")


async def test_the_target_counts_its_own_quotes_before_it_opens(world: ThreeShards) -> None:
    """The statement that opens the target decides."""
    await filled(world, days=5)
    with pytest.raises(CopyRefusedError, match="were verified"):
        await world.move("shard2", other_hand(world, "the count of a day", "finished"))
    assert (await world.state("shard1"), await world.state("shard2")) == ("open", "incoming")


async def test_a_source_that_differs_from_its_own_manifest_is_not_copied(world: ThreeShards) -> None:
    await filled(world, days=5)
    psql(world.dsns["shard1"], SEAL + "UPDATE quote SET price = price + 1 WHERE (epoch, seq) = (6, 3)")
    with pytest.raises(CopyDiffersError, match="the manifest of 2026-11-2"):
        await world.move("shard2")
    assert (await world.state("shard1"), await world.state("shard2")) == ("open", "incoming")


async def test_a_copy_left_behind_with_other_content_is_not_purged(world: ThreeShards) -> None:
    writer = await filled(world)
    await world.move("shard2")
    psql(world.dsns["shard1"], "UPDATE quote SET price = price + 0.01 WHERE (epoch, seq) = (6, 3)")
    for purge in (world.purge(), world.move("shard1")):
        with pytest.raises(CopyDiffersError, match="nothing is deleted"):
            await purge
    assert psql(world.dsns["shard1"], "SELECT count(*) FROM quote") == str(len(writer.log))
    await check(world, writer.log, "shard2", conflicts=9)


async def test_moves_and_purges_neither_wait_for_a_reader_nor_make_one_wait(world: ThreeShards) -> None:
    """A reader keeps its snapshots of both databases from before the move until after it."""
    writer = await filled(world)
    script = "BEGIN; SELECT count(*) FROM quote; SELECT count(*) FROM candle; SELECT pg_sleep(60);"
    readers = [
        await asyncio.create_subprocess_exec(
            str(embedded_servers.postgres_folder() / "psql"),
            "-qXAt",
            "-c",
            script,
            world.dsns[name],
            stdout=subprocess.DEVNULL,
        )
        for name in ("shard1", "shard2")
    ]
    try:
        while int(psql(world.dsns["shard1"], "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")) < 2:
            await asyncio.sleep(0.05)

        async def read(step: str, _: MoveProgress) -> None:
            assert psql(world.dsns["shard1"], "SET lock_timeout = '100ms'; SELECT count(*) FROM quote, fence") != ""
            assert psql(world.dsns["shard2"], "SET lock_timeout = '100ms'; SELECT count(*) FROM quote, fence") != ""

        async with asyncio.timeout(30):
            await world.move("shard2", read)
            await world.purge()
            await world.move("shard1", read)
        await check(world, writer.log, "shard1", conflicts=9)
    finally:
        for reader in readers:
            reader.kill()
            await reader.wait()


async def test_a_coin_moves_under_constant_writes_and_reads(world: ThreeShards) -> None:
    writer = Writer(world, every=timedelta(milliseconds=20))
    writer.record(3000)
    await writer.deliver()
    over = asyncio.Event()

    async def write() -> None:
        while not over.is_set():
            writer.record(5)
            await writer.deliver()
            await asyncio.sleep(0.002)

    async def read() -> None:
        shard, found = "shard1", writer.log[:0]
        while not over.is_set():
            before = len(writer.log)
            try:
                page = await world.shards[shard].after(COIN, found[-1].position if found else None, 500)
            except CoinMovedError as moved:
                shard = moved.to or (await world.directory())[0]
                continue
            found = [*found, *page]
            assert found == writer.log[: len(found)]
            assert before  # it continues from its position, on whichever shard
            await asyncio.sleep(0.002)

    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        group.create_task(read())
        for to in ("shard2", "shard1", "shard3", "shard2"):
            began_s = time.monotonic()
            progress = await world.move(to)
            assert progress.closed_s is not None
            assert progress.closed_s < time.monotonic() - began_s, "the fence was closed all the time"
            await asyncio.sleep(0.1)
        over.set()
    assert await writer.deliver()
    await check(world, writer.log, "shard2")


MOVER = """
    import asyncio, random, sys, time
    from cotacoes.adapters.postgres.moving_shard import PostgresMovingShard
    from cotacoes.admin.copies import MoveLimits
    from cotacoes.admin.move import Mover
    import contextlib

    async def nothing(step, progress):
        print(step, flush=True)

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            shards = {}
            for name, dsn in zip(("shard1", "shard2", "shard3"), sys.argv[2:]):
                shards[name] = await stack.enter_async_context(PostgresMovingShard(name, dsn))
            limits = MoveLimits(page_quotes=100)
            clock, dice = time.monotonic, random.Random()
            mover = Mover("bitcoin", shards, (), random=dice, clock=clock, on_step=nothing, limits=limits)
            await mover.move(sys.argv[1])

    asyncio.run(main())
"""


async def test_a_mover_process_killed_at_any_moment_and_run_again_loses_and_doubles_nothing(
    world: ThreeShards, seeded: random.Random
) -> None:
    writer = await filled(world)
    kills = 0
    steps: list[bytes] = []
    to, home = "shard2", "shard1"
    for _ in range(40):  # how many of them end before they are killed is a matter of the machine
        if kills == 6:
            break
        mover = await asyncio.create_subprocess_exec(
            sys.executable, "-c", textwrap.dedent(MOVER), to, *world.dsns.values(), stdout=subprocess.PIPE
        )
        assert mover.stdout is not None
        steps += [await mover.stdout.readline() for _ in range(seeded.randrange(1, 20))]
        await asyncio.sleep(seeded.uniform(0, 0.004))
        with contextlib.suppress(ProcessLookupError):
            mover.kill()
        was_killed = await mover.wait() == -signal.SIGKILL
        kills += was_killed
        writer.record(3)
        await writer.deliver()
        if not was_killed or seeded.random() < 0.5:
            await world.move(to)
            home, to = to, home
            assert await writer.deliver()
            await check(world, writer.log, home, conflicts=9)
    await world.move(to)  # the last one may have been killed in the middle: that move comes first
    await world.move("shard3")
    assert await writer.deliver()
    await check(world, writer.log, "shard3", conflicts=9)
    assert kills == 6, steps


def test_the_commands_show_their_steps_and_where_the_coin_lives(
    placed: Placed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COTACOES_TEST_DSN", raising=False)
    dsns = placed(config.load({}).coins)
    for number, dsn in enumerate(dsns, start=1):
        monkeypatch.setenv(f"COTACOES_SHARD{number}_DSN", dsn)

    async def write() -> None:
        async with PostgresShard("shard1", dsns[0], deadline_s=5.0) as first:
            writer = Writer(ThreeShards({"shard1": first}, in_memory().connect))
            writer.record(300)
            await writer.deliver()

    asyncio.run(write())
    shards.move(COIN, "shard2")
    printed = capsys.readouterr()
    assert printed.out == "bitcoin lives on shard2\n"
    assert "claimed: bitcoin moves from shard1 to shard2\n" in printed.err
    assert "finished: 300 quotes copied, 300 compared\n" in printed.err
    assert re.search(
        r"left: shard1 refers writers and readers to shard2, after [0-9.]+ ms with a closed fence\n", printed.err
    )
    shards.purge(COIN)
    assert "bitcoin on shard1 stays until 1:00:00 after its move; --now" in capsys.readouterr().out
    shards.purge(COIN, now=True)
    assert capsys.readouterr().out == "bitcoin on shard1 is deleted; it lives on shard2\n"
    with pytest.raises(SettingError, match="lives on shard2 already"):
        shards.move(COIN, "shard2", abort=True)
    with pytest.raises(SettingError, match="there is no shard shard9"):
        shards.move(COIN, "shard9")
    with pytest.raises(SettingError, match="dogecoin lives on no shard"):
        shards.move("dogecoin", "shard2")
