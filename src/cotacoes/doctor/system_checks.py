"""The checks of the running system: facts in, judgements out. Each says one `ok`, or one thing for each trouble."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from cotacoes.adapters.postgres.schema import known_migrations, pending_migrations
from cotacoes.doctor.facts import Facts, RunningService
from cotacoes.doctor.finding import Judgement, error, ok, warning
from cotacoes.errors import SettingError
from cotacoes.model.listing import listed
from cotacoes.up.supervision.service import ServiceState

RESTARTS_CALM = 2  # more of them are no accident
STEADY_S = 600.0  # alive for so long, a service's deaths are of the past
PENDING_CALM_S = 5.0  # a shard that is there has a quote well before
NAMED_MAX = 5


def system(facts: Facts) -> Iterator[Judgement]:
    """Whether an `up` runs on the folder."""
    if facts.up_problem is not None:
        pid = facts.up_suspended_pid
        yield error(
            facts.up_problem + ("" if pid is None else ": it was suspended"),
            None if pid is None else f"kill -CONT {pid}",
        )
    elif facts.is_running:
        yield ok(f"a system of {len(facts.services)} services runs on {facts.path}")
    else:
        yield ok(f"nothing runs on {facts.path}: `{facts.command('up')}` starts it")


def services(facts: Facts) -> Iterator[Judgement]:
    """Each service's state, and how often it had to be started again."""
    judged = [judgement for name, service in facts.services.items() for judgement in _part(facts, name, service)]
    yield from judged
    if facts.services and not judged:
        yield ok("every service runs")


def _part(facts: Facts, name: str, service: RunningService) -> Iterator[Judgement]:
    said = f", and said last: {service.last_words}" if service.last_words else ""
    match service.state:
        case ServiceState.FAILED:
            yield error(f"{name} gave up{said}", facts.command("start", name))
        case ServiceState.RESTARTING:
            yield error(f"{name} died and waits to be started again (restart {service.restarts}){said}")
        case ServiceState.STOPPED | ServiceState.FROZEN:
            yield warning(f"somebody left {name} {service.state}", facts.command("start", name))
        case ServiceState.WAITING | ServiceState.STARTING:
            yield warning(f"{name} is not up yet ({service.state})")
        case _ if name in facts.silent:
            yield error(f"{name} runs and does not answer: {facts.silent[name]}", _restart(facts, name))
        case _ if service.restarts > RESTARTS_CALM and service.alive_s < STEADY_S:
            yield warning(f"{name} runs, but had to be started again {service.restarts} times{said}")


def _restart(facts: Facts, service: str) -> str | None:
    if service not in facts.services:
        return None  # it runs somewhere else
    return f"{facts.command('stop', service)} && {facts.command('start', service)}"


def shards(facts: Facts) -> Iterator[Judgement]:
    """That each shard answers."""
    for name, shard in facts.shards.items():
        if shard.problem is not None:
            yield error(shard.problem, facts.start_of(name))
        elif facts.prices is not None and name in facts.prices.readiness:
            yield warning(f"quote_service can not use {name}: {facts.prices.readiness[name]}")
    readiness = {} if facts.prices is None else facts.prices.readiness
    if "ledger" in readiness:
        yield warning(f"the history lacks quotes: {readiness['ledger']}", facts.command("ledger", "list"))
    elif (
        facts.shards
        and not facts.shards.keys() & readiness.keys()
        and not any(shard.problem for shard in facts.shards.values())
    ):
        yield ok(f"{listed(facts.shards, NAMED_MAX)} answered")


def schema(facts: Facts) -> Iterator[Judgement]:
    """That each shard has exactly this release's schema: a service treats any other as away."""
    known = known_migrations()
    asked = {name: shard for name, shard in facts.shards.items() if shard.problem is None}
    troubles = []
    for name, shard in asked.items():
        try:
            due = pending_migrations(name, list(shard.migrations))
        except SettingError as refusal:
            troubles.append(error(str(refusal)))
        else:
            if due:
                names = ", ".join(migration.name for migration in due)
                troubles.append(error(f"{name} lacks {names}: no service uses it", _migrate(facts)))
    yield from troubles
    if asked and not troubles:
        yield ok(f"the schema of {listed(asked, NAMED_MAX)} is {known[-1].version}, as this release needs")


def _migrate(facts: Facts) -> str:
    return f'eval "$({facts.command("env")})" && cotacoes migrate' if facts.is_running else "cotacoes migrate"


