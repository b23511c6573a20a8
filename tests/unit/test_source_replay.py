"""A replay serves the mids of the recording: digit for digit, in order, at its pace, in little memory."""

import asyncio
import functools
import gzip
import heapq
import json
import os
import random
import tracemalloc
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry, Counter
from tests.data import make_recordings
from tests.harness_recordings import RecordedMarket, each_csv_of_trades, each_market

from cotacoes.errors import ServiceUnavailableError, SettingError
from cotacoes.external_service.recording import HEAD_LINES_MAX, LINE_BYTES_MAX, LineCounts, Recording
from cotacoes.external_service.recording_formats import Pair
from cotacoes.external_service.replay import MAX_SPEED, Playing, Timeline, measure
from cotacoes.external_service.replay_tape import ReplayTape
from cotacoes.model.quote import ORIGIN_PATTERN, Observation, format_price, format_time, to_microseconds

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
FIRST_NS = 1_723_161_254_000_000_000


def book_ticker(at_s: float, bid: str, ask: str, symbol: str = "BTCUSDT") -> bytes:
    data = {"u": 1, "s": symbol, "b": bid, "B": "1.0", "a": ask, "A": "2.0"}
    frame = {"stream": f"{symbol.lower()}@bookTicker", "data": data}
    return f"{FIRST_NS + round(at_s * 1e9)} {json.dumps(frame)}\n".encode()


def other(at_s: float, stream: str = "btcusdt@trade") -> bytes:
    frame = {"stream": stream, "data": {"e": "trade", "s": "BTCUSDT", "b": [["1", "2"]], "a": 5}}
    return f"{FIRST_NS + round(at_s * 1e9)} {json.dumps(frame)}\n".encode()


def write(path: Path, lines: Iterable[bytes]) -> Path:
    with gzip.open(path, "wb") if path.suffix == ".gz" else path.open("wb") as file:
        file.writelines(lines)
    return path


class Stage:
    """A replay whose time moves when it sleeps: each sleep steps the clock by `step_s` and reads the quotes."""

    def __init__(
        self, paths: Sequence[Path], *, speed: float = 1.0, step_s: float = 0.1, price: str = "mid", **how: Any
    ) -> None:
        self.seconds = 50.0
        self.step_s = step_s
        self.seen: dict[str, list[Observation]] = {}
        self.frames = Counter("frames", "lines", ["outcome"], registry=CollectorRegistry())
        self.timeline = Timeline(
            Recording(paths, price=price),
            speed=speed,
            started_at=NOON,
            started_s=50.0,
            clock=lambda: self.seconds,
            now=self.now,
            **how,
        )
        self.replay = Playing(self.timeline, lines_counter=self.frames, sleep=self.sleep)
        self.tape = ReplayTape(self.timeline)

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.seconds - 50.0)

    async def sleep(self, seconds: float) -> None:
        until = self.seconds + seconds
        while self.seconds < until:
            self.look()
            self.seconds = min(until, self.seconds + self.step_s)
        self.look()
        await asyncio.sleep(0)

    def look(self) -> None:
        for coin, quote in self.replay.quotes().items():
            seen = self.seen.setdefault(coin, [])
            if not seen or seen[-1] is not quote:
                seen.append(quote)

    def play(self) -> "Stage":
        asyncio.run(self.replay.run())
        self.look()
        return self

    def counted(self, outcome: str) -> float:
        return float(self.frames.labels(outcome=outcome)._value.get())


def test_each_book_ticker_gives_its_exact_mid_normalised_at_its_own_time(tmp_path: Path) -> None:
    lines = [
        other(0.0),
        book_ticker(1.0, "61837.63000000", "61837.64000000"),
        other(1.2),
        book_ticker(1.5, "61838.00000000", "61840.00000000"),
        book_ticker(3.0, "0.00000001", "0.00000002"),
    ]
    playing = Stage([write(tmp_path / "btc.gz", lines)]).play()
    shown = [(format_price(quote.price), quote.observed_at - NOON) for quote in playing.seen["bitcoin"]]
    assert [price for price, _ in shown] == ["61837.635", "61839", "0.000000015"]
    assert [round(time.total_seconds(), 6) for _, time in shown] == [0.0, 0.5, 2.0]
    assert {(quote.currency, quote.origin) for quote in playing.seen["bitcoin"]} == {("USDT", "replay:btc")}
    assert (playing.counted("price"), playing.counted("skipped"), playing.counted("malformed")) == (3, 2, 0)


