"""A replay serves the mids of the recording: digit for digit, in order, at its pace, in little memory."""

import asyncio
import gzip
import heapq
import json
import random
import tracemalloc
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
import structlog
from prometheus_client import CollectorRegistry, Counter

from cotacoes.adapters import source_replay
from cotacoes.adapters.source_replay import Replay, check, origin_of, read_line
from cotacoes.errors import SettingError
from cotacoes.quote import ORIGIN_PATTERN, Observation, format_price

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
FIRST_NS = 1_723_161_254_000_000_000
RECORDING = Path(__file__).parents[2] / ".." / "shared" / "data" / "binance_spot_2024-08-08"


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


class Playing:
    """A replay whose time is moved by whoever sleeps: each sleep steps the clock, `step_s` at a time, and looks."""

    def __init__(self, paths: Sequence[Path], *, speed: float = 1.0, step_s: float = 0.1) -> None:
        self.seconds = 50.0
        self.step_s = step_s
        self.seen: dict[str, list[Observation]] = {}
        self.frames = Counter("frames", "lines", ["outcome"], registry=CollectorRegistry())
        self.replay = Replay(
            paths, speed=speed, clock=lambda: self.seconds, now=self.now, frames=self.frames, sleep=self.sleep
        )

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

    def play(self) -> "Playing":
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
    playing = Playing([write(tmp_path / "btc.gz", lines)]).play()
    shown = [(format_price(quote.price), quote.observed_at - NOON) for quote in playing.seen["bitcoin"]]
    assert [price for price, _ in shown] == ["61837.635", "61839", "0.000000015"]
    assert [round(time.total_seconds(), 6) for _, time in shown] == [0.0, 0.5, 2.0]
    assert {(quote.currency, quote.origin) for quote in playing.seen["bitcoin"]} == {("USDT", "replay:btc")}
    assert (playing.counted("price"), playing.counted("skipped"), playing.counted("malformed")) == (3, 2, 0)


def test_speed_scales_the_pace(tmp_path: Path) -> None:
    path = write(tmp_path / "btc", [book_ticker(0, "1", "1"), book_ticker(10, "2", "2")])
    playing = Playing([path], speed=20.0).play()
    assert playing.seen["bitcoin"][1].observed_at - NOON == timedelta(seconds=0.5)


def test_files_play_side_by_side_in_the_order_of_receive_time(tmp_path: Path) -> None:
    bitcoin = write(tmp_path / "b.gz", [book_ticker(at, str(at + 1), str(at + 1)) for at in (0, 2, 4)])
    ether = write(tmp_path / "e", [book_ticker(at, str(at), str(at), "ETHUSDT") for at in (1, 3, 5)])
    playing = Playing([bitcoin, ether]).play()
    times = {
        coin: [round((q.observed_at - NOON).total_seconds(), 6) for q in seen] for coin, seen in playing.seen.items()
    }
    assert times == {"bitcoin": [0, 2, 4], "ethereum": [1, 3, 5]}


def test_a_coin_is_absent_until_its_first_price_and_keeps_its_last_at_the_end(tmp_path: Path) -> None:
    path = write(tmp_path / "f", [book_ticker(0, "1", "1"), book_ticker(5, "9", "9", "ETHUSDT")])
    playing = Playing([path])
    assert playing.replay.quotes() == {}
    with structlog.testing.capture_logs() as logs:
        playing.play()
    playing.seconds += 3600
    assert {coin: quote.price for coin, quote in playing.replay.quotes().items()} == {"bitcoin": 1, "ethereum": 9}
    assert playing.replay.quotes()["ethereum"].observed_at == NOON + timedelta(seconds=5)
    assert [(log["event"], log["prices"]) for log in logs] == [("replay.ended", 2)]


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
    b"1723161254000000000 " + b"x" * (source_replay.LINE_BYTES_MAX + 5) + b"\n",
    b"\x00\xff\xfe\n",
]


def test_a_malformed_line_is_counted_and_the_lines_around_it_play(tmp_path: Path) -> None:
    lines = [book_ticker(0, "1", "1"), *MALFORMED, book_ticker(1, "2", "2"), b"123"]
    playing = Playing([write(tmp_path / "f.gz", lines)]).play()
    assert [quote.price for quote in playing.seen["bitcoin"]] == [1, 2]
    assert playing.counted("malformed") == len(MALFORMED) + 1


def test_frames_of_other_streams_and_other_symbols_are_skipped() -> None:
    assert read_line(other(0)) is None
    assert read_line(other(0, "btcusdt@depth@100ms")) is None
    assert read_line(book_ticker(0, "1", "1", "DOGEUSDT")) is None
    assert read_line(b'1723161254206652067 {"lastUpdateId":5,"bids":[["1","2"]],"asks":[]}\n') is None


