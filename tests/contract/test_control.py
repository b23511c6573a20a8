"""The control channel over real sockets: strangers who connect and say nothing keep nobody out."""

import asyncio
import json
from typing import Any

from cotacoes.up.control import SILENT_MAX, ControlServer


async def status(port: int) -> Any:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(json.dumps({"secret": "the secret", "command": "status"}).encode() + b"\n")
    async with asyncio.timeout(3):  # below the time that a silent one is given
        answer = json.loads(await reader.readuntil(b"\n"))
    writer.close()
    return answer


async def test_silent_connections_block_no_command() -> None:
    async def answer(command: str, service: str) -> dict[str, Any]:
        return {"parts": []}

    async with ControlServer("the secret", answer) as server:
        crowd = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3 * SILENT_MAX)]
        for _, writer in crowd[::2]:
            writer.write(b'{"secret":')  # half a request counts as none
        assert [await status(server.port) for _ in range(5)] == [{"parts": []}] * 5
        assert len(server._silent) <= SILENT_MAX
        for _, writer in crowd:
            writer.transport.abort()
