"""The commands: what they print, how they end, and that their help begins with examples."""

import asyncio
import functools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest
import typer
from tests.unit.fake_quote_service import HOST, QuoteServiceTwin

from cotacoes import __version__, config
from cotacoes.adapters.http_client import HttpClient
from cotacoes.admin.purge import GRACE
from cotacoes.cli import app, coins, main, output, queries, quotes, times
from cotacoes.cli.report_lines import sparkline
from cotacoes.errors import (
    CotacoesError,
    InternalError,
    NoQuoteError,
    ServiceUnavailableError,
    SettingError,
    UnknownCoinError,
)
from cotacoes.external_service import app as external_service
from cotacoes.feed_service import app as feed_service
from cotacoes.model.candle import CandleJson
from cotacoes.model.quote import Quote
from cotacoes.patterns.sharding.shard import READ_QUOTES_MAX
from cotacoes.up import topology
from cotacoes.web.service_client import Addresses, ServiceClient

NOON = datetime(2026, 11, 24, 12, 0, 0, 123456, UTC)
TOKEN = "token"
SYSTEM = ["up", "status", "env", "stop", "start", "pause", "freeze", "down"]
MARKET = ["watch", "record", "quote", "report", "history", "candles", "export", "faults", "venues", "breakers"]
SERVICES = [
    "external-service",
    "feed-service",
    "quote-service",
    "aggregator-service",
    "gateway-service",
    "client-subscriber",
]
LEDGER = ["coins", "shards", "directory", "ledger", "audit"]
COMMANDS = [*SYSTEM, "doctor", *MARKET, *LEDGER, "migrate", *SERVICES]


def new_twin(count: int = 30) -> QuoteServiceTwin:
    def quote(seq: int) -> Quote:
        return Quote("bitcoin", "USD", Decimal(f"{seq}.10"), 5, seq, NOON, NOON, "sim")

    return QuoteServiceTwin({"bitcoin": [quote(seq) for seq in range(1, count + 1)]})


def ask(twin: QuoteServiceTwin, command: Callable[[ServiceClient], Awaitable[int]]) -> int:
    async def scenario() -> int:
        async with twin.client() as client:
            return await command(client)

    return asyncio.run(scenario())


def test_a_quote_is_one_line_with_its_age_and_origin(capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(new_twin(), lambda client: queries.quote(client, "BitCoin", as_json=False)) == 0
    assert capsys.readouterr().out == "bitcoin 30.10 USD fresh 0.2 s old sim 5-30\n"


def test_a_stale_quote_is_shown_and_ends_with_3(capsys: pytest.CaptureFixture[str]) -> None:
    twin = new_twin()
    answer = {"coin": "bitcoin", "currency": "USD", "price": "1.10", "epoch": 5, "seq": 1, "origin": "sim"}
    answer |= {"observed_at": "2026-11-24T12:00:00Z", "at": "2026-11-24T12:00:00Z"}
    answer |= {"source": "cache", "breaker": "open"}
    twin.faults["*"] = json.dumps(answer | {"status": "stale", "age_ms": 61_234}).encode()
    for as_json in (False, True):
        assert ask(twin, functools.partial(queries.quote, coin="bitcoin", as_json=as_json)) == 3
    line, data = capsys.readouterr().out.splitlines()
    assert line == "bitcoin 1.10 USD stale 61.2 s old sim 5-1"
    assert json.loads(data) == answer | {"status": "stale", "age_ms": 61_234}


def test_an_answer_of_another_shape_is_the_services_fault() -> None:
    twin = new_twin()
    twin.faults["*"] = b'{"price":7}'
    with pytest.raises(ServiceUnavailableError, match="quote_service gave an invalid answer"):
        ask(twin, lambda client: queries.quote(client, "bitcoin", as_json=True))


def test_the_history_shows_the_last_twenty_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    ask(new_twin(), lambda client: queries.history(client, "BITCOIN", last=None, after=None, as_json=False))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines] == [f"5-{seq}" for seq in range(11, 31)]
    assert lines[-1] == "2026-11-24T12:00:00.123456Z bitcoin 30.10 USD sim 5-30"


