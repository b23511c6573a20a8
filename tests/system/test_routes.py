"""Every route of every service, requested from the running system."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from tests.system.conftest import System, wait_until

from cotacoes.model.candle import INTERVALS, CandleJson, candles_of
from cotacoes.model.quote import Position, Quote, QuoteJson, format_time, parse_time

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


def test_the_source_gives_each_price_with_its_time_and_currency(running_system: System) -> None:
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
    assert running_system.cli("faults", "nan=0.5", "for_s=60").returncode == 0
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


def test_the_history_is_paged_in_order_and_refuses_positions_that_it_cannot_continue_from(
    running_system: System,
) -> None:
    wait_until(
        "three quotes",
        lambda: len(running_system.get("quote_service", "/v1/quotes/bitcoin?last=3").body["quotes"]) == 3,
    )
    whole = running_system.get("quote_service", "/v1/quotes/bitcoin?limit=10000").body
    assert set(whole) == {"coin", "quotes", "gaps", "next", "more", "floor"}
    assert whole["gaps"] == []
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


def recorded(running_system: System, count: int) -> list[Quote]:
    """The coin's quotes from the first on, once there are so many."""

    def whole() -> list[QuoteJson] | None:
        quotes = running_system.get("quote_service", "/v1/quotes/bitcoin?limit=10000").body["quotes"]
        return msgspec.convert(quotes, list[QuoteJson]) if len(quotes) >= count else None

    return [one.quote() for one in wait_until(f"{count} quotes", whole)]


def test_a_time_range_includes_its_start_and_excludes_its_end(running_system: System) -> None:
    quotes = recorded(running_system, 4)
    start, end = format_time(quotes[1].at), format_time(quotes[3].at)
    inside = [str(one.position) for one in quotes if quotes[1].at <= one.at < quotes[3].at]
    for asked in (f"from={start}&to={end}", f"from={start.replace('Z', '%2B00:00')}&to={end}"):
        page = running_system.get("quote_service", f"/v1/quotes/bitcoin?{asked}").body
        assert [f"{one['epoch']}-{one['seq']}" for one in page["quotes"]] == inside
        assert (page["next"], page["more"]) == (inside[-1], False)
    first, last = "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"
    page = running_system.get("quote_service", f"/v1/quotes/bitcoin?from={first}&to={last}&limit=3").body
    assert [one["seq"] for one in page["quotes"]] == [one.seq for one in quotes[:3]]
    assert page["more"]
    page = running_system.get("quote_service", f"/v1/quotes/bitcoin?to={end}&after={quotes[1].position}").body
    assert [one["seq"] for one in page["quotes"]] == [one.seq for one in quotes[2:] if one.at < quotes[3].at]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/quotes/bitcoin?from=yesterday", "from"),
        ("/v1/quotes/bitcoin?to=2026-11-24T12:00:00", "to"),
        ("/v1/quotes/bitcoin?from=2026-11-24T12:00:00Z&to=2026-11-24T12:00:00Z", "from"),
        ("/v1/quotes/bitcoin?last=5&to=2026-11-24T12:00:00Z", "last"),
        ("/v1/candles/bitcoin?interval=2m", "interval"),
        ("/v1/candles/bitcoin?from=2026", "from"),
        ("/v1/candles/bitcoin?limit=1001", "limit"),
        ("/v1/candles/bitcoin?origin=a%00b", "origin"),
        ("/v1/candles/bitcoin?currency=%00", "currency"),
    ],
)
def test_an_invalid_parameter_is_named(running_system: System, path: str, name: str) -> None:
    answer = running_system.get("quote_service", path)
    assert (answer.status, answer.body["type"]) == (422, "/docs#bad-request")
    assert name in answer.body["detail"]


@pytest.mark.parametrize("interval", INTERVALS)
def test_candles_are_those_of_all_quotes_up_to_the_position_that_they_name(
    running_system: System, interval: str
) -> None:
    recorded(running_system, 4)
    body = running_system.get("quote_service", f"/v1/candles/bitcoin?interval={interval}").body
    assert set(body) == {"coin", "currency", "origin", "interval", "candles", "next", "more", "through"}
    through = Position.parse(body["through"])
    counted = [one for one in recorded(running_system, 4) if one.position <= through]
    step = timedelta(minutes=INTERVALS[interval])
    assert body["candles"] == [
        msgspec.to_builtins(CandleJson.of(one, closed=one.at + step <= counted[-1].at))
        for one in candles_of(counted, INTERVALS[interval])
    ]
    assert (body["origin"], body["currency"], body["next"], body["more"]) == ("sim", "USD", None, False)


