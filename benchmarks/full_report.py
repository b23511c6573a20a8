"""`report`: what the whole report costs beside its parts, how much rows matter, and what a frozen shard costs.

A system runs over two PostgreSQL servers, each with ten million quotes of one coin in ninety days; for the row that
compares sizes a second one runs beside it, with ten thousand. Reports are asked over one kept connection, with
`Cache-Control: no-cache`, so each is made. The parts are asked for alone by `coins` and `parts`, by turns with the
whole, so that noise meets all alike. The slowest is that with the largest median (or 99th percentile) of a round.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from benchmarks.figure import Aim, Effort, MeasureError, Row, percentile
from benchmarks.filled_shards import COINS, filled_shards
from benchmarks.http_load import content_length
from benchmarks.servers import Server
from benchmarks.system import data_folder, started
from cotacoes.config import SHARDS
from cotacoes.up.supervision import processes

DATABASE = "market"
DAYS = 90
SMALL_QUOTES = 10_000
LARGE_QUOTES_PER_S = 1_000_000  # of `Effort.seconds`: ten seconds stand for ten million quotes
ASKED_PER_S = 60  # reports of a round
WARM_UP = 20
CROWD = 200
FROZEN_REPORTS = 12  # one after the other, of a round
LOG_QUOTES = 12  # of each coin, so that its mean needs no shard
COMPLETE_DEADLINE_S = 60.0
DEADLINE_MS, SLACK_MS = 2_000.0, 20.0
FULL = "/report/full"
ALONE = [
    *(f"/report/full?coins={coin}&parts={part}" for coin in COINS for part in ("current", "average")),
    "/report/full?parts=pending",
    *(f"/report/full?coins={coin}&parts=last_logs,window" for coin in COINS),
]


class Wire:
    """One kept connection to a port of 127.0.0.1."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *error: Any) -> None:
        self._writer.close()

    async def ask(self, path: str) -> tuple[float, bytes]:
        """Milliseconds from the question to the last byte, and the body; MeasureError where it is no 200."""
        started_at = time.perf_counter()
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nCache-Control: no-cache\r\n\r\n".encode())
        head = await self._reader.readuntil(b"\r\n\r\n")
        body = await self._reader.readexactly(content_length(head))
        spent_ms = 1000 * (time.perf_counter() - started_at)
        if not head.startswith(b"HTTP/1.1 200"):
            raise MeasureError(f"{path} answered {head.splitlines()[0].decode()}")
        return spent_ms, body


def measure(effort: Effort) -> list[Row]:
    large = max(10 * SMALL_QUOTES, int(LARGE_QUOTES_PER_S * effort.seconds))
    asked = max(10, int(ASKED_PER_S * effort.seconds))
    with filled_shards(DATABASE, large, days=DAYS) as many, _over(many) as big:
        rounds = [
            asyncio.run(_by_turns({path: (big, path) for path in (FULL, *ALONE)}, asked)) for _ in range(effort.runs)
        ]
        crowds = [asyncio.run(_crowd(big)) for _ in range(effort.runs)]
        frozen = [_frozen(big, many[0]) for _ in range(effort.runs)]
        with filled_shards(DATABASE, SMALL_QUOTES, days=DAYS) as few, _over(few) as small:
            sizes = [
                asyncio.run(_by_turns({"large": (big, FULL), "small": (small, FULL)}, asked))
                for _ in range(effort.runs)
            ]
    return [*_rows(rounds), _size_row(sizes, large), *_crowd_rows(crowds), *_frozen_rows(frozen)]


@contextlib.contextmanager
def _over(servers: Sequence[Server]) -> Iterator[int]:
    """The port of an aggregator_service whose reports are complete, in a system over these shards."""
    dsns = {f"{shard.upper()}_DSN": server.dsn(DATABASE) for shard, server in zip(SHARDS, servers, strict=True)}
    with data_folder() as data, started(data, **dsns, FAILURE_RATE="0") as system:
        system.wait_first_quote()
        while min(system.quotes[coin] for coin in COINS) < LOG_QUOTES:
            time.sleep(0.2)
        port = system.port("aggregator_service")
        asyncio.run(_wait_complete(port))
        yield port


async def _by_turns(questions: Mapping[str, tuple[int, str]], asked: int) -> dict[str, list[float]]:
    """Milliseconds of each question, which is a path on a port, one of each by turns."""
    spent: dict[str, list[float]] = {}
    async with contextlib.AsyncExitStack() as stack:
        ports = {port for port, _ in questions.values()}
        wires = {port: await stack.enter_async_context(Wire(port)) for port in ports}
        for number in range(WARM_UP + asked):
            for name, (port, path) in questions.items():
                took_ms, body = await wires[port].ask(path)
                if not json.loads(body)["complete"]:
                    raise MeasureError(f"the report is not complete: {json.loads(body)['missing']}")
                if number >= WARM_UP:
                    spent.setdefault(name, []).append(took_ms)
    return spent