@pytest.mark.parametrize("count", [1, 2, 1001, 1002, 2500])
def test_after_a_position_every_quote_to_the_end_is_shown_once(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    twin = new_twin(count)
    ask(twin, lambda client: queries.history(client, "bitcoin", last=None, after="5-1", as_json=True))
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [quote["seq"] for quote in printed] == list(range(2, count + 1))
    assert all(quote["price"] == f"{quote['seq']}.10" for quote in printed)


def spread_twin(count: int) -> QuoteServiceTwin:
    """A quote every 30 seconds from noon on, the seconds exact."""

    def quote(seq: int) -> Quote:
        at = NOON.replace(microsecond=0) + timedelta(seconds=30 * (seq - 1))
        return Quote("bitcoin", "USD", Decimal(f"{seq}.10"), 5, seq, at, at, "sim")

    return QuoteServiceTwin({"bitcoin": [quote(seq) for seq in range(1, count + 1)]})


@pytest.mark.parametrize(
    ("given", "seqs"),
    [
        ({"start": "2026-11-24T12:01:00Z", "end": "2026-11-24T12:02:00Z"}, [3, 4]),
        ({"start": "2026-11-24T12:01:00Z"}, range(3, 2501)),
        ({"end": "2026-11-24T12:01:00Z"}, [1, 2]),
        ({"start": "2026-11-24T12:01:00Z", "end": "2026-11-24T12:03:00Z", "after": "5-4"}, [5, 6]),
    ],
)
def test_a_time_range_is_shown_to_its_end(
    given: dict[str, str], seqs: Sequence[int], capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"last": None, "after": None, "as_json": True} | given
    ask(spread_twin(2500), lambda client: queries.history(client, "Bitcoin", **options))
    assert [json.loads(line)["seq"] for line in capsys.readouterr().out.splitlines()] == list(seqs)


async def show_candles(client: ServiceClient, interval: str = "1m", **given: Any) -> int:
    options: dict[str, Any] = {"last": None, "start": None, "end": None, "empty": False, "as_json": False} | given
    return await queries.candles(client, "BitCoin", interval, **options)


def test_candles_are_a_table_with_their_origin_and_currency(capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(spread_twin(5), show_candles) == 0
    printed = capsys.readouterr()
    assert [line.split() for line in printed.out.splitlines()] == [
        ["at", "open", "high", "low", "close", "mean", "count", "state"],
        ["2026-11-24T12:00:00.000000Z", "1.10", "2.10", "1.10", "2.10", "1.6", "2", "closed"],
        ["2026-11-24T12:01:00.000000Z", "3.10", "4.10", "3.10", "4.10", "3.6", "2", "closed"],
        ["2026-11-24T12:02:00.000000Z", "5.10", "5.10", "5.10", "5.10", "5.1", "1", "open"],
    ]
    assert printed.err == "bitcoin in USD of sim, 1m, through 5-5\n"


def test_without_a_time_the_last_candles_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    for last, count in ((None, 20), (3, 3)):
        ask(spread_twin(100), functools.partial(show_candles, last=last, as_json=True))
        candles = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert len(candles) == count
        assert candles[-1]["at"] == "2026-11-24T12:49:00.000000Z"
        assert {name: candles[0][name] for name in ("coin", "currency", "origin", "interval")} == {
            "coin": "bitcoin",
            "currency": "USD",
            "origin": "sim",
            "interval": "1m",
        }


def test_candles_from_a_time_are_complete_but_a_very_long_table_is_cut(
    capsys: pytest.CaptureFixture[str],
) -> None:
    start = "2026-11-24T12:00:00.000000Z"
    ask(spread_twin(60), lambda client: show_candles(client, start=start, as_json=True, page_candles=5))
    starts = [json.loads(line)["at"] for line in capsys.readouterr().out.splitlines()]
    assert starts == [f"2026-11-24T12:{minute:02}:00.000000Z" for minute in range(30)]
    ask(spread_twin(60), lambda client: show_candles(client, start=start, page_candles=5, table_candles_max=10))
    cut = capsys.readouterr()
    assert len(cut.out.splitlines()) == 11
    assert cut.err.splitlines()[-1] == "there are more: continue with --from 2026-11-24T12:10:00.000000Z, or use --json"


def test_an_empty_candle_shows_no_price() -> None:
    empty = CandleJson.empty(NOON, closed=True)
    assert output.candle_row(empty) == ("2026-11-24T12:00:00.123456Z", "-", "-", "-", "-", "-", 0, "closed")


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("2026-11-24", "2026-11-24T00:00:00.000000Z"),
        ("2026-11-24T12:00:00+02:00", "2026-11-24T10:00:00.000000Z"),
        ("2026-11-24T12:00:00.5Z", "2026-11-24T12:00:00.500000Z"),
    ],
)
def test_a_time_is_rfc_3339_or_a_date_in_utc(text: str, read: str) -> None:
    assert times.read_time(text) == read