def test_speed_scales_the_pace(tmp_path: Path) -> None:
    path = write(tmp_path / "btc", [book_ticker(0, "1", "1"), book_ticker(10, "2", "2")])
    playing = Stage([path], speed=20.0).play()
    assert playing.seen["bitcoin"][1].observed_at - NOON == timedelta(seconds=0.5)


def test_files_play_side_by_side_in_the_order_of_receive_time(tmp_path: Path) -> None:
    bitcoin = write(tmp_path / "b.gz", [book_ticker(at, str(at + 1), str(at + 1)) for at in (0, 2, 4)])
    ether = write(tmp_path / "e", [book_ticker(at, str(at), str(at), "ETHUSDT") for at in (1, 3, 5)])
    playing = Stage([bitcoin, ether]).play()
    times = {
        coin: [round((q.observed_at - NOON).total_seconds(), 6) for q in seen] for coin, seen in playing.seen.items()
    }
    assert times == {"bitcoin": [0, 2, 4], "ethereum": [1, 3, 5]}


def test_a_coin_is_absent_until_its_first_price_and_keeps_its_last_at_the_end(tmp_path: Path) -> None:
    path = write(tmp_path / "f", [book_ticker(0, "1", "1"), book_ticker(5, "9", "9", "ETHUSDT")])
    playing = Stage([path])
    assert playing.replay.quotes() == {}
    with structlog.testing.capture_logs() as logs:
        playing.play()
    playing.seconds += 3600
    assert {coin: quote.price for coin, quote in playing.replay.quotes().items()} == {"bitcoin": 1, "ethereum": 9}
    assert playing.replay.quotes()["ethereum"].observed_at == NOON + timedelta(seconds=5)
    assert [log["event"] for log in logs] == ["replay.ended"]


MALFORMED = [
    b"\n",
    b"hello\n",
    b"{}\n",
    b'12x {"stream":"btcusdt@bookTicker"}\n',
    b'1723161254000000000 {"stream":"btcusdt@bookTicker","data":\n',
    b'1723161254000000000 {"stream":"btcusdt@bookTicker","data":{"s":"BTCUSDT","b":"1"}}\n',
    b'1723161254000000000 {"stream":"btcusdt@bookTicker","data":{"s":"BTCUSDT","b":1.5,"a":1.5}}\n',
    b'1723161254000000000 {"stream":"btcusdt@bookTicker","data":{"s":"BTCUSDT","b":"NaN","a":"1"}}\n',
    b'1723161254000000000 {"stream":"btcusdt@bookTicker","data":{"s":"BTCUSDT","b":"0.0","a":"1"}}\n',
    b'1723161254000000000 {"stream":"btcusdt@bookTicker","data":{"s":"BTC\xff","b":"1","a":"1"}}\n',
    b'1723161254000000000 {"stream":' + b"[" * 100_000 + b"\n",
    b"1723161254000000000 " + b"x" * (LINE_BYTES_MAX + 5) + b"\n",
    b"\x00\xff\xfe\n",
]


def test_a_malformed_line_is_counted_and_the_lines_around_it_play(tmp_path: Path) -> None:
    lines = [book_ticker(0, "1", "1"), *MALFORMED, book_ticker(1, "2", "2"), b"123"]
    playing = Stage([write(tmp_path / "f.gz", lines)]).play()
    assert [quote.price for quote in playing.seen["bitcoin"]] == [1, 2]
    assert playing.counted("malformed") == len(MALFORMED) + 1


def test_frames_of_other_streams_and_other_symbols_are_skipped(tmp_path: Path) -> None:
    lines = [
        other(0),
        other(0, "btcusdt@depth@100ms"),
        book_ticker(0, "1", "1", "DOGEUSDT"),
        b'1723161254206652067 {"lastUpdateId":5,"bids":[["1","2"]],"asks":[]}\n',
    ]
    counted = LineCounts()
    assert list(Recording([write(tmp_path / "f", lines)]).prices(counted)) == []
    assert counted == LineCounts(price=0, skipped=4, malformed=0)


def test_a_truncated_file_is_logged_and_the_other_plays_on(tmp_path: Path) -> None:
    noise = random.Random(1)
    prices = [f"{noise.randrange(10**6, 10**7)}.{noise.randrange(10**8):08d}" for _ in range(4000)]
    whole = write(tmp_path / "b.gz", [book_ticker(at / 100, price, price) for at, price in enumerate(prices)])
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    ether = write(tmp_path / "e.gz", [book_ticker(at, "5", "5", "ETHUSDT") for at in (0, 50)])
    Recording([whole, ether]).check()
    with structlog.testing.capture_logs() as logs:
        playing = Stage([whole, ether]).play()
    assert [log["event"] for log in logs] == ["replay.broken", "replay.ended"]
    assert logs[0]["file"] == "b.gz"
    assert len(playing.seen["ethereum"]) == 2
    assert 10 < len(playing.seen["bitcoin"]) < 4000


