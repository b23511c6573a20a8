"""Two writers of the same coins, each started again whenever it ends, as a restart policy does."""

import asyncio
import json
import time
from pathlib import Path

from tests.contract.conftest import Placed
from tests.system.conftest import free_port_block

from cotacoes import config
from cotacoes.config import Settings
from cotacoes.errors.exit_codes import SUPERSEDED
from cotacoes.external_service import app as external_service
from cotacoes.quote_service import app as quote_service
from cotacoes.web.process import Stop

LIMIT_S = 30.0
COIN = "bitcoin"


def settings_of(folder: Path, dsns: tuple[str, str], **given: object) -> Settings:
    return config.load(
        {},
        data=folder,
        port_base=free_port_block(),
        shard1_dsn=dsns[0],
        shard2_dsn=dsns[1],
        coins=f"{COIN}:shard1",
        **given,
    )


async def test_a_superseded_writer_that_is_restarted_lets_the_other_one_write(tmp_path: Path, placed: Placed) -> None:
    dsns = placed(f"{COIN}:shard1")
    source = settings_of(tmp_path / "source", dsns, failure_rate=0.0)
    first, second = (
        settings_of(tmp_path / name, dsns, external_url=source.url("external_service"), poll_interval_s=0.05)
        for name in ("first", "second")
    )
    stops = [Stop() for _ in range(4)]
    note = tmp_path / "first" / "quote_service" / "superseded.json"
    async with asyncio.timeout(2 * LIMIT_S), asyncio.TaskGroup() as group:
        group.create_task(external_service.main(source, stops[0]))
        writing = group.create_task(quote_service.main(first, stops[1]))
        while not (await listens(first)):
            await asyncio.sleep(0.05)
        group.create_task(quote_service.main(second, stops[2]))
        await writing  # ended: the second has taken over
        assert stops[1].code == SUPERSEDED
        assert json.loads(note.read_text())["count"] == 1
        began = time.monotonic()
        again = group.create_task(quote_service.main(first, stops[3]))
        await asyncio.sleep(0)
        while time.monotonic() < began + 1.0:
            assert not await listens(first)
            assert not stops[2].event.is_set(), "the second was superseded at once"
            await asyncio.sleep(0.05)
        stops[3]()  # a stop is not kept waiting by the pause
        await again
        for stop in stops:
            stop()


async def listens(settings: Settings) -> bool:
    """Whether it can be asked, so its resources are open."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", settings.port("quote_service"))
    except OSError:
        return False
    try:
        writer.write(b"GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
        return (await reader.read(12)) == b"HTTP/1.1 200"
    except OSError:
        return False
    finally:
        writer.close()
