"""The checks of the running system: from facts to judgements. Each yields one `ok`, or one judgement per problem."""

from __future__ import annotations

from collections.abc import Iterator

from cotacoes.adapters.postgres.schema import known_migrations, pending_migrations
from cotacoes.doctor.facts import Facts, RunningService
from cotacoes.doctor.finding import Judgement, error, ok, warning
from cotacoes.errors import SettingError
from cotacoes.model.listing import listed
from cotacoes.up.supervision.service import ServiceState

RESTARTS_CALM = 2  # more than that are not accidental
STEADY_S = 600.0  # after this time alive, earlier restarts no longer count
PENDING_CALM_S = 5.0  # a healthy shard stores a quote much sooner
NAMED_MAX = 5


def system(facts: Facts) -> Iterator[Judgement]:
    """Check whether an `up` runs on the folder."""
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
    """Check the state of each service, and how often it was restarted."""
    judged = [judgement for name, service in facts.services.items() for judgement in _part(facts, name, service)]
    yield from judged
    if facts.services and not judged:
        yield ok("every service runs")


def _part(facts: Facts, name: str, service: RunningService) -> Iterator[Judgement]:
    said = f"; its last message: {service.last_words}" if service.last_words else ""
    match service.state:
        case ServiceState.FAILED:
            yield error(f"{name} gave up{said}", facts.command("start", name))
        case ServiceState.RESTARTING:
            yield error(f"{name} died and will be restarted (restart {service.restarts}){said}")
        case ServiceState.STOPPED | ServiceState.PAUSED:
            yield warning(f"somebody left {name} {service.state.shown}", facts.command("start", name))
        case ServiceState.WAITING | ServiceState.STARTING:
            yield warning(f"{name} is not running yet ({service.state})")
        case _ if name in facts.silent:
            yield error(f"{name} runs but does not answer: {facts.silent[name]}", _restart(facts, name))
        case _ if service.restarts > RESTARTS_CALM and service.alive_s < STEADY_S:
            yield warning(f"{name} runs, but was restarted {service.restarts} times{said}")


def _restart(facts: Facts, service: str) -> str | None:
    if service not in facts.services:
        return None  # it runs elsewhere
    return f"{facts.command('stop', service)} && {facts.command('start', service)}"


def shards(facts: Facts) -> Iterator[Judgement]:
    """Check that each shard answers."""
    for name, shard in facts.shards.items():
        if shard.problem is not None:
            yield error(shard.problem, facts.start_of(name))
        elif facts.prices is not None and name in facts.prices.readiness:
            yield warning(f"quote_service cannot use {name}: {facts.prices.readiness[name]}")
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
    """Check that each shard has exactly this release's schema: services treat any other as away."""
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
                troubles.append(error(f"{name} lacks {names}, so no service uses it", _migrate(facts)))
    yield from troubles
    if asked and not troubles:
        yield ok(f"the schema of {listed(asked, NAMED_MAX)} is {known[-1].version}, which this release needs")


def _migrate(facts: Facts) -> str:
    return f'eval "$({facts.command("env")})" && cotacoes migrate' if facts.is_running else "cotacoes migrate"


def partitions(facts: Facts) -> Iterator[Judgement]:
    """Check that the coming days have their partitions; a batch that finds none has to make it, which takes time."""
    if facts.prices is None:
        return  # quote_service, which makes them, does not run
    missing = {name: shard.missing_days for name, shard in facts.shards.items() if shard.missing_days}
    for name, days in missing.items():
        names = ", ".join(map(str, days))
        yield warning(f"{name} has no partition for {names}: quote_service makes it", _restart(facts, "quote_service"))
    if not missing and any(shard.problem is None for shard in facts.shards.values()):
        yield ok("the partitions of today and the coming days exist")