def rows(*times: str, header: str = "symbol,price,timestamp") -> bytes:
    """A CSV of one pair, priced 1, 2, 3 ... in the order of the rows."""
    lines = [header, *(f"BTC-USD,{price},{time}" for price, time in enumerate(times, start=1))]
    return "\n".join(lines).encode()


ROWS_BACKWARDS = rows(*(f"2024-03-01T09:{minute:02}:00Z" for minute in range(59, 0, -1)))


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.gz", None, "No such file"),
        ("a.gz", b"", "empty"),
        ("a.gz", b"plain text\n", "not packed"),
        ("a.gz", gzip.compress(other(0) * 50, mtime=0)[:40], "ended before"),
        ("a.gz", b"\x1f\x8b" + b"\x00" * 40, "cannot be read"),
        ("a.gz", gzip.compress(other(0) * 3, mtime=0), "no price of BTCUSDT"),
        ("a", b"hello\n" * 10, "read as a recording: line 1: a CSV needs a header with symbol, price, timestamp"),
        ("a", b"10,42000.1,0.001\n11,42000.2,0.001\n", "this line begins '10,42000.1,0.001'"),
        ("a", b"symbol;price;timestamp\nBTC-USD;1,5;2024-01-01T00:00:00Z\n", "this line begins 'symbol;price"),
        (
            "a",
            b"symbol,price,timestamp\nBTC-USD,1,2024-01-01T00:00:00\n",
            "line 2: the timestamp is '2024-01-01T00:00:00'",
        ),
        ("a", b"symbol,price,timestamp\nBTC-USD,NaN,1704067200\n", "line 2: the price is not_finite: 'NaN'"),
        ("a", b"symbol,price,timestamp\nBTC-USD,1,17\n", "line 2: its time is not between"),
        ("a", b'{"coin":"bitcoin","price":"1"}\n', "line 1: this JSON is not a message of `cotacoes record`"),
        ("a", b"PK\x03\x04" + b"\x00" * 99, "a zip archive: unpack it"),
        ("a", b"\x28\xb5\x2f\xfd" + b"\x00" * 99, "packed with zstd"),
        ("a", b"PAR1" + b"\x00" * 99, "a Parquet file"),
        ("a", "symbol,price".encode("utf-16"), "UTF-16: write it as UTF-8"),
        ("a", ROWS_BACKWARDS, "runs backwards in time"),
        ("a", book_ticker(0, "1", "1", "DOGEUSDT"), "no price of BTCUSDT"),
        ("a", b"\x00" * 3_000_000, "cannot be read as a recording"),
    ],
)
def test_an_unusable_recording_is_refused_by_name_before_anything_starts(
    tmp_path: Path, name: str, content: bytes | None, problem: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingError, match=problem) as caught:
        Recording([path]).check()
    assert str(path) in str(caught.value)


def test_the_check_reads_only_the_head(tmp_path: Path) -> None:
    Recording([write(tmp_path / "a", [*[other(0)] * (HEAD_LINES_MAX - 1), book_ticker(0, "1", "1")])]).check()
    with pytest.raises(SettingError, match="no price of BTCUSDT"):
        Recording([write(tmp_path / "b", [*[other(0)] * HEAD_LINES_MAX, book_ticker(0, "1", "1")])]).check()


def test_the_origin_names_the_files_and_is_always_valid() -> None:
    assert Recording([Path("x/btcusdt_20240808.gz"), Path("eth.gz")]).origin == "replay:btcusdt_20240808+eth"
    for names in (["ü ñ.gz"], ["a" * 300], [f"{number}.gz" for number in range(80)], [".gz"], ["a\nb"]):
        assert ORIGIN_PATTERN.match(Recording([Path(name) for name in names]).origin)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    peaks = []
    for count in (5_000, 50_000):
        lines = (book_ticker(at / 100, f"{at + 1}.5", f"{at + 1}.5") for at in range(count))
        playing = Stage([write(tmp_path / f"{count}.gz", lines)], step_s=1000.0)
        tracemalloc.start()
        playing.play()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert playing.counted("price") == count
    assert peaks[1] < 2 * peaks[0]


