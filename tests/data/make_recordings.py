"""Make the recordings of this folder again, from the simulated market: `python -m tests.data.make_recordings`.

They have the shape and the faults of what exchanges send, and none of their data: raw Binance frames of two pairs (best
bid and ask, of which nine in ten repeat the one before; trades whose exchange's clock is 1.25 s ahead; updates of the
book; one snapshot), and an hour of trades as CSV. The same seed gives the same lines.
"""

import gzip
import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cotacoes.external_service.market import price_at

FOLDER = Path(__file__).parent
SEED = 20240301
PAIRS = {"bitcoin": "BTCUSDT", "ethereum": "ETHUSDT"}
BEGIN_NS = 1_709_283_600_000_000_000  # 2024-03-01T09:00:00Z
TICKERS = 5_000  # of each pair, over two minutes
TICKER_NS = 24_000_000
REPEATED = 0.9
AHEAD_MS = 1_250
TRADES = 2_000
HOUR_NS = 3_600_000_000_000


def recordings() -> dict[str, list[str]]:
    """The lines of each recording, by the name of its file."""
    frames = {f"{pair.lower()}_simulated.gz": list(_frames(coin, pair)) for coin, pair in PAIRS.items()}
    return {**frames, "btc_trades_simulated.csv.gz": list(_trades("bitcoin", "BTC-USD"))}


def _frames(coin: str, pair: str) -> Iterator[str]:
    dice = random.Random(f"{SEED} {pair}")
    ns, tick = BEGIN_NS, 0
    for number in range(TICKERS):
        ns += dice.randrange(1, 2 * TICKER_NS)
        tick += dice.random() > REPEATED
        price = f"{price_at(SEED, coin, tick):f}"
        bid, ask = f"{price}000000", f"{price}500000"  # half a cent apart
        if number == TICKERS // 2:
            yield f'{ns} {{"lastUpdateId":{number},"bids":[["{bid}","1.5"]],"asks":[["{ask}","0.5"]]}}'
        if number % 5 == 0:
            levels = {"b": [[bid, "0.00000000"]], "a": [[ask, "1.54698000"]]}
            yield _frame(ns, pair, "depth@100ms", {"e": "depthUpdate", "E": _ms(ns), "s": pair, **levels})
        if number % 7 == 0:
            times = {"E": _ms(ns), "T": _ms(ns)}
            yield _frame(ns, pair, "trade", {"e": "trade", "s": pair, "t": number, "p": bid, "q": "0.01", **times})
        yield _frame(ns, pair, "bookTicker", {"u": number, "s": pair, "b": bid, "B": "1.5", "a": ask, "A": "0.5"})


def _frame(ns: int, pair: str, stream: str, data: dict[str, Any]) -> str:
    return f"{ns} " + json.dumps({"stream": f"{pair.lower()}@{stream}", "data": data}, separators=(",", ":"))


def _ms(received_ns: int) -> int:
    return received_ns // 1_000_000 + AHEAD_MS


def _trades(coin: str, pair: str) -> Iterator[str]:
    dice = random.Random(f"{SEED} trades")
    yield "symbol,side,price,amount,timestamp"
    for tick, ns in enumerate(sorted(dice.randrange(HOUR_NS) for _ in range(TRADES))):
        side, amount = dice.choice(["buy", "sell"]), f"{dice.randrange(1, 10**8) / 10**8:.8f}"
        yield f"{pair},{side},{price_at(SEED, coin, tick):f},{amount},{(BEGIN_NS + ns) // 1000}"


def _write(file: Path, lines: Iterable[str]) -> None:
    with file.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
        packed.writelines(f"{line}\n".encode() for line in lines)


if __name__ == "__main__":
    for name, lines in recordings().items():
        _write(FOLDER / name, lines)