def _size_row(sizes: list[dict[str, list[float]]], large: int) -> Row:
    ratios = [percentile(spent["large"], 50) / percentile(spent["small"], 50) for spent in sizes]
    return Row(f"report, {large:,} rows a shard", f"of {SMALL_QUOTES:,}", ratios, Aim(1.3))


def _rows(rounds: list[dict[str, list[float]]]) -> list[Row]:
    def of(path: str, percent: float) -> list[float]:
        return [percentile(spent[path], percent) for spent in rounds]

    slowest = {
        percent: [max(percentile(spent[path], percent) for path in ALONE) for spent in rounds] for percent in (50, 99)
    }
    whole = {percent: of(FULL, percent) for percent in (50, 99)}
    in_turn = [sum(percentile(spent[path], 50) for path in ALONE) for spent in rounds]
    return [
        Row(
            "report p50 less 2 ms",
            "of its slowest part",
            [(mine - 2) / part for mine, part in zip(whole[50], slowest[50], strict=True)],
            Aim(1.15),
        ),
        Row(
            "report p99", "of its slowest part", [a / b for a, b in zip(whole[99], slowest[99], strict=True)], Aim(1.3)
        ),
        Row(
            "parts in turn",
            "of the report",
            [a / b for a, b in zip(in_turn, whole[50], strict=True)],
            Aim(2.0, is_floor=True),
        ),
        Row("report p50", "ms", whole[50]),
        Row("report p99", "ms", whole[99]),
        Row("slowest part p50", "ms", slowest[50]),
        Row("slowest part p99", "ms", slowest[99]),
        Row("parts in turn p50", "ms", in_turn),
        *(Row(f"alone {path.removeprefix('/report/full?')}", "ms", of(path, 50)) for path in ALONE),
    ]


async def _crowd(port: int) -> tuple[float, float]:
    """Milliseconds until the last of a crowd that asks the same at once is answered, and of one alone."""
    wires = [Wire(port) for _ in range(CROWD)]
    try:
        for wire in wires:
            await wire.__aenter__()
            await wire.ask("/livez")
        alone = sorted([(await wires[0].ask(FULL))[0] for _ in range(9)])[4]
        started_at = time.perf_counter()
        answers = await asyncio.gather(*(wire.ask(FULL) for wire in wires))
        spent_ms = 1000 * (time.perf_counter() - started_at)
    finally:
        for wire in wires:
            await wire.__aexit__()
    if not all(json.loads(body)["complete"] for _, body in answers):
        raise MeasureError("a report of the crowd is not complete")
    return spent_ms, alone


def _crowd_rows(crowds: list[tuple[float, float]]) -> list[Row]:
    return [
        Row(f"{CROWD} identical reports at once", "of one", [crowd / one for crowd, one in crowds], Aim(3.0)),
        Row(f"{CROWD} identical reports at once", "ms", [crowd for crowd, _ in crowds]),
        Row("one report", "ms", [one for _, one in crowds]),
    ]


def _frozen(port: int, server: Server) -> list[float]:
    """Milliseconds of reports while every process of shard1 stands still."""
    family = processes.family(int((server.folder / "postmaster.pid").read_text().split()[0]))
    processes.suspend(family)
    try:
        return asyncio.run(_ask_frozen(port))
    finally:
        processes.resume(family)
        asyncio.run(_wait_complete(port))


async def _ask_frozen(port: int) -> list[float]:
    spent = []
    async with Wire(port) as wire:
        for _ in range(FROZEN_REPORTS):
            took_ms, body = await wire.ask(FULL)
            told = json.loads(body)
            if [one["part"] for one in told["missing"]] != ["shard1"]:
                raise MeasureError(f"not shard1 alone is missing: {told['missing']}")
            spent.append(took_ms)
    return spent


async def _wait_complete(port: int) -> None:
    async with Wire(port) as wire:
        due = time.monotonic() + COMPLETE_DEADLINE_S
        while not (told := json.loads((await wire.ask(FULL))[1]))["complete"]:
            if time.monotonic() > due:
                raise MeasureError(f"no complete report within {COMPLETE_DEADLINE_S:g} s: {told['missing']}")
            await asyncio.sleep(0.2)


def _frozen_rows(frozen: list[list[float]]) -> list[Row]:
    waited = [[took for took in spent if took > DEADLINE_MS / 2] for spent in frozen]  # the circuit was not open yet
    return [
        Row("one shard frozen, p99", "ms", [percentile(spent, 99) for spent in frozen], Aim(DEADLINE_MS + SLACK_MS)),
        Row("one shard frozen, reports that waited for it", "", [float(len(spent)) for spent in waited]),
    ]