@functools.cache
def own_reading(path: Path) -> list[tuple[int, str]]:
    """Receive time and mid as text, by other means than the code under test: `json` and `Fraction`."""
    mids = []
    with gzip.open(path, "rt") as file:
        for line in file:
            received_ns, _, frame = line.partition(" ")
            parsed = json.loads(frame)
            if parsed.get("stream", "").endswith("@bookTicker"):
                mid = (Fraction(parsed["data"]["b"]) + Fraction(parsed["data"]["a"])) / 2
                hundred_millionths = mid * 10**9
                assert hundred_millionths.denominator == 1
                whole, places = divmod(int(hundred_millionths), 10**9)
                mids.append((int(received_ns), f"{whole}.{places:09d}".rstrip("0").rstrip(".")))
    return mids


@each_market
@pytest.mark.parametrize("step_s", [0.5, 0.003])
@pytest.mark.slow
def test_a_recording_is_served_digit_for_digit_in_order_at_its_times(market: RecordedMarket, step_s: float) -> None:
    recorded = {coin: own_reading(path) for coin, path in market.files.items()}
    assert tuple(len(mids) for mids in recorded.values()) == market.prices
    files = list(market.files.values())
    Recording(files).check()
    playing = Stage(files, step_s=step_s).play()
    first_ns = next(heapq.merge(*recorded.values()))[0]
    for coin, mids in recorded.items():
        moments = iter((round((ns - first_ns) / 1000), price) for ns, price in mids)
        for quote in playing.seen[coin]:  # each one comes after the one before
            served = ((quote.observed_at - NOON) / timedelta(microseconds=1), format_price(quote.price))
            assert any(abs(at - served[0]) <= 2 and price == served[1] for at, price in moments), served
        assert format_price(playing.replay.quotes()[coin].price) == mids[-1][1]
        lasts_s = (mids[-1][0] - first_ns) / 1e9
        assert len(playing.seen[coin]) > (1.4 * lasts_s if step_s > 0.1 else 14 * lasts_s)
    assert playing.counted("price") == sum(market.prices)
    assert playing.counted("malformed") == 0
    assert all(isinstance(quote.price, Decimal) for seen in playing.seen.values() for quote in seen)


def trade(received_s: float, exchange_s: float, price: str, symbol: str = "BTCUSDT") -> bytes:
    data = {"e": "trade", "s": symbol, "p": price, "q": "1", "T": round((FIRST_NS / 1e9 + exchange_s) * 1000)}
    frame = {"stream": f"{symbol.lower()}@trade", "data": data}
    return f"{FIRST_NS + round(received_s * 1e9)} {json.dumps(frame)}\n".encode()


def test_a_trade_has_the_exchanges_time_but_never_a_later_one_than_its_receipt(tmp_path: Path) -> None:
    lines = [trade(0, 1.25, "1.10"), book_ticker(0.5, "9", "9"), trade(2, 1.5, "2"), trade(3, 4.25, "3")]
    path = write(tmp_path / "t", lines)
    counted = LineCounts()
    read = list(Recording([path], price="trade").prices(counted))
    assert [(one.received_ns - FIRST_NS, one.observed_ns - FIRST_NS) for one in read] == [
        (0, 0),
        (2 * 10**9, 1_500_000_000),
        (3 * 10**9, 3 * 10**9),
    ]
    assert counted == LineCounts(price=3, skipped=1, malformed=0)
    stage = Stage([path], price="trade", step_s=0.5).play()
    for quote in stage.seen["bitcoin"]:
        assert quote.observed_at <= stage.now()
    assert [format_price(quote.price) for quote in stage.seen["bitcoin"]] == ["1.10", "2", "3"]
    assert stage.seen["bitcoin"][1].observed_at == NOON + timedelta(seconds=1.5)


ROWS = b"""\xef\xbb\xbfsymbol,side,price,amount,timestamp
"BTC-USD","sell",25741.02,0.02,"2023-09-05T16:00:01.281719Z"
"BTC-USD","buy",25741.030,0.01,"2023-09-05T16:00:01.775613Z"
"DOGE-USD","buy",0.06,1,"2023-09-05T16:00:02Z"
"BTC-USD","buy",NaN,1,"2023-09-05T16:00:03Z"
"BTC-USD","buy",1e5,1,"2023-09-05T16:00:03Z"
"BTC-USD","buy",1,1,"yesterday"
"BTC-USD","buy"
"BTC-USD","buy",25742,0.01,"2023-09-05T16:00:04Z"
"""