def test_a_file_that_breaks_off_is_told_and_the_other_plays_on(tmp_path: Path) -> None:
    noise = random.Random(1)
    prices = [f"{noise.randrange(10**6, 10**7)}.{noise.randrange(10**8):08d}" for _ in range(4000)]
    whole = write(tmp_path / "b.gz", [book_ticker(at / 100, price, price) for at, price in enumerate(prices)])
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    ether = write(tmp_path / "e.gz", [book_ticker(at, "5", "5", "ETHUSDT") for at in (0, 50)])
    check([whole, ether])
    with structlog.testing.capture_logs() as logs:
        playing = Playing([whole, ether]).play()
    assert [log["event"] for log in logs] == ["replay.broken", "replay.ended"]
    assert logs[0]["file"] == "b.gz"
    assert len(playing.seen["ethereum"]) == 2
    assert 10 < len(playing.seen["bitcoin"]) < 4000


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.gz", None, "No such file"),
        ("a.gz", b"", "empty"),
        ("a.gz", b"plain text\n", "not packed"),
        ("a.gz", gzip.compress(other(0) * 50)[:40], "ended before"),
        ("a.gz", b"\x1f\x8b" + b"\x00" * 40, "can not be read"),
        ("a.gz", gzip.compress(other(0) * 3), "no bookTicker"),
        ("a", b"hello\n" * 10, "no bookTicker"),
        ("a", book_ticker(0, "1", "1", "DOGEUSDT"), "no bookTicker"),
        ("a", b"\x00" * 3_000_000, "no bookTicker"),
    ],
)
def test_an_unusable_recording_is_refused_by_name_before_anything_starts(
    tmp_path: Path, name: str, content: bytes | None, told: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingError, match=told) as caught:
        check([path])
    assert str(path) in str(caught.value)


def test_the_check_looks_no_further_than_the_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_replay, "HEAD_LINES_MAX", 10)
    check([write(tmp_path / "a", [*[other(0)] * 9, book_ticker(0, "1", "1")])])
    with pytest.raises(SettingError, match="no bookTicker"):
        check([write(tmp_path / "b", [*[other(0)] * 10, book_ticker(0, "1", "1")])])


def test_the_origin_names_the_files_and_is_always_one() -> None:
    assert origin_of([Path("x/btcusdt_20240808.gz"), Path("eth.gz")]) == "replay:btcusdt_20240808+eth"
    for names in (["ü ñ.gz"], ["a" * 300], [f"{number}.gz" for number in range(80)], [".gz"], ["a\nb"]):
        assert ORIGIN_PATTERN.match(origin_of([Path(name) for name in names]))


def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    peaks = []
    for count in (5_000, 50_000):
        lines = (book_ticker(at / 100, f"{at + 1}.5", f"{at + 1}.5") for at in range(count))
        playing = Playing([write(tmp_path / f"{count}.gz", lines)], step_s=1000.0)
        tracemalloc.start()
        playing.play()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert playing.counted("price") == count
    assert peaks[1] < 2 * peaks[0]


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


@pytest.mark.skipif(not RECORDING.is_dir(), reason="the recordings in ../shared/data are not here")
@pytest.mark.parametrize("step_s", [0.5, 0.003])
def test_a_real_recording_is_served_digit_for_digit_in_order_at_its_times(step_s: float) -> None:
    files = {"bitcoin": RECORDING / "btcusdt_20240808.gz", "ethereum": RECORDING / "ethusdt_20240808.gz"}
    recorded = {coin: own_reading(path) for coin, path in files.items()}
    assert {coin: len(mids) for coin, mids in recorded.items()} == {"bitcoin": 28_040, "ethereum": 24_077}
    check(list(files.values()))
    playing = Playing(list(files.values()), step_s=step_s).play()
    first_ns = next(heapq.merge(*recorded.values()))[0]
    for coin, mids in recorded.items():
        moments = iter((round((ns - first_ns) / 1000), price) for ns, price in mids)
        for quote in playing.seen[coin]:  # each one is found further on than the one before
            served = ((quote.observed_at - NOON) / timedelta(microseconds=1), format_price(quote.price))
            assert any(abs(at - served[0]) <= 2 and price == served[1] for at, price in moments), served
        assert format_price(playing.replay.quotes()[coin].price) == mids[-1][1]
        assert len(playing.seen[coin]) > (500 if step_s > 0.1 else 5_000)
    assert playing.counted("price") == 52_117
    assert playing.counted("malformed") == 0
    assert all(isinstance(quote.price, Decimal) for seen in playing.seen.values() for quote in seen)
