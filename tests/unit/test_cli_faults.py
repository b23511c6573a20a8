"""`cotacoes faults`: the words that set and show the faults of the source and of the simulated venues."""

import asyncio
import json
import re
from collections.abc import Sequence
from typing import Any

import httpx2
import pytest
import structlog

from cotacoes import config
from cotacoes.adapters.http_client import HttpClient
from cotacoes.cli import queries
from cotacoes.cli.faults import MARKET, SOURCE, merged, merged_all
from cotacoes.errors import BadRequestError, UnauthorizedError
from cotacoes.external_service import app as external_service
from cotacoes.external_service.venues.faults import MarketShock, VenueFaults
from cotacoes.web.service_client import Addresses, ServiceClient

HOST = "http://source"
TOKEN = "token"
CURRENT: dict[str, dict[str, Any]] = {
    SOURCE: {"error_rate": 0.2, "kinds": {}, "for_s": None},
    MARKET: MarketShock().model_dump(mode="json"),
    "kraken": VenueFaults().model_dump(mode="json"),
}


def faults(*commands: Sequence[str], token: str = TOKEN) -> None:
    """Run `cotacoes faults` on a real external_service, several times over."""

    async def scenario() -> None:
        served = external_service.build(config.load({}, admin_token=TOKEN), asyncio.Event())
        http = HttpClient(1.0, 65_536, transport=httpx2.ASGITransport(served.app))
        async with ServiceClient(Addresses(external_service=HOST), admin_token=token, http=http) as client:
            for words in commands:
                await queries.faults(client, words, as_json=False)

    with structlog.testing.capture_logs():
        asyncio.run(scenario())


def test_faults_are_shown_in_the_words_that_set_them(capsys: pytest.CaptureFixture[str]) -> None:
    faults([])
    shown = capsys.readouterr().out.split()
    assert shown[:3] == ["error_rate=0.2", "status=500,503", "latency_ms=0"]
    faults(["clear"], shown)
    cleared, again = capsys.readouterr().out.split("error_rate=")[1:]
    assert cleared.startswith("0.0\n")
    assert "error_rate=" + again == "\n".join([*shown, ""])


def test_faults_are_added_to_the_current_ones(capsys: pytest.CaptureFixture[str]) -> None:
    faults(["latency_ms=300", "hang=0.5", "coins=Bitcoin"], ["nan=1", "status=418", "hang=none"])
    words = capsys.readouterr().out.split()[-8:]
    assert words == [
        "error_rate=0.2",
        "status=418",
        "latency_ms=300",
        "jitter_ms=0",
        "retry_after_s=none",
        "nan=1",
        "coins=bitcoin",
        "for_s=none",
    ]


def test_faults_added_to_a_temporary_one_do_not_extend_it() -> None:
    passing = {"error_rate": 1.0, "kinds": {}, "for_s": 7.5}
    assert merged(passing, ["latency_ms=5"])["for_s"] == 7.5
    assert merged(passing | {"for_s": 0.0}, [])["for_s"] > 0
    assert merged(passing, ["for_s=none"])["for_s"] is None


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("error_rat=1", "did you mean error_rate"),
        ("hnag=1", "did you mean hang"),
        ("error_rate=often", "error_rate=often is refused: write a number"),
        ("error_rate=nan", "write a number"),
        ("latency_ms=0.5", "write a whole number"),
        ("status=a", "status=500,503"),
        ("clear", "KEY=VALUE"),
    ],
)
def test_an_unknown_fault_is_refused_by_name(word: str, said: str) -> None:
    with pytest.raises(BadRequestError, match=re.escape(said)):
        merged({"for_s": None, "kinds": {}}, ["error_rate=1", word])


def test_a_rate_out_of_range_and_a_wrong_token_are_refused_by_external_service() -> None:
    with pytest.raises(BadRequestError, match="error_rate"):
        faults(["error_rate=2"])
    with pytest.raises(UnauthorizedError):
        faults(["clear"], token="wrong")