def redis(facts: Facts) -> Iterator[Judgement]:
    """Check that Redis answers, and that published quotes reach it and a subscriber."""
    if not facts.has_redis:
        return
    if facts.redis_problem is not None:
        yield error(f"live quotes reach no subscriber: {facts.redis_problem}", facts.start_of("redis"))
        return
    prices = facts.prices
    if prices is not None and prices.unpublished:
        yield error(f"Redis answers, but quotes of {listed(prices.unpublished, NAMED_MAX)} are not published in time")
    if prices is not None and prices.unheard:
        yield warning(
            f"no subscriber listens to {listed(prices.unheard, NAMED_MAX)}", facts.start_of("client_subscriber")
        )
    if prices is None or not (prices.unpublished or prices.unheard):
        yield ok("Redis answers" + ("" if prices is None or prices.problem else ", and every coin has a subscriber"))


def quotes(facts: Facts) -> Iterator[Judgement]:
    """Check that every coin has a fresh quote."""
    prices = facts.prices
    if prices is None:
        return
    if prices.problem is not None:
        yield error(f"no current quote available: {prices.problem}", facts.start_of("quote_service"))
        return
    fix = facts.start_of_source()
    fresh = []
    for coin, current in prices.currents.items():
        if isinstance(current, str):
            yield error(f"{coin} has no current quote: {current}", fix)
        elif current.status == "fresh":
            fresh.append(coin)
        else:
            yield warning(f"{coin} is stale, {current.age_ms / 1000:.1f} s old", fix)
    if len(fresh) == len(prices.currents):
        yield ok(f"fresh: {listed(fresh, NAMED_MAX)}")


def circuit(facts: Facts) -> Iterator[Judgement]:
    """Check the circuit breaker of the source."""
    if facts.prices is None:
        return
    answers = [one for one in facts.prices.currents.values() if not isinstance(one, str)]
    states = {answer.breaker for answer in answers} - {None}
    source = facts.source_service
    # feed_service never fails on purpose; its own faults are those of the venues
    clear = facts.command("faults", "clear") if facts.services and source == "external_service" else None
    for state in states - {"closed"}:
        yield warning(
            f"the circuit to {source} is {state}: it fails, and prices grow older", facts.start_of_source() or clear
        )
    if states == {"closed"}:
        yield ok(f"the circuit to {source} is closed")


def local_log(facts: Facts) -> Iterator[Judgement]:
    """Check that the local log can be written, and what is not yet delivered from it."""
    prices, stored = facts.prices, facts.stored_log
    if prices is not None and "log" in prices.readiness:
        yield error(f"nothing is recorded: {prices.readiness['log']}")
    elif prices is not None and prices.problem is None:
        yield from _undelivered(facts)
    elif stored is not None and stored.problem is not None:
        yield error(f"cannot read the local log: {stored.problem}")
    elif stored is not None:
        count = sum(stored.pending.values())
        at = stored.oldest_pending_at
        age = _age(None if at is None else (facts.now - at).total_seconds())
        yield ok(
            f"the next start delivers {count} pending quotes, {age}" if count else "the local log has no pending quote"
        )


def _undelivered(facts: Facts) -> Iterator[Judgement]:
    assert facts.prices is not None
    waiting = {coin: progress for coin, progress in facts.prices.progress.items() if progress.pending}
    late = 0
    for coin, progress in waiting.items():
        age_s = facts.prices.oldest_pending_s.get(coin)
        if age_s is None or age_s > PENDING_CALM_S:
            late += 1
            text = f"pending on the way to {progress.shard}: {progress.pending} of {coin}, {_age(age_s)}"
            yield warning(text, facts.start_of(progress.shard))
    if not late:
        yield ok("every recorded quote is on its shard or on its way")


def _age(seconds: float | None) -> str:
    return "for an unknown time" if seconds is None else f"the oldest for {seconds:.0f} s"


def source_gaps(facts: Facts) -> Iterator[Judgement]:
    """Check for holes in the source's tape, which nothing can fill."""
    noted = facts.stored_log if facts.prices is None or facts.prices.problem else facts.prices
    if noted is None or noted.problem is not None:
        return
    if noted.source_gaps:
        yield warning(f"the source's tape has holes ({noted.source_gaps} noted): those prices were never available")
    else:
        yield ok("no hole in the source's tape has been noted")