def test_a_csv_of_trades_is_read_by_its_header_digit_for_digit(tmp_path: Path) -> None:
    counted = LineCounts()
    read = list(Recording([write(tmp_path / "btc.csv.gz", [ROWS])]).prices(counted))
    assert [(format_price(one.price), one.currency) for one in read] == [
        ("25741.02", "USD"),
        ("25741.030", "USD"),
        ("100000", "USD"),
        ("25742", "USD"),
    ]
    assert read[1].received_ns - read[0].received_ns == 493_894_000
    assert counted == LineCounts(price=4, skipped=2, malformed=3)


@pytest.mark.parametrize(
    ("header", "row"),
    [("symbol,high,price,timestamp", "BTC-USD,9,2,{}"), ("timestamp,id,price,side,symbol", "{},7,2,buy,BTC-USD")],
)
def test_a_header_in_the_middle_of_a_joined_file_sets_the_columns_anew(tmp_path: Path, header: str, row: str) -> None:
    first = "symbol,price,high,timestamp\nBTC-USD,1,8,2024-01-01T00:00:00Z\n"
    text = f"{first}\ufeff{header}\n{row.format('2024-01-01T00:00:01Z')}\n{first.replace(':00Z', ':02Z')}"
    counted = LineCounts()
    read = list(Recording([write(tmp_path / "f.csv", [text.encode()])]).prices(counted))
    assert [format_price(one.price) for one in read] == ["1", "2", "1"]
    assert counted == LineCounts(price=3, skipped=3)


@pytest.mark.parametrize(
    "time",
    [
        "1709283600.25",
        "1709283600250",
        "1709283600250000",
        "1709283600250000000",
        "2024-03-01 09:00:00.25Z",
        "2024-03-01T06:00:00.25-03:00",
    ],
)
def test_the_times_of_a_csv_are_read_by_their_size(tmp_path: Path, time: str) -> None:
    (read,) = Recording([write(tmp_path / "f.csv", [rows(time)])]).prices(LineCounts())
    assert read.observed_ns == read.received_ns == 1_709_283_600_250_000_000


def test_rows_that_go_back_in_time_are_counted_logged_once_and_keep_their_own_time(tmp_path: Path) -> None:
    times = [f"2024-03-01T09:00:{second:02}Z" for second in (0, 10, 40, 20, 30, 50)]
    path = write(tmp_path / "f.csv", [rows(*times)])
    recorded = Recording([path])
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            counted = LineCounts()
            assert len(list(recorded.prices(counted))) == 6
            assert counted == LineCounts(price=6, skipped=1, late=2)
    assert logs == [{"event": "replay.disordered", "log_level": "warning", "file": "f.csv", "line": 5}]
    stage = Stage([path])
    stage.seconds += 60
    found = asyncio.run(stage.tape.after(0, 10))
    assert [(observed.observed_at - NOON).seconds for _, observed in found] == [0, 10, 40, 20, 30, 50]


def test_coins_may_overtake_each_other_and_a_check_logs_nothing(
    tmp_path: Path,
) -> None:
    overtaking = [own_line("bitcoin", 1, "5"), own_line("ethereum", 3, "3"), own_line("bitcoin", 2, "6")]
    path, counted = write(tmp_path / "own", overtaking), LineCounts()
    assert len(list(Recording([path]).prices(counted))) == 3
    assert counted == LineCounts(price=3)
    with structlog.testing.capture_logs() as logs:
        Recording([write(tmp_path / "f.csv", [rows(*(f"2024-03-01T09:00:0{at}Z" for at in (2, 1, 3)))])]).check()
    assert logs == []


def test_the_newest_price_is_the_newest_by_its_own_time_even_if_rows_go_back(tmp_path: Path) -> None:
    times = [f"2024-03-01T09:00:{second:02}Z" for second in (0, 40, 20, 30)]
    stage = Stage([write(tmp_path / "f.csv", [rows(*times)])], step_s=10).play()
    assert [format_price(one.price) for one in stage.seen["bitcoin"]] == ["1", "2"]
    assert stage.counted("late") == 2


def test_a_coin_whose_prices_all_lie_before_the_first_of_the_file_is_shown(tmp_path: Path) -> None:
    own = [own_line("bitcoin", 10, "5"), own_line("ethereum", 1, "3"), own_line("ethereum", 2, "4")]
    stage = Stage([write(tmp_path / "own", own)]).play()
    assert {coin: format_price(one.price) for coin, one in stage.replay.quotes().items()} == {
        "bitcoin": "5",
        "ethereum": "4",
    }