@pytest.mark.parametrize("text", ["2026-11-31", "yesterday", "2026-11-24T12:00:00", "1732400000", ""])
def test_an_invalid_time_is_refused_with_the_fix(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", "bitcoin", "--from", text]) == 2
    assert "or as a date, 2026-11-24 (cotacoes history --help)\n" in capsys.readouterr().err


REPORT = {
    "generated_at": "2026-11-24T12:00:00.000000Z",
    "deadline_ms": 2000,
    "elapsed_ms": 12,
    "complete": False,
    "missing": [{"part": "shard1", "reason": "shard1 is not reachable\x1b[2J"}],
    "coins": {
        "bitcoin": {
            "current": {
                "coin": "bitcoin",
                "currency": "USD",
                "price": f"1.{'1' * 28}",
                "epoch": 5,
                "seq": 1,
                "observed_at": "2026-11-24T12:00:00.000000Z",
                "at": "2026-11-24T12:00:00.000000Z",
                "age_ms": 200,
                "status": "fresh",
                "source": "live",
                "origin": "sim",
            },
            "average": {
                "coin": "bitcoin",
                "currency": "USD",
                "average": "1.5",
                "count": 7,
                "from": "5-3",
                "to": "5-9",
            },
            "last_logs": None,
            "through": None,
            "pending": 3,
            "window": None,
        },
        "ethereum": {
            "current": None,
            "average": None,
            "last_logs": [],
            "through": None,
            "pending": None,
            "window": {
                "currency": "USD",
                "origin": "sim",
                "open": "4",
                "high": "9.50",
                "low": "2",
                "close": "3",
                "change_percent": "-25",
                "mean": "4.5",
                "count": 7,
                "from": "2026-11-24T10:55:00.000000Z",
                "to": "2026-11-24T12:00:00.000000Z",
                "complete": False,
                "minutes": 3,
                "holes": 1,
                "closed": True,
                "closes": ["4", None, "9.50", "3"],
            },
        },
    },
    "window": {
        "name": "24h",
        "from": "2026-11-23T12:00:00.000000Z",
        "to": "2026-11-24T12:00:00.000000Z",
        "closes_from": "2026-11-23T12:00:00.000000Z",
        "step_minutes": 60,
    },
    "sources": {},
}


def test_the_report_is_a_table_that_names_what_is_missing_and_wraps_no_price(
    capsys: pytest.CaptureFixture[str],
) -> None:
    twin = new_twin()
    twin.faults["/report/full"] = json.dumps(REPORT).encode()
    assert ask(twin, lambda client: queries.report(client, as_json=False)) == 0
    printed = capsys.readouterr().out
    heads, bitcoin, ethereum, over, columns, *windows, words, missing = (line.split() for line in printed.splitlines())
    assert heads == ["coin", "price", "status", "age", "mean", "of", "logs", "through", "pending"]
    assert bitcoin == ["bitcoin", f"1.{'1' * 28}", "USD", "fresh", "0.2", "s", "old", "1.5", "7", "?", "?", "3"]
    assert ethereum == ["ethereum", "?", "?", "?", "?", "?", "0", "-", "?"]
    assert over == ["24h", "(1", "h", "5", "min", "held)", "until", "2026-11-24T12:00:00.000000Z"]
    assert columns[:6] == ["coin", "open", "high", "low", "close", "change"]
    assert windows[0] == ["bitcoin", *["?"] * 10]
    assert windows[1] == ["ethereum", "4", "9.50", "2", "3", "-25.00", "%", "4.5", "7", "3", "1", "▂·█▁"]
    assert words[-1] == "incomplete"
    assert missing[:2] == ["missing", "shard1:"]
    assert "\x1b" not in printed


@pytest.mark.parametrize(
    ("prices", "drawn"),
    [
        ([], ""),
        ([None, None], "··"),
        (["5", "5.0", None], "▅▅·"),
        ([str(price) for price in range(1, 9)], "▁▂▃▄▅▆▇█"),
        (["0." + "0" * 29 + digit for digit in "18"], "▁█"),
        ([str(price) for price in range(60)], "▁▁▁▁▁▂▂▂▂▃▃▃▃▄▄▄▄▅▅▅▅▆▆▆▆▇▇▇▇█"),
        ([None] * 41 + ["1", None], "·" * 20 + "▅·"),
    ],
)
def test_a_sparkline_shows_the_course_of_a_price_and_its_gaps(prices: list[str | None], drawn: str) -> None:
    assert sparkline(prices) == drawn


TRACE = [
    {"branch": "a.current", "status": "ok", "start_ms": 0, "elapsed_ms": 2, "attempts": 1, "reason": None},
    {"branch": "mean", "status": "failed", "start_ms": 10, "elapsed_ms": 10, "attempts": 2, "reason": "away\x1b[2J"},
    {"branch": "shard1", "status": "abandoned", "start_ms": 0, "elapsed_ms": 40, "attempts": 1, "reason": "no answer"},
    {"branch": "shard2", "status": "skipped", "start_ms": 40, "elapsed_ms": 0, "attempts": 0, "reason": "not begun"},
]


def test_a_trace_is_drawn_as_a_waterfall(capsys: pytest.CaptureFixture[str]) -> None:
    twin = new_twin()
    twin.faults["/report/full"] = json.dumps(REPORT | {"trace": TRACE}).encode()
    assert ask(twin, lambda client: queries.report(client, ["Bitcoin"], trace=True, as_json=False)) == 0
    drawn = capsys.readouterr().out.splitlines()[-4:]
    assert drawn[0] == f"a.current |{'==':<40}|     2.0 ms  ok"
    assert drawn[1].startswith(f"mean      |{' ' * 10 + '=' * 10:<40}|    10.0 ms  failed, 2 calls: away")
    assert "\x1b" not in drawn[1]
    assert drawn[2] == f"shard1    |{'=' * 40}|    40.0 ms  abandoned: no answer"
    assert drawn[3] == f"shard2    |{' ' * 39}=|     0.0 ms  skipped: not begun"


def test_the_report_as_json_is_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    twin = new_twin()
    twin.faults["/report/full"] = json.dumps(REPORT).encode()
    ask(twin, lambda client: queries.report(client, as_json=True))
    assert json.loads(capsys.readouterr().out) == REPORT


def questions(*names: str, source: str) -> list[str]:
    """What is asked before each of the coins is added, with this source."""

    async def scenario(folder: Path) -> list[str]:
        settings = config.load({}, source=source, data=folder, venue_symbols="okx:rare:RARE-USDC")
        served = (
            feed_service.build(settings)
            if settings.is_live_source
            else external_service.build(settings, asyncio.Event())
        )
        asked = []
        for coin in names:
            http = HttpClient(1.0, 65_536, transport=httpx2.ASGITransport(served.app))
            services = ServiceClient(Addresses(**{served.name: HOST}), http=http)
            asked.append(await coins.question(services, coin))
        return asked

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(scenario(Path(folder)))


def test_the_question_before_a_coin_is_added_names_the_source_of_its_prices() -> None:
    known, listed, unlisted = questions("ethereum", "rare", "nobody", source="exchanges")
    assert "it is listed at binance (ETHUSDT), coinbase (ETH-USD), kraken (ETH/USD), bitstamp (ethusd), okx" in known
    assert listed == "rare cannot be removed once it is added; it is listed at okx (RARE-USDC). Add rare?"
    assert "no followed exchange is known to list it" in unlisted
    assert "as in kraken:nobody:SYMBOL/USD. Add nobody?" in unlisted
    quoted, invented = questions("ethereum", "solana", source="sim")
    assert quoted == "ethereum cannot be removed once it is added; the source quotes bitcoin, ethereum. Add ethereum?"
    assert invented.endswith("the source quotes bitcoin, ethereum, and would invent prices of solana. Add solana?")


def test_the_question_before_a_coin_is_added_also_comes_if_the_source_is_away() -> None:
    services = ServiceClient(Addresses(feed_service="http://127.0.0.1:1"), deadline_s=1.0)
    asked = asyncio.run(coins.question(services, "solana"))
    assert "whether the source has prices of it is not known (feed_service" in asked


def running(_: Path, command: str) -> dict[str, Any]:
    assert command == "env"
    return {"env": {"COTACOES_QUOTE_URL": "http://127.0.0.1:9002"}, "path": "/programs"}


def nothing_runs(data: Path, _: str) -> dict[str, Any]:
    raise ServiceUnavailableError(f"nothing is running on {data}")


def test_commands_query_the_system_on_the_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COTACOES_QUOTE_URL", "http://elsewhere:1")
    monkeypatch.setenv("COTACOES_COINS", "bitcoin:shard1")
    found = queries.find_system(None, running)
    assert found == {"COTACOES_QUOTE_URL": "http://127.0.0.1:9002", "COTACOES_COINS": "bitcoin:shard1"}
    assert queries.find_system(None, nothing_runs)["COTACOES_QUOTE_URL"] == "http://elsewhere:1"


NOWHERE = "nothing is running on .cotacoes"


@pytest.mark.parametrize("environment", [{}, {"COTACOES_DATA": ".cotacoes"}, {"COTACOES_COINS": "bitcoin:shard1"}])
def test_no_system_is_queried_if_none_runs_and_none_is_named(environment: dict[str, str]) -> None:
    with pytest.raises(ServiceUnavailableError) as refused:
        queries.find_system(None, nothing_runs, environment, lambda _: None)
    assert str(refused.value) == NOWHERE


def test_the_system_of_another_folder_is_named_and_not_queried() -> None:
    with pytest.raises(ServiceUnavailableError) as refused:
        queries.find_system(None, nothing_runs, {}, {8000: Path("/other/.cotacoes")}.get)
    said = f"{NOWHERE}; the system on port 8000 belongs to /other/.cotacoes: query it with --data /other/.cotacoes"
    assert str(refused.value) == said


@pytest.mark.parametrize(
    "variable", ["COTACOES_PORT_BASE", "COTACOES_QUOTE_URL", "COTACOES_SHARD1_DSN", "COTACOES_REDIS_URL"]
)
def test_a_system_named_by_the_environment_is_queried(variable: str) -> None:
    environment = {variable: "9000", "PATH": "/bin"}
    assert queries.find_system(None, nothing_runs, environment, lambda _: None) == {variable: "9000"}


def test_a_named_folder_without_a_running_system_is_an_error() -> None:
    with pytest.raises(ServiceUnavailableError, match="nothing is running on elsewhere"):
        queries.find_system(Path("elsewhere"), nothing_runs)


def test_exports_survive_a_shell() -> None:
    exports = "\n".join(output.export_lines({"DSN": "postgresql://a:p'$(x)\"@h/d"}, "/a folder/bin"))
    script = f'{exports}\nprintf "%s\\n" "$DSN" "$PATH"'
    done = subprocess.run(["/bin/sh", "-c", script], env={"PATH": "/bin"}, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["postgresql://a:p'$(x)\"@h/d", "/bin:/a folder/bin"]


def failing(error: BaseException) -> Callable[[], object]:
    def run() -> object:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingError("a setting"), 2),
        (UnknownCoinError("no such coin"), 2),
        (NoQuoteError("none yet"), 4),
        (ServiceUnavailableError("away"), 4),
        (InternalError("a bug"), 1),
        (CotacoesError("else"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_of_our_errors_is_one_sentence_and_an_exit_code(
    error: CotacoesError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.ended(failing(error)) == code
    assert capsys.readouterr() == ("", f"cotacoes: {error}\n")


def test_ctrl_c_ends_silently_with_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.ended(failing(KeyboardInterrupt())) == 130
    assert capsys.readouterr() == ("", "")


def test_an_unknown_coin_is_reported_with_a_similar_one(capsys: pytest.CaptureFixture[str]) -> None:
    twin = new_twin()
    assert app.ended(lambda: ask(twin, lambda client: queries.quote(client, "Bitcon", as_json=False))) == 2
    assert capsys.readouterr().err == "cotacoes: bitcon is not quoted here: did you mean bitcoin?\n"


def test_a_bug_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        app.ended(failing(ZeroDivisionError()))


@pytest.mark.parametrize(
    "arguments",
    [["quot"], ["quote"], ["quote", "a", "b"], ["history", "a", "--last", "0"], ["status", "--nope"], ["stop"]],
    ids=" ".join,
)
def test_wrong_usage_is_one_sentence_and_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "--help" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["history", "a", "--last", "2", "--after", "5-1"],
        ["history", "a", "--last", "2", "--to", "2026-11-24"],
        ["candles", "a", "--last", "2", "--from", "2026-11-24"],
        ["up", "--plain", "--json"],
    ],
    ids=" ".join,
)
def test_options_that_exclude_each_other_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "not both" in capsys.readouterr().err


def test_the_commands_are_those_that_are_documented() -> None:
    assert list(typer.main.get_group(app.application()).commands) == COMMANDS
    assert [name for names in app.COMMANDS.values() for name in names] == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_found_without_the_others(command: str) -> None:
    assert list(typer.main.get_group(app.application(command)).commands) == [command]


def test_the_constants_that_the_help_repeats_are_those_of_the_code() -> None:
    assert timedelta(hours=1) == GRACE  # `shards purge --now`
    assert quotes.LAST_QUOTES_MAX == READ_QUOTES_MAX
    system = config.load({}, redis_url="redis://r", shard1_dsn="postgresql://a/a", shard2_dsn="postgresql://b/b")
    assert topology.exports(system).keys() == queries.EXPORTED


def words_of_commands() -> list[list[str]]:
    """Each command with its group."""
    words: list[list[str]] = []
    for name, command in typer.main.get_command(app.application()).commands.items():  # type: ignore[attr-defined]
        if not command.hidden:
            words += [[name, inner] for inner in getattr(command, "commands", ())] or [[name]]
    return words


@pytest.mark.parametrize("command", [[], *words_of_commands()], ids=" ".join)
@pytest.mark.slow
def test_help_begins_with_examples(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--help"]) == 0
    printed = capsys.readouterr().out
    assert re.search(rf"\n\n  Examples?:\n    .*cotacoes {' '.join(command)}", printed)
    assert printed.index("Example") < printed.index("Options:")


def test_without_a_command_there_is_help_on_stderr_and_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "cotacoes quote bitcoin" in err


def test_the_version_goes_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr() == (f"cotacoes {__version__}\n", "")


ENDED = """
import sys
from cotacoes.cli.app import ended
from cotacoes.cli.output import put
from cotacoes.errors import NoQuoteError

def run():
"""
ENDLESS = f"{ENDED}    while True: put('x' * 100)\nsys.exit(ended(run))"
FAILED = f"{ENDED}    put('x'); sys.stdin.read(); raise NoQuoteError('none yet')\nsys.exit(ended(run))"
BUFFERED = {name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"}  # as people have it


@pytest.mark.parametrize(("script", "code", "said"), [(ENDLESS, 0, b""), (FAILED, 4, b"cotacoes: none yet\n")])
@pytest.mark.slow
def test_a_command_ends_quietly_when_its_reader_closes_the_pipe(script: str, code: int, said: bytes) -> None:
    with subprocess.Popen([sys.executable, "-c", script], env=BUFFERED, stdin=-1, stdout=-1, stderr=-1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == said
        assert process.wait(20) == code


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no device that is always full")
def test_a_full_disk_under_stdout_is_one_sentence_and_1() -> None:
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-c", ENDLESS]
        done = subprocess.run(command, env=BUFFERED, stdout=full, stderr=subprocess.PIPE, timeout=20)
    assert done.returncode == 1
    assert re.fullmatch(rb"cotacoes: standard output cannot be written \(.+\)\n", done.stderr)
