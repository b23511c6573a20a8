"""What the documents say of the live streams runs as it stands there."""

import asyncio
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.contract.conftest import Server
from tests.contract.harness_gateway import GatewaySystem

from cotacoes.up.supervision import die_with_parent

ROOT = Path(__file__).parents[2]
PAGES = ["docs/explanation/pub-sub.md", "docs/how-to/follow-live-prices.md"]


def block_of(page: str) -> str:
    text = (ROOT / page).read_text(encoding="utf-8")
    (block,) = [each for each in re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S) if "client.stream" in each]
    return str(block)


@pytest.mark.parametrize("page", PAGES)
async def test_the_program_prints_quotes_as_they_come(page: str, valkey: Server, seeded: random.Random) -> None:
    async with GatewaySystem(valkey.port, seeded).running() as world:
        program = block_of(page).replace("http://127.0.0.1:8000", f"http://127.0.0.1:{world.gateway.port}")
        process = await asyncio.create_subprocess_exec(
            *die_with_parent.launcher(signal.SIGKILL),
            *(sys.executable, "-W", "error", "-u", "-c", program.replace(', "ethereum"', "")),
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(20):
                lines = [(await process.stdout.readline()).decode() for _ in range(5)]
        finally:
            process.kill()
            await process.wait()
    assert all(re.match(r"bitcoin 67012\.[0-9]+ \d+-\d+\n", line) for line in lines)