def test_empty_candles_come_on_request(running_system: System) -> None:
    newest = recorded(running_system, 1)[-1]
    start = format_time(newest.at - timedelta(minutes=30))
    candles = running_system.get("quote_service", f"/v1/candles/bitcoin?from={start}&empty=true").body["candles"]
    assert len(candles) >= 31
    assert candles[0] == msgspec.to_builtins(CandleJson.empty(parse_time(candles[0]["at"]), closed=True))
    assert candles[-1]["count"] > 0


def test_the_commands_show_a_range_its_candles_and_export_it_digit_for_digit(
    running_system: System, tmp_path: Path
) -> None:
    quotes = recorded(running_system, 4)
    start, end = format_time(quotes[0].at), format_time(quotes[3].at)
    inside = [one for one in quotes if one.at < quotes[3].at]
    shown = running_system.cli("history", "bitcoin", "--from", start, "--to", end).stdout.splitlines()
    assert [line.split()[-1] for line in shown] == [str(one.position) for one in inside]
    table = running_system.cli("candles", "Bitcoin", "--interval", "1d")
    assert table.stdout.splitlines()[1].split()[0].endswith("T00:00:00.000000Z")
    assert table.stderr.startswith("bitcoin in USD of sim, 1d, through ")
    file = tmp_path / "out.csv"
    assert running_system.cli("export", "bitcoin", "--from", start, "--to", end, "--output", str(file)).returncode == 0
    head, *lines = file.read_text().splitlines()
    assert head == "coin,position,at,observed_at,price,currency,origin"
    assert lines == [
        f"bitcoin,{one.position},{format_time(one.at)},{format_time(one.observed_at)},{one.price:f},USD,sim"
        for one in inside
    ]
    again = running_system.cli("export", "bitcoin", "--to", end, "--format", "ndjson")
    assert [json.loads(line)["position"] for line in again.stdout.splitlines()] == [str(one.position) for one in inside]
    assert running_system.cli("export", "bitcoin", "--output", str(file)).returncode == 2


def test_the_report_has_every_part_of_every_coin(running_system: System) -> None:
    report = running_system.get("aggregator_service", "/report/full").body
    assert set(report) == {
        *("generated_at", "deadline_ms", "elapsed_ms", "complete", "missing", "window", "coins", "sources"),
    }
    for section in report["coins"].values():
        assert set(section) == {"current", "average", "last_logs", "through", "window", "pending"}
        assert set(section["last_logs"][0]) == QUOTE
    assert list(report["sources"]) == ["quote_service", "shard1", "shard2"]
    assert all(set(source) == {"status", "elapsed_ms"} for source in report["sources"].values())


def test_the_page_and_all_its_files_are_there(running_system: System) -> None:
    page = running_system.get("gateway_service", "/").body
    for path in re.findall(r'"(/page/[^"]+)"', page):
        assert running_system.get("gateway_service", path).status == 200


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
def test_an_unknown_path_is_a_problem_that_leaks_nothing(running_system: System, service: str, path: str) -> None:
    answer = running_system.get(service, path)
    assert answer.status in {404, 405, 422}
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.body["type"].startswith("/docs#")
    assert not re.search(r"Traceback|postgresql:|/src/|\x00", str(answer.body))


def test_a_misspelt_coin_is_answered_with_the_nearest_names(running_system: System) -> None:
    for part, path in (
        ("quote_service", "/cotacao_atual/bitcoi"),
        ("quote_service", "/media_ultimos_10_logs/bitcoi"),
        ("quote_service", "/v1/quotes/bitcoi"),
        ("quote_service", "/v1/candles/bitcoi"),
        ("gateway_service", "/v1/quotes/bitcoi/current"),
    ):
        answer = running_system.get(part, path)
        assert (answer.status, answer.body["did_you_mean"]) == (404, ["bitcoin"]), path
