"""Pull any plug: current quotes are still answered in time, honestly, and all of it heals without a person."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.system.conftest import System, wait_until
from tests.system.harness_witness import Row, falls, subscriber_lives, unreported

from cotacoes.model.quote import Position

COINS = ("bitcoin", "ethereum")
OFTEN = {"COTACOES_POLL_INTERVAL_S": "0.2"}


@pytest.fixture(scope="module")
def running_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One that polls often and has ten quotes of each coin, for all tests here; each leaves it running."""
    with System(tmp_path_factory.mktemp("a system") / "data", environment=OFTEN) as system:
        system.start()
        for coin in COINS:
            new_quotes(system, coin, 10)
        yield system


def current(system: System, coin: str = "bitcoin") -> dict[str, Any]:
    """The current quote; the test fails if it is refused."""
    answer = system.get("quote_service", f"/cotacao_atual/{coin}")
    assert answer.status == 200, answer.body
    body: dict[str, Any] = answer.body
    return body


def report(system: System) -> dict[str, Any]:
    body: dict[str, Any] = system.get("aggregator_service", "/report/full").body
    return body


def new_quotes(system: System, coin: str, count: int = 3) -> None:
    """Return once the subscriber has shown this many further quotes of the coin."""

    def shown() -> int:
        return sum(event["type"] == "quote" and event["coin"] == coin for event in list(system.events))

    before = shown()
    wait_until(f"{count} further quotes of {coin}", lambda: shown() >= before + count, 30)


def said(system: System, event: str, since: int) -> Any:
    """The first such event after `since` lines of `up`."""
    return wait_until(
        event, lambda: next((e for e in list(system.events)[since:] if e.get("event") == event), None), 30
    )


def test_a_source_that_fails_opens_the_circuit_and_the_last_quotes_age_until_it_closes(running_system: System) -> None:
    system = running_system
    new_quotes(system, "bitcoin", 1)
    since = len(system.events)
    assert system.cli("faults", "error_rate=1", "for_s=8").returncode == 0
    said(system, "breaker.opened", since)
    first = current(system)
    assert first["source"] == "cache"
    assert first["breaker"] != "closed"
    stale = wait_until("the quote is stale", lambda: q if (q := current(system))["status"] == "stale" else None)
    assert stale["age_ms"] > first["age_ms"]
    assert (stale["epoch"], stale["seq"], stale["price"]) == (first["epoch"], first["seq"], first["price"])
    said(system, "breaker.half_opened", since)
    said(system, "breaker.closed", since)
    wait_until("fresh and live again", lambda: _state(current(system)) == ("fresh", "live", "closed"))
    now = current(system)
    assert (now["epoch"], now["seq"]) > (first["epoch"], first["seq"])


def _state(quote: dict[str, Any]) -> tuple[str, str, str]:
    return quote["status"], quote["source"], quote["breaker"]


@pytest.mark.parametrize("how", ["stop", "freeze"])
def test_without_its_shard_a_coin_stays_live_and_what_is_pending_is_delivered_later(
    running_system: System, how: str
) -> None:
    system = running_system
    system.ask(how, "shard1")
    since = len(system.events)
    new_quotes(system, "bitcoin", 4)
    assert wait_until("quotes are pending", lambda: report(system)["coins"]["bitcoin"]["pending"]) > 0
    body = report(system)
    assert not body["complete"]
    assert "shard1" in {missing["part"] for missing in body["missing"]}
    assert body["coins"]["bitcoin"]["last_logs"] is None
    assert body["coins"]["bitcoin"]["current"]["status"] == "fresh"
    assert body["coins"]["ethereum"]["last_logs"]
    assert body["elapsed_ms"] <= body["deadline_ms"]
    assert system.get("quote_service", "/media_ultimos_10_logs/bitcoin").body["count"] == 10
    system.ask("start", "shard1")
    said(system, "delivery.resumed", since)
    healed = wait_until("all is delivered", lambda: _complete(report(system)))
    newest = healed["coins"]["bitcoin"]["last_logs"][-1]
    assert healed["coins"]["bitcoin"]["through"] == f"{newest['epoch']}-{newest['seq']}"


def _complete(body: dict[str, Any]) -> dict[str, Any] | None:
    pending = [body["coins"][coin]["pending"] for coin in COINS]
    return body if body["complete"] and pending == [0, 0] else None


