"""The command that shows the circuit breakers of all services, and sets one."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from cotacoes.cli import queries
from cotacoes.cli.options import AsJson, Data
from cotacoes.cli.output import NONE, UNKNOWN, put_json, put_table, say, understood
from cotacoes.errors import ProblemError
from cotacoes.model.quote import parse_time

if TYPE_CHECKING:
    from cotacoes.client import ServiceClient

SERVICES = ("quote_service", "aggregator_service", "gateway_service")
STATES = ("closed", "forced_open", "disabled", "metrics_only")  # those that a person may set
COLUMNS = (
    *("breaker", "state", "failed", "of", "rate", "in a row", "slow", "refused", "era", "next try", "budget"),
    *("last change", "error"),
)

app = typer.Typer()


class Window(msgspec.Struct, frozen=True):
    """What is shown of what a breaker has seen."""

    calls: int
    failures: int
    slow_calls: int
    failure_rate: float | None


class Change(msgspec.Struct, frozen=True):
    """One transition."""

    at: str
    to: str
    reason: str


class Failure(msgspec.Struct, frozen=True):
    """One error."""

    at: str
    error: str


class Breaker(msgspec.Struct, frozen=True):
    """What is shown of a breaker."""

    name: str
    state: str
    generation: int
    retry_after_s: float | None
    window: Window
    consecutive_failures: int
    not_permitted: int
    retry_budget: float
    last_errors: list[Failure]
    transitions: list[Change]
    next_call: str = "made"
    is_awaited: bool = False


class Breakers(msgspec.Struct, frozen=True):
    """Those of one service."""

    breakers: list[Breaker]


@app.command()
def breakers(
    name: Annotated[str | None, typer.Argument(metavar="SERVICE/NAME", help="as the list names it; none: all")] = None,
    state: Annotated[str | None, typer.Argument(metavar="STATE", help=f"one of {', '.join(STATES)}")] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> int:
    """Show the circuit breakers of all services, or set one.

    \b
    Examples:
      cotacoes breakers
      cotacoes breakers --json
      cotacoes breakers gateway_service/quote_service.current
      cotacoes breakers quote_service/external_service.quote forced_open
      cotacoes breakers quote_service/external_service.quote closed

    closed resets it, forced_open lets nothing through, disabled everything, metrics_only everything and counts it.
    """
    service, _, breaker = (name or "").partition("/")
    if name is not None and (service not in SERVICES or not breaker):
        raise typer.BadParameter(f"give SERVICE/NAME, with a service of {', '.join(SERVICES)}")
    chosen = None if state is None else state.replace("-", "_").lower()
    if chosen is not None and chosen not in STATES:
        raise typer.BadParameter(f"give a state of {', '.join(STATES)}")
    services = queries.client_for(data)

    async def asking() -> int:
        async with services as client:
            if chosen is not None:
                await client.set_breaker(service, breaker, chosen)
            return await show(client, service, breaker, as_json=as_json)

    return asyncio.run(asking())


async def show(client: ServiceClient, service: str, breaker: str, *, as_json: bool) -> int:
    """The chosen breaker, or all of all services that answer; the exit code.

    One that is away, overloaded or of another version is a line that says so: the others are told all the same.
    """
    rows: list[tuple[object, ...]] = []
    away = 0
    for one in SERVICES if not service else (service,):
        try:
            answer = await client.breakers(one)
            shown = understood(answer, Breakers, one)
        except ProblemError as error:
            say(f"{one}: {error.detail}")
            away += 1
            continue
        for told, raw in zip(shown.breakers, answer["breakers"], strict=True):
            if breaker and told.name != breaker:
                continue
            if as_json:
                put_json({"service": one, **raw})
            rows.append(row(one, told, datetime.now(UTC)))
    if breaker and not rows and not away:
        say(f"{service} has no breaker {breaker}: `cotacoes breakers` lists them")
        return 1
    if rows and not as_json:
        put_table(COLUMNS, rows)
    return 4 if away and not rows else 0


def row(service: str, breaker: Breaker, now: datetime) -> tuple[object, ...]:
    """One row, under COLUMNS."""
    change = breaker.transitions[0] if breaker.transitions else None
    error = breaker.last_errors[0] if breaker.last_errors else None
    return (
        f"{service}/{breaker.name}",
        _state(breaker),
        breaker.window.failures,
        breaker.window.calls,
        NONE if breaker.window.failure_rate is None else f"{breaker.window.failure_rate:.0%}",
        breaker.consecutive_failures,
        breaker.window.slow_calls,
        breaker.not_permitted,
        breaker.generation,
        NONE if breaker.retry_after_s is None else f"{breaker.retry_after_s:.1f} s",
        f"{breaker.retry_budget:.1f}",
        NONE if change is None else f"{change.reason}, {_ago(change.at, now)}",
        NONE if error is None else f"{error.error}, {_ago(error.at, now)}",
    )


def _state(breaker: Breaker) -> str:
    """The state, and what is not seen by it."""
    if breaker.is_awaited:
        return f"{breaker.state}, service awaited"
    is_over = breaker.state == "open" and breaker.next_call == "probe"
    return "open, next call is a probe" if is_over else breaker.state


def _ago(at: str, now: datetime) -> str:
    try:
        return f"{max(0.0, (now - parse_time(at)).total_seconds()):.0f} s ago"
    except ValueError:
        return UNKNOWN
