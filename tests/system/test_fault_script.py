"""Each fault of the source, half a minute long, on the running system: opened, probed, not hammered, healed."""

import re
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from tests.system.conftest import System, wait_until

pytestmark = pytest.mark.soak

FAULT_S = 25.0
# five failures and their retries, what is under way, then one probe after 3, 6 and 10 s, each at its shortest
CALLS_MAX = 5 + 2 + 1 + 4
HEALED_WITHIN_S = 20.0


@pytest.fixture(scope="module")
def running_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The system as people start it; each test leaves it running and healed."""
    environment = {"COTACOES_FAILURE_RATE": "0"}
    with System(tmp_path_factory.mktemp("a system") / "data", environment=environment) as system:
        system.start()
        wait_until("a live quote", lambda: _state(current(system)) == ("fresh", "live", "closed"), 30)
        yield system


def current(system: System) -> dict[str, Any]:
    """The current quote; the test fails if there is none: the source's faults are no reason not to answer."""
    answer = system.get("quote_service", "/cotacao_atual/bitcoin")
    assert answer.status == 200, answer.body
    body: dict[str, Any] = answer.body
    return body


def _state(quote: dict[str, Any]) -> tuple[str, str, str]:
    return quote["status"], quote["source"], quote["breaker"]


def served(system: System) -> float:
    """How many requests for prices have reached external_service."""
    with urllib.request.urlopen(f"{system.url('external_service')}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    return sum(
        float(value) for value in re.findall(r"^cotacoes_source_requests_total\{.*\} (\S+)$", text, re.MULTILINE)
    )


@pytest.mark.parametrize(
    "faults",
    [
        "error_rate=1 status=500",
        "error_rate=1 status=503 retry_after_s=2",
        "too_many_requests=1 retry_after_s=20",
        "hang=1",
        "latency_ms=3000",
        "cut_body=1",
        "drip_body=1",
        "huge_body=1",
        "gzip_bomb=1",
        "garbage=1",
        "html_200=1",
        "redirect=1",
    ],
)
def test_a_fault_opens_the_circuit_the_age_is_true_and_it_heals_by_itself(running_system: System, faults: str) -> None:
    system = running_system
    before = served(system)
    began = time.monotonic()
    last = current(system)
    assert system.cli("faults", *faults.split()).returncode == 0
    time.sleep(FAULT_S)
    quote = current(system)
    assert quote["breaker"] in {"open", "half_open"}
    assert (quote["status"], quote["source"]) == ("stale", "cache")
    if quote["seq"] == last["seq"]:
        assert quote["age_ms"] >= (time.monotonic() - began - 1) * 1000
    assert quote["age_ms"] >= (FAULT_S - 3) * 1000
    assert served(system) - before <= CALLS_MAX + 2  # the two before the fault was set
    assert system.cli("faults", "clear").returncode == 0
    wait_until("healed", lambda: _state(current(system)) == ("fresh", "live", "closed"), HEALED_WITHIN_S + 10)
    breaker = system.get("quote_service", "/v1/breakers").body["breakers"][0]
    assert breaker["transitions"][0]["to"] == "closed"
    assert breaker["last_errors"]
