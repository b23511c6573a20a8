"""The control channel without a network: invalid requests, clients without an answer, a system that does not run."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from cotacoes.errors import BadRequestError, ServiceUnavailableError
from cotacoes.up import control
from cotacoes.up.control import REQUEST_BYTES_MAX, ControlServer
from cotacoes.up.data_folder import DataFolder
from cotacoes.up.supervision import processes


async def answered(request: bytes, *, ends: bool = True, **limits: Any) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    asked: list[tuple[str, str]] = []

    async def answer(command: str, service: str) -> dict[str, Any]:
        asked.append((command, service))
        if command == "refuse":
            raise BadRequestError("no such part")
        return {"state": "stopped"}

    reader = asyncio.StreamReader(limit=REQUEST_BYTES_MAX)
    reader.feed_data(request)
    if ends:
        reader.feed_eof()
    return await ControlServer("the secret", answer, **limits)._answer_to(reader), asked


def line(**request: object) -> bytes:
    return json.dumps(request).encode() + b"\n"


async def test_a_command_with_the_secret_is_answered() -> None:
    answer, asked = await answered(line(secret="the secret", command="stop", part="shard1"))
    assert answer == {"state": "stopped"}
    assert asked == [("stop", "shard1")]


async def test_a_refusal_has_a_reason() -> None:
    answer, _ = await answered(line(secret="the secret", command="refuse"))
    assert answer == {"error": "no such part"}


@pytest.mark.parametrize("secret", ["", "the secre", "The secret", None, ["the secret"], "\udcff"])
async def test_a_wrong_secret_learns_nothing(secret: object) -> None:
    answer, asked = await answered(line(secret=secret, command="status"))
    assert answer == {"error": "wrong secret"}
    assert asked == []


@pytest.mark.parametrize(
    "request_line",
    [b"", b"\n", b"[]\n", b"null\n", b"\xff\n", b'{"secret":"the secret"', b"[" * 4000 + b"\n", b"x" * 10_000 + b"\n"],
)
async def test_an_invalid_request_is_reported(request_line: bytes) -> None:
    answer, asked = await answered(request_line)
    assert answer == {"error": "not a request"}
    assert asked == []


async def test_an_unfinished_request_is_not_awaited() -> None:
    with pytest.raises(TimeoutError):
        await answered(b'{"secret":', ends=False, request_deadline_s=0.01)


def test_that_nothing_runs_is_reported_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(ServiceUnavailableError, match=r"nothing runs on .*: start it with `cotacoes up`"):
        control.ask(tmp_path, "status")


def test_the_record_of_a_killed_up_is_not_taken_for_a_running_one(tmp_path: Path) -> None:
    with DataFolder(tmp_path) as folder:
        folder.note_running(9, {})
        memory = json.loads((tmp_path / "up.json").read_text())
        memory["birth"] = processes.birth(os.getpid()) + "0"
        (tmp_path / "up.json").write_text(json.dumps(memory))
        with pytest.raises(ServiceUnavailableError, match="nothing runs on"):
            control.bring_down(tmp_path)


async def test_too_many_concurrent_commands_are_refused_with_a_reason() -> None:
    may_end = asyncio.Event()

    async def answer(command: str, service: str) -> dict[str, Any]:
        await may_end.wait()
        return {}

    server = ControlServer("the secret", answer, under_way_max=2)

    async def ask() -> dict[str, Any]:
        reader = asyncio.StreamReader()
        reader.feed_data(line(secret="the secret", command="stop"))
        return await server._answer_to(reader)

    held = [asyncio.ensure_future(ask()) for _ in range(2)]
    await asyncio.sleep(0)
    assert await ask() == {"error": "2 commands are under way: try again in a moment"}
    may_end.set()
    assert [await one for one in held] == [{}, {}]
    assert await ask() == {}
