"""A start on which no exchange can be reached: the doctor says why for each, and prices come once they can."""

import json
import signal
import subprocess
from pathlib import Path

from tests.system.conftest import PARTS, System, wait_until

from cotacoes.up.supervision import die_with_parent

REFUSED = ("binance", "coinbase", "kraken", "bitstamp")  # until the test plays these exchanges
NAMELESS = ("okx", "bybit")
COME_S_MAX = 45.0  # the back-off has grown meanwhile


def addresses(system: System) -> str:
    played = f"ws://127.0.0.1:{system.port('external_service')}/venues"
    return ",".join(
        [f"{venue}={played}/{venue}/stream" for venue in REFUSED]
        + [f"{venue}=wss://{venue}.invalid/stream" for venue in NAMELESS]
    )


def test_a_start_without_any_exchange_says_why_and_prices_come_with_the_exchanges(tmp_path: Path) -> None:
    with System(tmp_path / "data", "--source", "exchanges") as system:
        system.environment["COTACOES_VENUE_URLS"] = addresses(system)
        system.begin()
        parts = [part for part in PARTS if part != "external_service"]
        system.wait_for_states(dict.fromkeys([*parts, "feed_service"], "running"))
        wait_until("each connection has failed", lambda: all(reasons(system).values()))
        assert reasons(system) == {**dict.fromkeys(REFUSED, "unreachable"), **dict.fromkeys(NAMELESS, "no_name")}
        answer = system.get("quote_service", "/cotacao_atual/bitcoin")
        assert (answer.status, answer.body["reason"]) == (503, "none_yet")
        found = findings(system)
        assert [text for text in found["venues"] if "kraken" in text and "no connection to the venue" in text]
        assert [text for text in found["venues"] if "okx" in text and "name cannot be resolved" in text]
        assert [text for text in found["consensus"] if "no venue has a usable price of bitcoin" in text]
        exchanges = subprocess.Popen(
            [*die_with_parent.launcher(signal.SIGTERM), *system.program, "external-service"],
            env={
                **system.environment,
                "COTACOES_PORT_BASE": str(system.port_base),
                "COTACOES_SOURCE": "sim",
                "COTACOES_DATA": str(tmp_path / "exchanges"),
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            quote = wait_until("prices come", lambda: current(system), COME_S_MAX)
            assert (quote["status"], quote["of"]) == ("fresh", len(REFUSED) + len(NAMELESS))
            wait_until("of all that can be reached", lambda: current(system)["used"] == len(REFUSED), COME_S_MAX)
            assert "consensus" not in findings(system)
        finally:
            exchanges.terminate()
            exchanges.wait(20)


def reasons(system: System) -> dict[str, str | None]:
    """Why the last connection to each exchange ended."""
    return {feed["venue"]: feed["closed_reason"] for feed in system.get("feed_service", "/v1/venues").body["feeds"]}


def findings(system: System) -> dict[str, list[str]]:
    """What the doctor finds wrong, by check."""
    found: dict[str, list[str]] = {}
    for finding in json.loads(system.cli("doctor", "--json").stdout)["findings"]:
        if finding["severity"] != "ok":
            found.setdefault(finding["check"], []).append(finding["text"])
    return found


def current(system: System) -> dict[str, object]:
    """The current quote; empty if it is refused."""
    answer = system.get("quote_service", "/cotacao_atual/bitcoin")
    return answer.body if answer.status == 200 else {}
