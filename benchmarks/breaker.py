"""`breaker`: the circuit breaker beside its peers, the whole policy around nothing, memory, and a dead source.

The operations are timed in turns, in one process, in blocks of 20,000 that are repeated; a figure is the time of one
operation, or the ratio of it to the peer's in the same turn. The dead source is a real one: 100 readers call it through
one policy over loopback, it answers 503, and every request that reaches it is counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random
from typing import Any

from benchmarks.figure import Aim, Effort, MeasureError, Row
from benchmarks.http_ratio import ratios
from benchmarks.peers import breakers
from cotacoes.adapters.http_client import HttpClient
from cotacoes.errors import SourceError
from cotacoes.patterns.resilience import (
    Bulkhead,
    CallVerdict,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitOpenError,
    LastGood,
    ResilienceConfig,
    ResiliencePolicy,
    RetryConfig,
    SingleFlight,
    StateTransition,
)
from cotacoes.patterns.resilience.breaker_config import BreakerState
from cotacoes.patterns.resilience.breaker_events import BreakerEvent
from cotacoes.quote_service.source import HttpSource
from cotacoes.quote_service.source_quote import Fetched

BLOCK = 20_000
READERS = 100
READ_INTERVAL_S = 0.05
BREAKERS_WEIGHED = 500
PROBES = 2
_RANDOM = Random(1)


def measure(effort: Effort) -> list[Row]:
    return [
        *_operations(effort.runs),
        *asyncio.run(_policy(effort.runs)),
        _memory(),
        *asyncio.run(_dead_source(effort.seconds)),
    ]


def _breaker(**config: Any) -> CircuitBreaker:
    given = CircuitBreakerConfig(sliding_window_size=breakers.WINDOW, **config)
    return CircuitBreaker("bench", given, clock=time.monotonic, random=_RANDOM)


def _operations(runs: int) -> list[Row]:
    closed, with_slow, opened = _breaker(), _breaker(slow_call_duration_threshold=60.0), _breaker()
    opened.open_for(3600)
    success = CallVerdict.SUCCESS
    peer, others = breakers.interlock(), breakers.others()
    operations: dict[str, Callable[[], Any]] = {
        "closed ours": lambda: closed.acquire().settle(success),
        "closed ours, slow calls watched": lambda: with_slow.acquire().settle(success),
        f"closed {peer.name}": peer.good,
        "open ours": opened.try_acquire,
        "open ours, raising": breakers.raising(opened.acquire, CircuitOpenError),
        f"open {peer.name}": peer.refused,
        **{f"closed {other.name}": other.good for other in others},
        **{f"open {other.name}": other.refused for other in others},
    }
    micros: dict[str, list[float]] = {name: [] for name in operations}
    for _ in range(runs):
        for name, operation in operations.items():
            micros[name].append(_micros(operation))
    awaited = asyncio.run(_awaited(runs))
    return [
        Row(
            "breaker closed, acquire and settle",
            "of interlock-cb",
            ratios(micros["closed ours, slow calls watched"], micros[f"closed {peer.name}"]),
            Aim(0.6),
        ),
        Row(
            "breaker open, refused",
            "of interlock-cb",
            ratios(micros["open ours"], micros[f"open {peer.name}"]),
            Aim(0.6),
        ),
        *(Row(f"breaker {name}", "µs", values) for name, values in (micros | awaited).items()),
    ]


def _micros(operation: Callable[[], Any]) -> float:
    started = time.perf_counter()
    for _ in range(BLOCK):
        operation()
    return (time.perf_counter() - started) / BLOCK * 1e6


async def _awaited(runs: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for name, (good, refused) in (await breakers.awaited()).items():
        found[f"closed {name}"] = [await _micros_awaited(good) for _ in range(runs)]
        found[f"open {name}"] = [await _micros_awaited(refused) for _ in range(runs)]
    return found


async def _micros_awaited(operation: Callable[[], Awaitable[Any]], block: int = BLOCK // 4) -> float:
    started = time.perf_counter()
    for _ in range(block):
        await operation()
    return (time.perf_counter() - started) / block * 1e6


async def _policy(runs: int) -> list[Row]:
    clock, random = time.monotonic, _RANDOM

    async def at_once() -> int:
        return 1

    policy = ResiliencePolicy(
        "whole",
        ResilienceConfig(),
        clock=clock,
        random=random,
        breaker=_breaker(slow_call_duration_threshold=60.0),
        bulkhead=Bulkhead("whole", max_concurrent_calls=10),
        single_flight=SingleFlight(deadline=1.0, clock=clock),
        fallback=LastGood(max_age=60.0, clock=clock),
    )
    added: dict[str, list[float]] = {"alone": [], "shared": []}
    for _ in range(runs):
        bare = await _micros_awaited(at_once)
        added["alone"].append(await _micros_awaited(lambda: policy.call(at_once, idempotent=True)) - bare)
        added["shared"].append(await _micros_awaited(lambda: policy.call(at_once, idempotent=True, key=1)) - bare)
    return [
        Row("policy around nothing", "µs added", added["alone"], Aim(40.0)),
        Row("policy around nothing, in a flight that others could join", "µs added", added["shared"], Aim(40.0)),
    ]


def _memory() -> Row:
    kept = []
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(BREAKERS_WEIGHED):
        breaker = CircuitBreaker(
            f"endpoint {number}",
            CircuitBreakerConfig(sliding_window_size=breakers.WINDOW, slow_call_duration_threshold=60.0),
            clock=time.monotonic,
            random=_RANDOM,
        )
        for call in range(2 * breakers.WINDOW):
            breaker.acquire().settle(CallVerdict.FAILURE if call % 3 == 0 else CallVerdict.SUCCESS)
        kept.append(breaker)
    gc.collect()
    each = (tracemalloc.get_traced_memory()[0] - before) / len(kept)
    tracemalloc.stop()
    return Row("breaker with a count window of 100", "KB", [each / 1024], Aim(8.0))


async def _dead_source(seconds: float) -> list[Row]:
    changes: list[StateTransition] = []

    def note(event: BreakerEvent) -> None:
        if isinstance(event, StateTransition):
            changes.append(event)

    config = CircuitBreakerConfig(
        consecutive_failures_threshold=5,
        wait_duration_in_open=3.0,
        permitted_calls_in_half_open=PROBES,
    )
    breaker = CircuitBreaker("source", config, clock=time.monotonic, random=_RANDOM, on_event=note)
    policy = ResiliencePolicy(
        "source",
        ResilienceConfig(deadline=1.0, attempt_timeout=0.8, retry=RetryConfig(max_attempts=3)),
        clock=time.monotonic,
        random=_RANDOM,
        breaker=breaker,
    )
    async with _counting_source() as (url, reached), HttpClient(1.0, 65_536) as client:
        source = HttpSource(client, url, ["bitcoin", "ethereum"])
        asked = 0
        sent: list[float] = []
        due = time.monotonic() + seconds

        async def fetch() -> Fetched:
            sent.append(time.monotonic())
            return await source.fetch()

        async def read() -> None:
            nonlocal asked
            while time.monotonic() < due:
                asked += 1
                with contextlib.suppress(SourceError, CircuitOpenError, TimeoutError):
                    await policy.call(fetch, idempotent=True)
                await asyncio.sleep(READ_INTERVAL_S)

        async with asyncio.TaskGroup() as group:
            for _ in range(READERS):
                group.create_task(read())
    if not changes:
        raise MeasureError("the circuit did not open on a dead source")
    half_opens = sum(change.to_state is BreakerState.HALF_OPEN for change in changes)
    # what had been let through while closed reaches the source after that all the same
    before_opening = sum(at <= changes[0].at for at in sent)
    allowed = half_opens * PROBES
    return [
        Row(
            "dead source: calls that reached it once open",
            "of those the probes allow",
            [(len(reached) - before_opening) / max(allowed, 1)],
            Aim(1.1),
        ),
        Row("dead source: calls before it opened", "calls", [before_opening]),
        Row("dead source: calls once open", "calls", [len(reached) - before_opening]),
        Row("dead source: questions", "calls", [asked]),
    ]


@contextlib.asynccontextmanager
async def _counting_source() -> AsyncIterator[tuple[str, list[float]]]:
    reached: list[float] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                reached.append(time.monotonic())
                writer.write(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")
                await writer.drain()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", reached
    finally:
        server.close()
