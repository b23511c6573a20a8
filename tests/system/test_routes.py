"""Every route of every service as the README names it, asked of the running system."""

import re
from datetime import UTC, datetime

import pytest
from tests.system.conftest import System, wait_until

SERVICES = ["external_service", "quote_service", "aggregator_service", "gateway_service"]
CURRENT = {
    *("coin", "currency", "price", "epoch", "seq", "observed_at", "at"),
    *("age_ms", "status", "source", "origin", "breaker"),
}
QUOTE = {"coin", "currency", "price", "epoch", "seq", "observed_at", "at", "origin", "prev"}
PRICE = re.compile(r"[1-9][0-9]*(\.[0-9]+)?")


@pytest.fixture(autouse=True)
def _is_complete(running_system: System) -> None:
    wait_until("a complete report", lambda: running_system.get("aggregator_service", "/report/full").body["complete"])


def test_the_source_tells_each_price_with_its_time_and_currency(running_system: System) -> None:
    quote = wait_until(
        "a request that does not fail on purpose",
        lambda: a.body if (a := running_system.get("external_service", "/quote")).status == 200 else None,
    )
    assert set(quote) == {"bitcoin", "ethereum", "observed_at", "observed", "currency", "origin"}
    assert PRICE.fullmatch(quote["bitcoin"])
    assert quote["observed_at"] == min(quote["observed"].values())
    assert quote["currency"] == {"bitcoin": "USD", "ethereum": "USD"}
    assert quote["origin"] == "sim"


def test_the_faults_are_shown_to_all_and_set_by_the_administrator_only(running_system: System) -> None:
    shown = running_system.get("external_service", "/faults").body
    assert set(shown) == {
        *("error_rate", "status", "latency_ms", "jitter_ms", "retry_after_s", "kinds", "coins", "for_s"),
    }
    assert running_system.cli("faults", "nan=0.5", "for_s=1").returncode == 0
    assert running_system.get("external_service", "/faults").body["kinds"] == {"nan": 0.5}
    assert running_system.cli("faults", "clear").returncode == 0


@pytest.mark.parametrize(
    ("part", "path"),
    [("quote_service", "/cotacao_atual/bitcoin"), ("gateway_service", "/v1/quotes/bitcoin/current")],
)
def test_the_current_quote_has_its_age_and_its_origin(running_system: System, part: str, path: str) -> None:
    answer = running_system.get(part, path)
    assert answer.status == 200
    quote = answer.body
    assert set(quote) == CURRENT
    assert PRICE.fullmatch(quote["price"])
    assert quote["age_ms"] >= 0
    observed = datetime.fromisoformat(quote["observed_at"].replace("Z", "+00:00"))
    real_age_ms = (datetime.now(UTC) - observed).total_seconds() * 1000
    assert quote["age_ms"] <= real_age_ms
    assert (quote["status"], quote["origin"]) == ("fresh", "sim")


def test_the_mean_is_of_the_positions_that_it_names(running_system: System) -> None:
    mean = running_system.get("quote_service", "/media_ultimos_10_logs/ethereum").body
    assert set(mean) == {"coin", "currency", "average", "count", "from", "to"}
    assert PRICE.fullmatch(mean["average"])


def test_the_history_is_paged_in_order_and_refuses_what_it_can_not_continue(running_system: System) -> None:
    wait_until(
        "three quotes",
        lambda: len(running_system.get("quote_service", "/v1/quotes/bitcoin?last=3").body["quotes"]) == 3,
    )
    whole = running_system.get("quote_service", "/v1/quotes/bitcoin?limit=10000").body
    assert set(whole) == {"coin", "quotes", "next", "more", "floor"}
    assert set(whole["quotes"][0]) == QUOTE
    first = f"{whole['quotes'][0]['epoch']}-{whole['quotes'][0]['seq']}"
    assert whole["floor"] == first
    page = running_system.get("quote_service", f"/v1/quotes/bitcoin?after={first}&limit=1").body
    assert page["quotes"] == whole["quotes"][1:2]
    assert page["more"]
    beyond = running_system.get("quote_service", "/v1/quotes/bitcoin?after=9999999999999-1")
    assert (beyond.status, beyond.body["type"]) == (409, "/docs#position-beyond-end")
    below = running_system.get("quote_service", "/v1/quotes/bitcoin?after=1-1")
    assert (below.status, below.body["floor"]) == (410, first)


def test_the_report_has_every_part_of_every_coin(running_system: System) -> None:
    report = running_system.get("aggregator_service", "/report/full").body
    assert set(report) == {
        *("generated_at", "deadline_ms", "elapsed_ms", "complete", "missing", "coins", "sources"),
    }
    for told in report["coins"].values():
        assert set(told) == {"current", "average", "last_logs", "through", "pending"}
        assert set(told["last_logs"][0]) == QUOTE
    assert list(report["sources"]) == ["quote_service", "shard1", "shard2"]
    assert all(set(source) == {"status", "elapsed_ms"} for source in report["sources"].values())


def test_the_front_page_names_the_addresses(running_system: System) -> None:
    page = running_system.get("gateway_service", "/").body
    for service in SERVICES:
        assert running_system.url(service) in page


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_can_be_operated(running_system: System, service: str) -> None:
    assert running_system.get(service, "/livez").body == {"status": "alive"}
    ready = running_system.get(service, "/readyz")
    assert (ready.status, ready.body["ready"]) == (200, True)
    assert "cotacoes_http_requests_total" in running_system.get(service, "/metrics").body
    docs = running_system.get(service, "/docs").body
    assert "<script" not in docs
    assert "://" not in docs
    for path in running_system.get(service, "/openapi.json").body["paths"]:
        assert path.replace("{", "&#123;") in docs or path in docs


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("path", ["/nothing", "/%00", "/..%2f..%2fetc", "/cotacao_atual/btc%0d%0aX", "/v1/quotes/%00"])
def test_what_is_not_there_is_a_problem_that_leaks_nothing(running_system: System, service: str, path: str) -> None:
    answer = running_system.get(service, path)
    assert answer.status in {404, 405, 422}
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.body["type"].startswith("/docs#")
    assert not re.search(r"Traceback|postgresql:|/src/|\x00", str(answer.body))


def test_a_coin_misspelt_is_answered_with_the_nearest_names(running_system: System) -> None:
    for part, path in (
        ("quote_service", "/cotacao_atual/bitcoi"),
        ("quote_service", "/media_ultimos_10_logs/bitcoi"),
        ("quote_service", "/v1/quotes/bitcoi"),
        ("gateway_service", "/v1/quotes/bitcoi/current"),
    ):
        answer = running_system.get(part, path)
        assert (answer.status, answer.body["did_you_mean"]) == (404, ["bitcoin"]), path