@pytest.mark.parametrize("unit", [1000, 10**6, 10**9])
def test_a_trade_time_is_read_in_ms_us_or_ns_and_never_made_younger(tmp_path: Path, unit: int) -> None:
    line = b'%d {"stream":"btcusdt@trade","data":{"s":"BTCUSDT","p":"1","T":%d}}\n'
    seconds = FIRST_NS // 10**9
    lines = [line % (FIRST_NS, (seconds + ahead) * unit) for ahead in (-3, 5, 6, 3600)]
    counted = LineCounts()
    read = list(Recording([write(tmp_path / "t", lines)], price="trade").prices(counted))
    assert [one.observed_ns - FIRST_NS for one in read] == [-3 * 10**9, 0]
    assert counted == LineCounts(price=2, malformed=2)


def own_line(coin: str, seq: int, price: str) -> bytes:
    at = format_time(NOON + timedelta(seconds=seq))
    message = {"v": 1, "type": "quote", "coin": coin, "currency": "USD", "price": price, "epoch": 7, "seq": seq}
    return json.dumps({**message, "observed_at": at, "at": at, "origin": "sim", "prev": None}).encode() + b"\n"


def test_our_own_recording_is_read_back_without_its_gaps(tmp_path: Path) -> None:
    lines = [
        b'{"v":1,"type":"recording","started_at":"2026-11-24T12:00:00.000000Z","coins":["bitcoin"]}\n',
        own_line("bitcoin", 1, "5.10"),
        b'{"v":1,"type":"gap","coin":"bitcoin","after":"7-1","through":"7-2"}\n',
        b'{"v":1,"type":"heartbeat","coin":"bitcoin","epoch":7,"seq":2,"sent_at":"2026-11-24T12:00:02Z"}\n',
        own_line("any-coin", 3, "6"),
        b'{"v":2,"type":"quote"}\n',
    ]
    counted = LineCounts()
    read = list(Recording([write(tmp_path / "own.ndjson", lines)]).prices(counted))
    assert [(one.coin, format_price(one.price)) for one in read] == [("bitcoin", "5.10"), ("any-coin", "6")]
    assert counted == LineCounts(price=2, skipped=3, malformed=1)


@pytest.mark.parametrize("how", ["without its head", "with a mark", "with spaces"])
def test_our_own_recording_is_recognised_after_other_tools_rewrote_it(tmp_path: Path, how: str) -> None:
    head = {"v": 1, "type": "recording", "started_at": "2026-11-24T12:00:00.000000Z", "coins": ["bitcoin"]}
    spaced = json.dumps(head).encode() + b"\n"
    compact = json.dumps(head, separators=(",", ":")).encode() + b"\n"
    heads = {"without its head": [], "with a mark": [b"\xef\xbb\xbf" + compact], "with spaces": [spaced]}
    recorded = Recording([write(tmp_path / "own", [*heads[how], own_line("bitcoin", 1, "5.10")])])
    recorded.check()
    counted = LineCounts()
    assert [format_price(one.price) for one in recorded.prices(counted)] == ["5.10"]
    assert counted == LineCounts(price=1, skipped=len(heads[how]))


def test_further_pairs_are_named_by_the_settings(tmp_path: Path) -> None:
    path = write(tmp_path / "s", [book_ticker(0, "1", "2", "SOLUSDC")])
    (read,) = Recording([path], pairs={"SOLUSDC": Pair("solana", "USDC")}).prices(LineCounts())
    assert (read.coin, read.currency, read.price) == ("solana", "USDC", Decimal("1.5"))


def test_prices_of_the_same_moment_come_in_the_order_of_the_files(tmp_path: Path) -> None:
    first = write(tmp_path / "a", [book_ticker(1, "1", "1"), book_ticker(1, "2", "2")])
    second = write(tmp_path / "b", [book_ticker(1, "3", "3", "ETHUSDT"), book_ticker(2, "4", "4", "ETHUSDT")])
    for paths, expected in (([first, second], [1, 2, 3, 4]), ([second, first], [3, 1, 2, 4])):
        assert [one.price for one in Recording(paths).prices(LineCounts())] == expected


def page_after(stage: Stage, index: int, limit: int = 1000) -> list[tuple[int, str]]:
    found = asyncio.run(stage.tape.after(index, limit))
    return [(number, format_price(observed.price)) for number, observed in found]


