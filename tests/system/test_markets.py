"""A system that follows exchanges, simulated ones: what people see of them, and that a liar and a dead feed show."""

import json
import signal
import socket
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.system.conftest import PARTS, System, wait_until

VENUES = ["binance", "coinbase", "kraken", "bitstamp", "okx", "bybit"]
AGES = {"COTACOES_FRESH_S": "2", "COTACOES_AGE_MAX_S": "6"}


@pytest.fixture(scope="module")
def following(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("following")
    with System(folder / "data", "--source", "venues", environment=AGES) as system:
        system.begin()
        system.wait_for_states(dict.fromkeys([*PARTS, "feed_service"], "running"))
        wait_until("all agree", lambda: bitcoin(system)["used"] == len(VENUES))
        yield system


def bitcoin(system: System) -> dict[str, Any]:
    """What `cotacoes venues bitcoin` shows; its exit code is 3 if there is no price."""
    answer = system.get("feed_service", "/v1/venues/bitcoin")
    return answer.body if answer.status == 200 else {"used": 0, "venues": []}


def set_faults(system: System, *words: str) -> None:
    done = system.cli("faults", *words)
    assert done.returncode == 0, done.stderr


def reasons(system: System) -> dict[str, str]:
    return {book["venue"]: book["reason"] for book in bitcoin(system)["venues"] if book["reason"] is not None}


def test_up_names_the_exchanges_and_its_quotes_say_how_they_agreed(following: System) -> None:
    first = following.wait_for_event("a line", lambda event: True)
    assert first["text"] == f"one price agreed on by simulated exchanges: {', '.join(VENUES)}"
    quote = following.wait_for_event("a quote", lambda event: event["type"] == "quote")
    assert quote["origin"] == "consensus"
    assert quote["of"] == len(VENUES)


def test_the_commands_show_the_venues_and_the_doctor_finds_nothing_wrong(following: System) -> None:
    shown = json.loads(following.cli("venues", "--json").stdout)
    assert [(feed["venue"], feed["state"]) for feed in shown["feeds"]] == [(venue, "live") for venue in VENUES]
    done = following.cli("venues", "bitcoin")
    assert done.returncode == 0
    assert all(venue in done.stdout for venue in VENUES)
    findings = json.loads(following.cli("doctor", "--json").stdout)["findings"]
    said = {finding["check"]: finding for finding in findings}
    assert [said[check]["severity"] for check in ("venues", "venue_clock", "consensus", "circuit")] == ["ok"] * 4
    assert "feed_service" in said["circuit"]["text"]


def test_one_exchange_that_lies_is_named_and_the_price_stands(following: System) -> None:
    set_faults(following, "kraken.lie=0.10", "for_s=60")
    wait_until("kraken is an outlier", lambda: reasons(following) == {"kraken": "outlier"})
    consensus = bitcoin(following)
    (liar,) = (Decimal(book["mid_usd"]) for book in consensus["venues"] if book["venue"] == "kraken")
    assert liar / Decimal(consensus["price"]) > Decimal("1.09")
    assert (consensus["state"], consensus["used"]) == ("agreed", len(VENUES) - 1)
    done = following.cli("venues", "bitcoin")
    assert "no, outlier" in done.stdout
    set_faults(following, "clear")
    wait_until("all agree again", lambda: reasons(following) == {})


def test_a_dispute_is_in_the_503_in_the_report_and_in_the_doctor(following: System) -> None:
    set_faults(following, "binance.lie=0.10", "okx.lie=0.10", "bybit.lie=0.10", "for_s=60")
    gone = wait_until("no price", lambda: _problem(following), 30)
    assert gone["reason"] == "too_old"
    assert gone["detail"].endswith("the source has no price of it now (disputed)")
    report = following.get("aggregator_service", "/report/full").body
    missing = {one["part"]: one["reason"] for one in report["missing"]}
    assert missing["bitcoin.current"].endswith("(disputed)")
    assert following.cli("venues", "bitcoin").returncode == 3
    findings = json.loads(following.cli("doctor", "--json").stdout)["findings"]
    disputes = [one["text"] for one in findings if one["check"] == "consensus" and one["severity"] == "error"]
    assert any(text.startswith("the venues disagree on bitcoin") for text in disputes)
    set_faults(following, "clear")
    wait_until("a price again", lambda: _problem(following) is None, 30)


def _problem(system: System) -> dict[str, Any] | None:
    answer = system.get("quote_service", "/cotacao_atual/bitcoin")
    return answer.body if answer.status == 503 else None


def test_feed_service_can_be_stopped_and_started_and_the_doctor_names_the_command(following: System) -> None:
    assert following.cli("stop", "feed_service").returncode == 0
    assert following.status()["feed_service"]["state"] == "stopped"
    findings = json.loads(following.cli("doctor", "--json").stdout)["findings"]
    (trouble,) = (finding for finding in findings if finding["check"] == "venues")
    assert (trouble["severity"], trouble["mend"]) == ("error", f"cotacoes start feed_service --data {following.data}")
    assert following.cli("start", "feed_service").returncode == 0
    wait_until("all agree again", lambda: bitcoin(following)["used"] == len(VENUES), 30)


def test_a_feed_that_runs_elsewhere_is_used_and_none_is_started(following: System, tmp_path: Path) -> None:
    elsewhere = following.url("feed_service")
    environment = {"COTACOES_FEED_URL": elsewhere}
    with (
        System(tmp_path / "data", "--source", "exchanges", environment=environment) as system,
        socket.create_server(("127.0.0.1", system.port("feed_service"))),  # which `up` has no need of
    ):
        system.begin()
        quote = system.wait_for_event("a quote", lambda event: event["type"] == "quote", 40)
        assert quote["origin"] == "consensus"
        status = system.status()
        assert "external_service" not in status
        feed = status["feed_service"]
        assert (feed["state"], feed["address"], feed["pid"]) == ("external", elsewhere, None)


def test_ctrl_c_stops_everything(following: System) -> None:
    following.note_pids()
    following.signal(signal.SIGINT)
    assert following.wait_ended() == 130
    wait_until("nothing is left", lambda: not following.left())