def partitions(facts: Facts) -> Iterator[Judgement]:
    """That the days ahead have their tables; a batch that finds none makes its own, at the cost of its time."""
    if facts.prices is None:
        return  # nobody is there who should have made them
    missing = {name: shard.missing_days for name, shard in facts.shards.items() if shard.missing_days}
    for name, days in missing.items():
        told = ", ".join(map(str, days))
        yield warning(f"{name} has no partition for {told}: quote_service makes it", _restart(facts, "quote_service"))
    if not missing and any(shard.problem is None for shard in facts.shards.values()):
        yield ok("the partitions of today and the days ahead are there")


def redis(facts: Facts) -> Iterator[Judgement]:
    """That Redis answers, and that what is published gets there and is heard."""
    if not facts.has_redis:
        return
    if facts.redis_problem is not None:
        yield error(f"live quotes reach nobody: {facts.redis_problem}", facts.start_of("redis"))
        return
    prices = facts.prices
    if prices is not None and prices.unpublished:
        yield error(f"Redis answers, but quotes of {listed(prices.unpublished, NAMED_MAX)} are not published in time")
    if prices is not None and prices.unheard:
        yield warning(f"nobody listens to {listed(prices.unheard, NAMED_MAX)}", facts.start_of("client_subscriber"))
    if prices is None or not (prices.unpublished or prices.unheard):
        yield ok("Redis answers" + ("" if prices is None or prices.problem else ", and somebody listens to every coin"))


def quotes(facts: Facts) -> Iterator[Judgement]:
    """That there is a fresh quote of every coin."""
    prices = facts.prices
    if prices is None:
        return
    if prices.problem is not None:
        yield error(f"there is no current quote to be had: {prices.problem}", facts.start_of("quote_service"))
        return
    fix = facts.start_of("external_service")
    for coin, told in list(prices.currents.items()):
        if isinstance(told, str):
            yield error(f"{coin} has no current quote: {told}", fix)
        elif told.get("status") != "fresh":
            yield warning(f"{coin} is stale, {int(told.get('age_ms', 0)) / 1000:.1f} s old", fix)
    fresh = [coin for coin, told in prices.currents.items() if not isinstance(told, str) and _is_fresh(told)]
    if len(fresh) == len(prices.currents):
        yield ok(f"fresh: {listed(fresh, NAMED_MAX)}")


def _is_fresh(current: dict[str, Any]) -> bool:
    return current.get("status") == "fresh"


def circuit(facts: Facts) -> Iterator[Judgement]:
    """The circuit breaker before the source."""
    if facts.prices is None:
        return
    states = {told.get("breaker") for told in facts.prices.currents.values() if not isinstance(told, str)} - {None}
    mend = facts.start_of("external_service") or (facts.command("faults", "clear") if facts.services else None)
    for state in states - {"closed"}:
        yield warning(f"the circuit to the source is {state}: it fails, and prices age", mend)
    if states == {"closed"}:
        yield ok("the circuit to the source is closed")


def local_log(facts: Facts) -> Iterator[Judgement]:
    """That the local log can be written, and what it could not give to a shard yet."""
    prices, stored = facts.prices, facts.stored_log
    if prices is not None and "log" in prices.readiness:
        yield error(f"nothing is recorded: {prices.readiness['log']}")
    elif prices is not None and prices.problem is None:
        yield from _undelivered(facts)
    elif stored is not None and stored.problem is not None:
        yield error(f"the local log can not be read: {stored.problem}")
    elif stored is not None:
        count = sum(stored.pending.values())
        age = _age(facts, stored.oldest_pending_at)
        yield ok(
            f"the next start delivers {count} pending quotes, {age}" if count else "no quote waits in the local log"
        )


def _undelivered(facts: Facts) -> Iterator[Judgement]:
    assert facts.prices is not None
    waiting = {coin: progress for coin, progress in facts.prices.progress.items() if progress.pending}
    late = 0
    for coin, progress in waiting.items():
        at = facts.prices.oldest_pending_at.get(coin)
        if at is None or (facts.now - at).total_seconds() > PENDING_CALM_S:
            late += 1
            text = f"pending on the way to {progress.shard}: {progress.pending} of {coin}, {_age(facts, at)}"
            yield warning(text, facts.start_of(progress.shard))
    if not late:
        yield ok("every recorded quote is on its shard, or about to be")


def _age(facts: Facts, at: datetime | None) -> str:
    return "for how long is not known" if at is None else f"the oldest for {(facts.now - at).total_seconds():.0f} s"


def source_gaps(facts: Facts) -> Iterator[Judgement]:
    """Holes in the source's tape, which no restart of ours can fill."""
    told = facts.stored_log if facts.prices is None or facts.prices.problem else facts.prices
    if told is None or told.problem is not None:
        return
    if told.source_gaps:
        yield warning(f"the source's tape has holes ({told.source_gaps} noted): those prices were never to be had")
    else:
        yield ok("no hole in the source's tape is noted")
