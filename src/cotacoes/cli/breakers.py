"""The command that shows the circuit breakers of all services, and sets one of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from cotacoes.cli import queries
from cotacoes.cli.options import AsJson, Data
from cotacoes.cli.output import NONE, UNKNOWN, put_json, put_table, say, understood
from cotacoes.errors import ProblemError
from cotacoes.model.breakers import BreakerJson, BreakersJson, SettableState
from cotacoes.model.quote import parse_time

if TYPE_CHECKING:
    from cotacoes.web.service_client import ServiceClient

SERVICES = ("quote_service", "aggregator_service", "gateway_service")
FEED_SERVICE = "feed_service"  # only if exchanges are the source
STATES: tuple[str, ...] = get_args(SettableState)
COLUMNS = (
    *("breaker", "state", "failed", "calls", "rate", "in a row", "slow", "refused", "generation", "retry in"),
    *("budget", "last change", "error"),
)

app = typer.Typer()


@app.command()
def breakers(
    name: Annotated[
        str | None, typer.Argument(metavar="SERVICE/NAME", help="as the list names it (default: all)")
    ] = None,
    state: Annotated[str | None, typer.Argument(metavar="STATE", help=f"one of {', '.join(STATES)}")] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> int:
    """Show the circuit breakers of all services, or set one of them.

    \b
    Examples:
      cotacoes breakers
      cotacoes breakers --json
      cotacoes breakers gateway_service/quote_service.current
      cotacoes breakers quote_service/external_service.quote forced_open
      cotacoes breakers quote_service/external_service.quote closed

    closed resets the breaker, forced_open lets no call pass, disabled lets every call pass, and metrics_only lets every
    call pass and counts it.
    """
    service, _, breaker = (name or "").partition("/")
    if name is not None and (service not in (*SERVICES, FEED_SERVICE) or not breaker):
        raise typer.BadParameter(f"give SERVICE/NAME; the services are {', '.join((*SERVICES, FEED_SERVICE))}")
    chosen = None if state is None else state.replace("-", "_").lower()
    if chosen is not None and chosen not in STATES:
        raise typer.BadParameter(f"give one of the states {', '.join(STATES)}")

    async def ask(client: ServiceClient) -> int:
        if chosen is not None:
            await client.set_breaker(service, breaker, chosen)
        return await show(client, service, breaker, as_json=as_json)

    return queries.ask_services(data, ask)


async def show(client: ServiceClient, service: str, breaker: str, *, as_json: bool) -> int:
    """Print the chosen breaker, or those of all services that answer; return the exit code.

    For a service that is away, overloaded or of another version a line says so, and the others are shown.
    """
    rows: list[tuple[object, ...]] = []
    away = 0
    services = (*SERVICES, FEED_SERVICE) if client.follows_venues else SERVICES
    for one in services if not service else (service,):
        try:
            answer = await client.breakers(one)
            shown = understood(answer, BreakersJson, one)
        except ProblemError as error:
            say(f"{one}: {error.detail}")
            away += 1
            continue
        for found, raw in zip(shown.breakers, answer["breakers"], strict=True):
            if breaker and found.name != breaker:
                continue
            if as_json:
                put_json({"service": one, **raw})
            rows.append(row(one, found, datetime.now(UTC)))
    if breaker and not rows and not away:
        say(f"{service} has no breaker {breaker}: `cotacoes breakers` lists them")
        return 1
    if rows and not as_json:
        put_table(COLUMNS, rows)
    return 4 if away and not rows else 0


def row(service: str, breaker: BreakerJson, now: datetime) -> tuple[object, ...]:
    """One row, in the order of COLUMNS."""
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


def _state(breaker: BreakerJson) -> str:
    """The state, with what it alone does not show."""
    if breaker.is_awaited:
        return f"{breaker.state}, service awaited"
    is_over = breaker.state == "open" and breaker.next_call == "probe"
    return "open, next call is a probe" if is_over else breaker.state


def _ago(at: str, now: datetime) -> str:
    try:
        return f"{max(0.0, (now - parse_time(at)).total_seconds()):.0f} s ago"
    except ValueError:
        return UNKNOWN
