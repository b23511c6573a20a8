"""The control channel of a running `up`: one line of JSON in each direction, over TCP on 127.0.0.1.

    → {"secret":"…","command":"stop","part":"shard1"}      ← {"state":"stopped"}
    → {"secret":"…","command":"status"}                    ← {"parts":[…]}      refusals: ← {"error":"…"}

The port is in `up.json`, the secret beside it in a file that only its owner can read. Requests are limited in size and
time, and commands in number; a client that does not know the secret learns nothing.

Anybody on the machine can connect and send nothing. Our own client sends its line at once, so when too many
connections are silent, the one that has been silent longest is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

from cotacoes.errors import BadRequestError, ServiceUnavailableError
from cotacoes.up.data_folder import Running, read_running, read_secret

SECRET = "control"  # noqa: S105  # the name of the secret's file
REQUEST_BYTES_MAX = 4096
ANSWER_BYTES_MAX = 65_536
REQUEST_DEADLINE_S = 5.0
BACKLOG = 128
SILENT_MAX = 128  # connections that have not sent their request
UNDER_WAY_MAX = 32  # commands with the right secret
ANSWER_DEADLINE_S = 30.0  # a service may take its grace to stop, and its time to start
DOWN_DEADLINE_S = 120.0  # each service may take its grace
DOWN_POLL_S = 0.05

Answer = Callable[[str, str], Awaitable[dict[str, Any]]]


class ControlServer:
    """Listens while its context is open. `answer(command, service)` raises BadRequestError for an unknown command."""

    def __init__(
        self,
        secret: str,
        answer: Answer,
        *,
        request_deadline_s: float = REQUEST_DEADLINE_S,
        under_way_max: int = UNDER_WAY_MAX,
    ) -> None:
        self._secret = secret
        self._answer = answer
        self._request_deadline_s = request_deadline_s
        self._under_way_max = under_way_max
        self._silent: dict[asyncio.StreamWriter, None] = {}  # in the order in which they came
        self._under_way = 0
        self.port = 0

    async def __aenter__(self) -> Self:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        # asyncio tries to accept as many as its backlog at once, and without a free descriptor logs an error for each
        self._server = await asyncio.start_server(self._serve, sock=listener, limit=REQUEST_BYTES_MAX, backlog=1)
        listener.listen(BACKLOG)
        self.port = int(listener.getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._silent) >= SILENT_MAX:
            longest = next(iter(self._silent))
            del self._silent[longest]
            longest.transport.abort()
        self._silent[writer] = None
        try:
            answer = await self._answer_to(reader, lambda: self._silent.pop(writer, None))
            writer.write(json.dumps(answer).encode() + b"\n")
            async with asyncio.timeout(self._request_deadline_s):
                await writer.drain()
        except (OSError, TimeoutError):
            writer.transport.abort()  # the client has gone, or does not read
        finally:
            self._silent.pop(writer, None)
            writer.close()

    async def _answer_to(
        self, reader: asyncio.StreamReader, heard: Callable[[], object] = lambda: None
    ) -> dict[str, Any]:
        """The answer to one request; `heard` is called once the request has arrived."""
        try:
            async with asyncio.timeout(self._request_deadline_s):
                line = await reader.readuntil(b"\n")
            heard()
            request = json.loads(line)
            secret, command, service = (str(request.get(name, "")) for name in ("secret", "command", "part"))
        except (ValueError, AttributeError, RecursionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return {"error": "not a request"}
        if not hmac.compare_digest(secret.encode("utf-8", "replace"), self._secret.encode()):
            return {"error": "wrong secret"}
        if self._under_way >= self._under_way_max:
            return {"error": f"{self._under_way_max} commands are under way: try again in a moment"}
        self._under_way += 1
        try:
            return await self._answer(command, service)
        except BadRequestError as refusal:
            return {"error": refusal.detail}
        finally:
            self._under_way -= 1


def ask(data: Path, command: str, service: str = "", *, deadline_s: float = ANSWER_DEADLINE_S) -> dict[str, Any]:
    """Ask the `up` that runs on `data`. Blocks for at most `deadline_s`.

    ServiceUnavailableError if none runs there or it does not answer, BadRequestError if it refuses.
    """
    answer = _exchange(data, _running(data), {"command": command, "part": service}, deadline_s)
    if "error" in answer:
        raise BadRequestError(str(answer["error"]))
    return answer


def bring_down(data: Path) -> None:
    """Stop everything that runs on `data`, and return when it is gone. Blocks; raises the same errors as `ask`."""
    running = _running(data)
    ask(data, "down")
    due = time.monotonic() + DOWN_DEADLINE_S
    while running.is_alive:
        if time.monotonic() > due:
            raise ServiceUnavailableError(f"still stopping after {DOWN_DEADLINE_S:g} s (pid {running.pid})")
        time.sleep(DOWN_POLL_S)


def _running(data: Path) -> Running:
    running = read_running(data)
    if running is None or not running.is_alive:
        raise ServiceUnavailableError(f"nothing runs on {data.absolute()}: start it with `cotacoes up`")
    return running


def _exchange(data: Path, running: Running, request: dict[str, str], deadline_s: float) -> dict[str, Any]:
    line = json.dumps({"secret": read_secret(data, SECRET), **request}).encode() + b"\n"
    received = b""
    due = time.monotonic() + deadline_s
    try:
        with socket.create_connection(("127.0.0.1", running.control_port), deadline_s) as connection:
            connection.sendall(line)
            while not received.endswith(b"\n") and len(received) < ANSWER_BYTES_MAX:
                connection.settimeout(max(0.001, due - time.monotonic()))
                chunk = connection.recv(ANSWER_BYTES_MAX)
                if not chunk:
                    break
                received += chunk
    except OSError as error:
        reason = "in time" if isinstance(error, TimeoutError) else f"({error.strerror})"
        raise ServiceUnavailableError(f"the `up` on {data.absolute()} does not answer {reason}") from error
    with contextlib.suppress(ValueError, RecursionError):
        answer = json.loads(received)
        if isinstance(answer, dict):
            return answer
    raise ServiceUnavailableError(
        f"the `up` on {data.absolute()} gave an answer that is not understood: is it of another version?"
    )