def test_faults_of_simulated_venues_and_of_their_market_are_shown_after_those_of_the_source(
    capsys: pytest.CaptureFixture[str],
) -> None:
    faults(["kraken.lie=0.10", "binance.stall=1", "binance.coins=Bitcoin", "market.shock=0.7", "peg.usdt=0.90"])
    shown = capsys.readouterr().out.split()
    assert shown[-9:] == [
        "for_s=none",
        "market.shock=0.7",
        "peg.USDT=0.90",
        "market.for_s=none",
        "binance.stall=1",
        "binance.coins=bitcoin",
        "binance.for_s=none",
        "kraken.lie=0.10",
        "kraken.for_s=none",
    ]
    faults(shown, ["binance.stall=0", "peg.USDT=none", "kraken.lie=none"], ["clear"])
    again, fewer, none = capsys.readouterr().out.split("error_rate=")[1:]
    assert "error_rate=" + again == "\n".join([*shown, ""])
    assert fewer.split()[-2:] == ["binance.coins=bitcoin", "binance.for_s=none"]
    assert "." not in none.split("for_s=")[1]


def test_for_s_holds_for_all_that_is_named_with_it_and_for_the_source_only_if_that_is_named() -> None:
    changed = merged_all(CURRENT, ["kraken.lie=0.10", "peg.USDT=0.9", "for_s=30"])
    assert {target: setting["for_s"] for target, setting in changed.items()} == {"kraken": 30, MARKET: 30}
    changed = merged_all(CURRENT, ["error_rate=1", "kraken.stall=1", "for_s=30"])
    assert {target: setting["for_s"] for target, setting in changed.items()} == {SOURCE: 30, "kraken": 30}
    assert set(merged_all(CURRENT, ["for_s=30"])) == {SOURCE}
    passing = {**CURRENT, "kraken": CURRENT["kraken"] | {"for_s": 7.5}}
    assert merged_all(passing, ["kraken.freeze=1"])["kraken"]["for_s"] == 7.5


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("krakn.lie=1", "krakn is not a simulated venue: did you mean kraken?"),
        ("nasdaq.lie=1", "nasdaq is not a simulated venue: the names are market, kraken, peg"),
        ("kraken.lye=1", "kraken.lye is not a fault: did you mean lie?"),
        ("kraken.error_rate=1", "kraken.error_rate is not a fault"),
        ("market.shok=1", "market.shok is not a fault: did you mean shock?"),
        ("market.peg=1", "market.peg is not a fault"),
        ("kraken.stall=yes", "kraken.stall=yes is refused: write 1 or 0"),
        ("kraken.lie=much", "kraken.lie=much is refused: write a number"),
        ("kraken.refuse=4.5", "kraken.refuse=4.5 is refused: write a whole number"),
        ("peg.USDT=low", "peg.USDT=low is refused: write a number"),
        ("kraken.lie", "kraken.lie is not KEY=VALUE"),
    ],
)
def test_an_unknown_fault_of_a_venue_is_refused_by_name(word: str, said: str) -> None:
    with pytest.raises(BadRequestError, match=re.escape(said)):
        merged_all(CURRENT, [word])


def test_a_source_without_simulated_venues_says_so() -> None:
    current = {SOURCE: CURRENT[SOURCE]}
    for word in ("peg.USDT=0.9", "kraken.lie=0.1"):
        with pytest.raises(BadRequestError, match="the source has no simulated venues"):
            merged_all(current, [word])


@pytest.mark.parametrize(
    ("word", "field"),
    [("kraken.lie=-1", "lie"), ("okx.refuse=200", "refuse"), ("peg.EURT=1", "peg"), ("okx.half=x", "half")],
)
def test_impossible_faults_of_venues_are_refused_by_external_service(word: str, field: str) -> None:
    with pytest.raises(BadRequestError, match=field):
        faults([word])


def test_faults_of_venues_need_the_token() -> None:
    with pytest.raises(UnauthorizedError):
        faults(["kraken.lie=0.1"], token="wrong")


def test_the_faults_as_json_have_all_venues_and_the_market(capsys: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> None:
        served = external_service.build(config.load({}, admin_token=TOKEN), asyncio.Event())
        http = HttpClient(1.0, 65_536, transport=httpx2.ASGITransport(served.app))
        async with ServiceClient(Addresses(external_service=HOST), admin_token=TOKEN, http=http) as client:
            await queries.faults(client, ["kraken.lie=0.1"], as_json=True)

    with structlog.testing.capture_logs():
        asyncio.run(scenario())
    shown = json.loads(capsys.readouterr().out)
    assert shown["error_rate"] == 0.2
    assert shown["venues"]["kraken"]["lie"] == "0.1"
    assert shown["venues"]["binance"]["lie"] == "0"
    assert shown["market"]["shock"] == "1"