@pytest.mark.parametrize("how", ["stop", "freeze"])
def test_without_redis_quotes_are_answered_and_recorded_and_the_live_view_has_no_hole_afterwards(
    running_system: System, how: str
) -> None:
    """A frozen Redis may still pass on what it got, late; then there is nothing to tell as missed."""
    system = running_system
    new_quotes(system, "bitcoin", 1)
    before = current(system)
    since = len(system.events)
    system.ask(how, "redis")
    later = wait_until(
        "three further quotes", lambda: q if (q := current(system))["seq"] >= before["seq"] + 3 else None, 30
    )
    assert _state(later)[0] == "fresh"
    system.ask("start", "redis")
    new_quotes(system, "bitcoin", 3)
    page = system.get("quote_service", f"/v1/quotes/bitcoin?after={before['epoch']}-{before['seq']}").body
    seqs = [quote["seq"] for quote in page["quotes"]]
    assert seqs == list(range(before["seq"] + 1, seqs[-1] + 1))
    if how == "stop":
        gap = said(system, "gap.detected", since)
        assert gap["through"] != gap["after"]
        said(system, "gap.filled", since)
        new_quotes(system, "bitcoin", 1)
    rows = [Row(Position(quote["epoch"], quote["seq"]), quote["price"], None) for quote in page["quotes"]]
    heard = subscriber_lives(list(system.events))[-1]["bitcoin"]
    assert heard.gone == []
    assert unreported(rows, heard) == []
    assert falls([position for position, _ in heard.quotes], strictly=True) == []


@pytest.mark.parametrize("part", ["shard1", "redis", "external_service", "aggregator_service"])
def test_current_quotes_and_the_report_meet_their_deadlines_whatever_hangs(running_system: System, part: str) -> None:
    system = running_system
    new_quotes(system, "ethereum", 1)
    system.ask("freeze", part)
    try:
        for coin in COINS:
            assert current(system, coin)["price"]
        if part != "aggregator_service":
            body = report(system)
            assert body["elapsed_ms"] <= body["deadline_ms"]
            assert body["complete"] == (part != "shard1")
        assert system.get("gateway_service", "/v1/quotes/ethereum/current").status == 200
    finally:
        system.ask("start", part)


def test_without_quote_service_the_shards_still_report_and_the_gateway_serves_the_last_quote_with_its_age(
    running_system: System,
) -> None:
    system = running_system
    known = system.get("gateway_service", "/v1/quotes/bitcoin/current").body
    system.ask("stop", "quote_service")
    body = report(system)
    assert [missing["part"] for missing in body["missing"]] == ["quote_service"]
    assert all(body["coins"][coin]["last_logs"] and body["coins"][coin]["current"] is None for coin in COINS)
    first = system.get("gateway_service", "/v1/quotes/bitcoin/current").body
    assert first["source"] == "cache"
    assert first["seq"] >= known["seq"]  # one more may have come before the stop
    time.sleep(0.5)
    later = system.get("gateway_service", "/v1/quotes/bitcoin/current").body
    assert (later["price"], later["seq"]) == (first["price"], first["seq"])
    assert later["age_ms"] >= first["age_ms"] + 500
    system.ask("start", "quote_service")
    new_quotes(system, "bitcoin", 1)
    quotes = system.get("quote_service", "/v1/quotes/bitcoin?last=10000").body["quotes"]
    assert {"epoch": first["epoch"], "seq": first["seq"], "price": first["price"]} in [
        {name: quote[name] for name in ("epoch", "seq", "price")} for quote in quotes
    ]
    eras = sorted({quote["epoch"] for quote in quotes})
    assert len(eras) >= 2
    beginning = next(quote for quote in quotes if quote["epoch"] == eras[-1])
    last = [quote for quote in quotes if quote["epoch"] == eras[-2]][-1]
    assert beginning["prev"] == f"{last['epoch']}-{last['seq']}"


def test_a_flushed_redis_and_a_restarted_one_lose_nothing(running_system: System) -> None:
    """Positions do not come from Redis, so they go on."""
    system = running_system
    before = current(system)
    system.kill("redis")
    time.sleep(0.5)
    wait_until("redis runs", lambda: system.status()["redis"]["state"] == "running", 30)
    new_quotes(system, "bitcoin", 2)
    now = current(system)
    assert now["epoch"] == before["epoch"]
    quotes = system.get("quote_service", f"/v1/quotes/bitcoin?after={before['epoch']}-{before['seq']}").body["quotes"]
    assert [quote["seq"] for quote in quotes] == list(range(before["seq"] + 1, before["seq"] + 1 + len(quotes)))