def ten(tmp_path: Path) -> Path:
    return write(tmp_path / "ten", [book_ticker(at, str(at + 1), str(at + 1)) for at in range(10)])


def test_the_tape_gives_every_price_that_is_due_after_any_index_forwards_and_back(tmp_path: Path) -> None:
    stage = Stage([ten(tmp_path)])
    assert page_after(stage, 0) == [(1, "1")]
    assert page_after(stage, 1) == []
    assert 0 < stage.tape.next_due_s() <= 1
    stage.seconds += 4.5
    assert page_after(stage, 1, 2) == [(2, "2"), (3, "3")]
    assert page_after(stage, 3) == [(4, "4"), (5, "5")]
    assert page_after(stage, 0) == [(number, str(number)) for number in range(1, 6)]
    assert page_after(stage, 2, 1) == [(3, "3")]
    stage.seconds += 100
    assert page_after(stage, 9) == [(10, "10")]
    assert page_after(stage, 10) == []
    with pytest.raises(LookupError):
        page_after(stage, 11)


def test_prices_no_longer_in_memory_are_read_again_from_the_recording(tmp_path: Path) -> None:
    stage = Stage([ten(tmp_path)], speed=MAX_SPEED)
    stage.tape = ReplayTape(stage.timeline, held_prices=3)
    assert page_after(stage, 0) == page_after(stage, 0) == [(number, str(number)) for number in range(1, 11)]
    assert page_after(stage, 4, 2) == [(5, "5"), (6, "6")]
    assert page_after(stage, 8) == [(9, "9"), (10, "10")]


def test_a_resumed_session_gives_the_same_prices_indices_and_times(tmp_path: Path) -> None:
    path = ten(tmp_path)
    first, again = Stage([path], speed=2.0), Stage([path], speed=2.0)
    first.seconds += 3
    again.seconds += 4
    before = asyncio.run(first.tape.after(0, 100))
    after = asyncio.run(again.tape.after(0, 100))
    assert after[: len(before)] == before
    assert [observed.observed_at - NOON for _, observed in before] == [timedelta(seconds=n / 2) for n in range(7)]


def test_a_loop_begins_again_a_moment_after_its_end_and_its_indices_go_on(tmp_path: Path) -> None:
    path = ten(tmp_path)
    lap = measure(Recording([path]))
    assert (lap.prices, lap.length_ns) == (10, 10 * 10**9)
    stage = Stage([path], lap=lap)
    stage.seconds += 25
    assert page_after(stage, 8) == [(number, str((number - 1) % 10 + 1)) for number in range(9, 27)]
    far = Stage([path], lap=lap)
    far.seconds += 10_000_000
    assert page_after(far, 9_999_990, 3) == [(9_999_991, "1"), (9_999_992, "2"), (9_999_993, "3")]
    assert far.timeline.lap_due() == 1_000_000


def test_without_a_pace_every_price_is_due_with_the_present_or_its_own_time(tmp_path: Path) -> None:
    shifted = Stage([ten(tmp_path)], speed=MAX_SPEED)
    assert {observed.observed_at for _, observed in asyncio.run(shifted.tape.after(0, 100))} == {NOON}
    assert shifted.tape.quotes()["bitcoin"].price == 10
    kept = Stage([ten(tmp_path)], speed=MAX_SPEED, keeps_times=True)
    times = [observed.observed_at for _, observed in asyncio.run(kept.tape.after(0, 100))]
    assert [to_microseconds(at) * 1000 - FIRST_NS for at in times] == [number * 10**9 for number in range(10)]


def test_one_request_reads_only_so_far_and_the_next_goes_on_from_there(tmp_path: Path) -> None:
    stage = Stage([ten(tmp_path)], speed=MAX_SPEED)
    stage.tape = ReplayTape(stage.timeline, step_prices=2)
    assert page_after(stage, 8) == []
    assert stage.tape.next_due_s() <= 0
    assert page_after(stage, 8) == []
    assert page_after(stage, 8) == [(9, "9"), (10, "10")]
    stage.tape = ReplayTape(stage.timeline)
    with pytest.raises(LookupError):
        page_after(stage, 11)


def test_two_clients_far_apart_do_not_send_each_other_back(tmp_path: Path) -> None:
    stage = Stage([ten(tmp_path)], speed=MAX_SPEED)
    began: list[int] = []
    prices = stage.timeline.recording.prices

    def counted(lines: LineCounts) -> Iterator[Any]:
        began.append(1)
        return prices(lines)

    stage.timeline.recording.prices = counted  # type: ignore[method-assign]
    for step in range(4):
        assert page_after(stage, 5 + step, 1) == [(6 + step, str(6 + step))]
        assert page_after(stage, 0, 1) == [(1, "1")]
    assert len(began) <= 2


