"""What other Python packages do for one good call through a closed circuit, and for one refused call of an open one.

Each is called as its documentation calls it, and no listener is set anywhere. interlock-cb is the peer: it has windows
and probes, so its state machine does the same work as ours, fed as its own call layer feeds it: two looks at the clock,
the generation of the admission, the outcome by duration. The others count failures in a row or in all, which is less
work; they are shown, not compared.
"""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from benchmarks.figure import MeasureError

Operation = Callable[[], Any]
WINDOW = 100


@dataclass(frozen=True)
class Peer:
    """`good` is one successful call, `refused` one that is not made."""

    name: str
    good: Operation
    refused: Operation


class _Clock:
    monotonic = staticmethod(time.monotonic)


def interlock() -> Peer:
    """Its state machine, without its lock and listeners."""
    state_machine, config, outcomes = (
        _module("interlock._state_machine"),
        _module("interlock.config"),
        _module("interlock.outcome"),
    )
    settings = config.Config(window_size=WINDOW)
    machine = state_machine.StateMachine(config=settings, clock=_Clock())
    success, slow_success = outcomes.Outcome.SUCCESS, outcomes.Outcome.SLOW_SUCCESS
    clock = time.monotonic

    def good() -> None:
        started = clock()
        generation = machine.generation
        if machine.acquire():
            is_slow = clock() - started >= settings.slow_call_duration_threshold
            machine.record(slow_success if is_slow else success, generation=generation)

    opened = state_machine.StateMachine(config=settings, clock=_Clock())
    for _ in range(WINDOW):
        opened.record(outcomes.Outcome.FAILURE)
    return Peer("interlock-cb", good, opened.acquire)


def others() -> list[Peer]:
    """pybreaker and circuitbreaker, which are called; aiobreaker and purgatory are in `awaited`."""
    pybreaker, circuitbreaker = _module("pybreaker"), _module("circuitbreaker")
    first, first_open = pybreaker.CircuitBreaker(), pybreaker.CircuitBreaker()
    first_open.open()
    second, second_open = circuitbreaker.CircuitBreaker(name="closed"), circuitbreaker.CircuitBreaker(name="open")
    through, not_through = second(_nothing), second_open(_nothing)  # decorated: its `call` alone refuses nothing
    _until_open(lambda: second_open.call(_fail), lambda: second_open.opened)
    return [
        Peer(
            "pybreaker",
            lambda: first.call(_nothing),
            raising(lambda: first_open.call(_nothing), pybreaker.CircuitBreakerError),
        ),
        Peer("circuitbreaker", through, raising(not_through, circuitbreaker.CircuitBreakerError)),
    ]


async def awaited() -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Those that are awaited: name to a good and to a refused call."""
    aiobreaker, purgatory = _module("aiobreaker"), _module("purgatory")
    first = aiobreaker.CircuitBreaker()
    first_open = aiobreaker.CircuitBreaker(timeout_duration=timedelta(hours=1))
    first_open.open()
    factory = purgatory.AsyncCircuitBreakerFactory(default_threshold=1, default_ttl=3600)
    second, second_open = await factory.get_breaker("closed"), await factory.get_breaker("open")
    with contextlib.suppress(OSError):
        async with second_open:
            _fail()

    async def through_purgatory() -> None:
        async with second:
            pass

    async def refused_by_purgatory() -> None:
        try:
            async with second_open:
                pass
        except purgatory.domain.model.OpenedState as error:
            error.__traceback__ = None  # it raises one object again and again, whose traceback would grow for ever

    async def refused_by_aiobreaker() -> None:
        with contextlib.suppress(aiobreaker.CircuitBreakerError):
            await first_open.call_async(_nothing_async)

    return {
        "aiobreaker": (lambda: first.call_async(_nothing_async), refused_by_aiobreaker),
        "purgatory": (through_purgatory, refused_by_purgatory),
    }


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MeasureError(f"{name} is not installed: run it as `make bench`") from error


def _nothing() -> None: ...


async def _nothing_async() -> None: ...


def _fail() -> None:
    raise OSError


def _until_open(call: Operation, is_open: Callable[[], bool]) -> None:
    for _ in range(1000):
        if is_open():
            return
        with contextlib.suppress(OSError):
            call()
    raise MeasureError("a breaker did not open after 1,000 failures")


def raising(call: Operation, error: type[Exception]) -> Operation:
    """A refused call of a breaker that says so by an error; MeasureError where it is let through."""

    def refused() -> None:
        try:
            call()
        except error:
            return
        raise MeasureError("an open breaker let a call through")

    return refused
