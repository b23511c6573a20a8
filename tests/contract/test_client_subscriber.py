"""client_subscriber as a process, on a real bus: what a program at the other end of its pipe can rely on."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from tests.conftest import free_port
from tests.contract.conftest import Server

from cotacoes.adapters.redis_bus import RedisBus
from cotacoes.model.live_message import Heartbeat, channel, encode_heartbeat, encode_quote
from cotacoes.model.quote import Position, Quote
from cotacoes.up.supervision import die_with_parent

LIMIT_S = 30.0
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
PROGRAM = """
import sys
from cotacoes.web.process import run_process
from cotacoes.client_subscriber import app
sys.exit(run_process("client_subscriber", getattr(app, sys.argv[1])))
"""


def environment(server: Server, **more: str) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("COTACOES_")}
    redis, nobody = f"redis://127.0.0.1:{server.port}", f"http://127.0.0.1:{free_port()}"
    return {**ours, "COTACOES_REDIS_URL": redis, "COTACOES_QUOTE_URL": nobody, **more}


def start(server: Server, main: str, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*die_with_parent.launcher(signal.SIGKILL), sys.executable, "-W", "error", "-c", PROGRAM, main],
        env=environment(server, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    finally:
        process.kill()
        process.communicate(timeout=LIMIT_S)


@contextlib.asynccontextmanager
async def heard(server: Server) -> AsyncIterator[RedisBus]:
    """A bus that the subscriber has begun to listen on."""
    async with RedisBus(f"redis://127.0.0.1:{server.port}", deadline_s=5.0) as bus, asyncio.timeout(LIMIT_S):
        while await bus.publish([(channel("bitcoin"), encode_heartbeat(Heartbeat("bitcoin", None, None, NOON)))]) == [
            0
        ]:
            await asyncio.sleep(0.02)
        yield bus


def message(seq: int) -> tuple[str, bytes]:
    quote = Quote("bitcoin", "USD", Decimal("67012.3400"), 5, seq, NOON, NOON, "sim")
    return channel("bitcoin"), encode_quote(quote)


def ahead(seq: int) -> tuple[str, bytes]:
    return channel("bitcoin"), encode_heartbeat(Heartbeat("bitcoin", Position(5, seq), None, NOON))


async def test_each_event_is_a_line_of_json_written_when_it_happens_and_sigterm_ends_it_well(valkey: Server) -> None:
    process = start(valkey, "main_json")
    with ended(process):
        assert process.stdout is not None

        def read() -> Any:
            assert process.stdout is not None
            return json.loads(process.stdout.readline())

        async with heard(valkey) as bus:
            await bus.publish([message(1)])
            quote = await asyncio.to_thread(read)
            assert (quote["type"], quote["price"], quote["seq"]) == ("quote", "67012.3400", 1)
            await bus.publish([ahead(3)])
            gap = {"type": "gap", "coin": "bitcoin", "after": "5-1", "through": "5-3", "reason": "lost"}
            assert await asyncio.to_thread(read) == gap
        process.send_signal(signal.SIGTERM)
        rest, log = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0
        assert all(json.loads(line) for line in rest.splitlines())
        assert "service.started" in {json.loads(line)["event"] for line in log.splitlines()}


async def test_the_subscriber_listens_only_on_the_channels_of_its_prefix(valkey: Server) -> None:
    process = start(valkey, "main_json", COTACOES_CHANNEL_PREFIX="prod:blue")
    own = channel("bitcoin", "prod:blue")
    with ended(process):
        async with RedisBus(f"redis://127.0.0.1:{valkey.port}/3", deadline_s=5.0) as bus, asyncio.timeout(LIMIT_S):
            while await bus.publish([(own, ahead(1)[1])]) == [0]:
                await asyncio.sleep(0.02)
            assert await bus.publish([message(2)]) == [0], "nobody listens on those of another system"
            await bus.publish([(own, message(2)[1])])
            assert process.stdout is not None
            assert json.loads(await asyncio.to_thread(process.stdout.readline))["seq"] == 2


@pytest.mark.parametrize("since", ["nonsense", "ethereum=5-1"])
async def test_an_invalid_since_ends_the_subscriber_before_anything_is_shown(valkey: Server, since: str) -> None:
    command = [sys.executable, "-m", "cotacoes", "client-subscriber", "bitcoin", "--since", since]
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment(valkey), capture_output=True, text=True, timeout=LIMIT_S
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert f"--since {since}" in done.stderr


async def test_a_reader_that_leaves_ends_the_subscriber_quietly(valkey: Server) -> None:
    process = start(valkey, "main")
    with ended(process):
        async with heard(valkey) as bus:
            assert process.stdout is not None
            await bus.publish([message(1)])
            line = await asyncio.to_thread(process.stdout.readline)
            assert "67012.3400 USD" in line
            assert "\x1b" not in line
            process.stdout.close()
            await bus.publish([message(2)])
            assert await asyncio.to_thread(process.wait, LIMIT_S) == 0
        assert process.stderr is not None
        log = process.stderr.read()
        assert "Traceback" not in log
        assert "Broken" not in log


@pytest.mark.parametrize("reads", [True, False], ids=["read", "unread"])
async def test_the_subscriber_stops_on_request_even_if_nobody_reads(valkey: Server, reads: bool) -> None:
    process = start(valkey, "main_json")
    with ended(process):
        async with heard(valkey) as bus:
            if not reads:
                for first in range(1, 5001, 500):
                    await bus.publish([message(seq) for seq in range(first, first + 500)])
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, LIMIT_S) == 0