def test_far_along_a_loop_the_reading_begins_in_that_lap(tmp_path: Path) -> None:
    path = ten(tmp_path)
    stage = Stage([path], speed=MAX_SPEED, lap=measure(Recording([path])))
    assert page_after(stage, 9_000_000_000_000_000_000, 1) == [(9_000_000_000_000_000_001, "1")]


def test_a_recording_that_cannot_be_read_for_a_moment_has_not_ended(tmp_path: Path) -> None:
    path = ten(tmp_path)
    stage = Stage([path], speed=MAX_SPEED)
    assert page_after(stage, 0, 3) == [(1, "1"), (2, "2"), (3, "3")]
    path.rename(tmp_path / "elsewhere")
    again = Stage([path], speed=MAX_SPEED)
    for _ in range(2):
        with pytest.raises(ServiceUnavailableError):
            page_after(again, 3, 1)
    (tmp_path / "elsewhere").rename(path)
    assert page_after(again, 3, 1) == [(4, "4")]


def test_a_time_outside_of_any_market_makes_its_line_malformed(tmp_path: Path) -> None:
    wild = b'%d {"stream":"btcusdt@trade","data":{"s":"BTCUSDT","p":"1","T":%d}}\n'
    lines = [
        trade(0, 0, "1"),
        wild % (FIRST_NS, -(10**14)),
        wild % (10**19 - 1, 10**12),
        wild % (5, 10**12),
        trade(1, 1, "2"),
    ]
    counted = LineCounts()
    recorded = Recording([write(tmp_path / "t", lines)], price="trade")
    assert [one.price for one in recorded.prices(counted)] == [1, 2]
    assert counted.malformed == 3


def test_a_file_whose_times_fall_plays_in_its_order_without_going_back(tmp_path: Path) -> None:
    path = write(tmp_path / "f", [book_ticker(at, str(at + 1), str(at + 1)) for at in (5, 3, 9, 1)])
    lap = measure(Recording([path]))
    assert (lap.prices, lap.length_ns) == (4, 5 * 10**9)
    stage = Stage([path], lap=lap)
    stage.seconds += 6
    assert page_after(stage, 0) == [(1, "6"), (2, "4"), (3, "10"), (4, "2"), (5, "6"), (6, "4")]


def test_lines_are_counted_once_however_often_a_tape_reads_them(tmp_path: Path) -> None:
    lines = [b"nonsense\n", *(book_ticker(at, "1", "1") for at in range(5)), other(6)]
    stage = Stage([write(tmp_path / "f", lines)], speed=MAX_SPEED)
    stage.tape = ReplayTape(stage.timeline, stage.frames)
    for _ in range(3):
        assert len(page_after(stage, 0)) == 5
    assert [stage.counted(outcome) for outcome in ("price", "skipped", "malformed")] == [5, 1, 1]


def test_a_folder_or_a_pipe_is_not_a_recording(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(SettingError, match="not a regular file"):
            Recording([path]).check()


@pytest.mark.slow
@each_market
def test_the_tape_of_a_recording_is_all_of_it(market: RecordedMarket) -> None:
    files = market.files
    stage = Stage(list(files.values()), speed=MAX_SPEED)
    taken: dict[str, list[str]] = {coin: [] for coin in files}
    index = 0
    while found := asyncio.run(stage.tape.after(index, 5000)):
        assert [number for number, _ in found] == list(range(index + 1, index + 1 + len(found)))
        index = found[-1][0]
        for _, observed in found:
            taken[observed.coin].append(format_price(observed.price))
    assert taken == {coin: [price for _, price in own_reading(path)] for coin, path in files.items()}


@each_csv_of_trades
def test_a_csv_of_trades_is_read_digit_for_digit(trades: Path) -> None:
    with gzip.open(trades, "rt") as file:
        expected = [line.split(",")[2] for line in file][1:]
    assert [format_price(one.price) for one in Recording([trades]).prices(LineCounts())] == expected


@pytest.mark.slow
def test_the_recordings_of_the_tests_are_those_that_their_script_makes() -> None:
    for name, lines in make_recordings.recordings().items():
        with gzip.open(make_recordings.FOLDER / name, "rt") as file:
            assert file.read().splitlines() == lines, "run python -m tests.data.make_recordings"
