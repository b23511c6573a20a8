"""The system on a recorded market: every price anywhere is one of the recording's, digit for digit and in its order."""

import json
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from tests.harness_recordings import RecordedMarket, recorded_mids, the_market
from tests.system.conftest import System, wait_until
from tests.system.harness_witness import Witness, stored_rows

from cotacoes.config import SHARDS

SPEED = 10
QUOTES_MIN = 100


@the_market
def test_every_price_of_a_replay_is_the_recordings_digit_for_digit(tmp_path: Path, market: RecordedMarket) -> None:
    coins = list(market.files)
    fast = {"COTACOES_POLL_INTERVAL_S": "0.05"}
    with System(tmp_path / "data", "--source", market.source, "--speed", str(SPEED), environment=fast) as system:
        system.start()
        first = system.events[0]["text"]
        assert first.startswith(f"replay of {market.bitcoin.name}, {market.ethereum.name}")
        dsns = [system.dsn(shard) for shard in SHARDS]
        redis = system.redis_url()
        with Witness(redis, system.url("quote_service"), coins) as witness:
            wait_until(
                f"{QUOTES_MIN} quotes of each",
                lambda: all(len(seen.quotes) >= QUOTES_MIN for seen in witness.published.values()),
                40,
            )
            current = {coin: system.get("quote_service", f"/cotacao_atual/{coin}").body for coin in coins}
            system.ask("stop", "external_service")
            report = wait_until("all is delivered", lambda: _delivered(system))
        rows = stored_rows(dsns)
        for coin, file in market.files.items():
            mids = list(recorded_mids(file))
            stored = [row.price for row in rows[coin]]
            assert first_strange(stored, mids) is None
            assert {price for _, price in witness.published[coin].quotes} <= set(stored)
            assert {price for _, price in witness.current[coin].quotes} <= set(stored)
            assert current[coin]["price"] in set(stored)
            assert (current[coin]["origin"], current[coin]["currency"]) == (market.origin, "USDT")
            assert {log["origin"] for log in report["coins"][coin]["last_logs"]} == {market.origin}


@the_market
def test_ages_are_honest_though_the_exchanges_clock_runs_ahead(tmp_path: Path, market: RecordedMarket) -> None:
    """Trades bear the exchange's time, which was 1.25 s ahead of the receiver's when they were recorded."""
    options = ("--source", f"replay:{market.bitcoin}", "--replay-price", "trade", "--failure-rate", "0")
    fast = {"COTACOES_POLL_INTERVAL_S": "0.05"}
    with System(tmp_path / "data", *options, environment=fast) as system:
        system.begin()
        system.wait_for_states({"quote_service": "running", "external_service": "running"})
        seen: set[str] = set()
        while len(seen) < 10:
            answer = system.get("quote_service", "/cotacao_atual/bitcoin")
            if answer.status == 200:
                observed = datetime.fromisoformat(answer.body["observed_at"].replace("Z", "+00:00"))
                real_age_ms = (datetime.now(UTC) - observed).total_seconds() * 1000
                assert 0 <= answer.body["age_ms"] <= real_age_ms
                assert answer.body["at"] >= answer.body["observed_at"]
                seen.add(answer.body["seq"])
            time.sleep(0.02)


def test_a_price_that_the_recording_does_not_have_is_detected() -> None:
    mids = ["5", "5.5", "6", "5"]
    assert first_strange(["5", "6", "5"], mids) is None
    assert first_strange(["5", "5.50"], mids) == "5.50"
    assert first_strange(["6", "5.5"], mids) == "5.5"


def first_strange(prices: Iterable[str], mids: Iterable[str]) -> str | None:
    """The first price that does not come in the recording, after where the one before it came; None if all do."""
    rest = iter(mids)
    return next((price for price in prices if not any(price == mid for mid in rest)), None)


def _delivered(system: System) -> dict[str, dict[str, dict[str, list[dict[str, str]]]]] | None:
    report = json.loads(system.cli("report", "--json").stdout)
    return report if all(coin["pending"] == 0 for coin in report["coins"].values()) else None
