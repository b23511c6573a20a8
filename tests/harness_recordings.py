"""The recorded markets that tests play: a made one, and a real one if it lies beside the checkout."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest

MADE = Path(__file__).parent / "data"
REAL = Path(__file__).parents[2] / "shared" / "data"
NEEDS_REAL = pytest.mark.skipif(not REAL.is_dir(), reason="the recordings in ../shared/data are not here")


@dataclass(frozen=True)
class RecordedMarket:
    """Raw frames of bitcoin and ethereum, a file each, and how many prices they hold."""

    bitcoin: Path
    ethereum: Path
    prices: tuple[int, int]

    @property
    def files(self) -> dict[str, Path]:
        return {"bitcoin": self.bitcoin, "ethereum": self.ethereum}

    @property
    def source(self) -> str:
        """The setting that replays it."""
        return f"replay:{self.bitcoin},{self.ethereum}"

    @property
    def origin(self) -> str:
        """What its quotes name as their origin."""
        return f"replay:{self.bitcoin.stem}+{self.ethereum.stem}"


_BINANCE = REAL / "binance_spot_2024-08-08"
MADE_MARKET = RecordedMarket(MADE / "btcusdt_simulated.gz", MADE / "ethusdt_simulated.gz", (5_000, 5_000))
REAL_MARKET = RecordedMarket(_BINANCE / "btcusdt_20240808.gz", _BINANCE / "ethusdt_20240808.gz", (28_040, 24_077))

each_market = pytest.mark.parametrize(
    "market", [pytest.param(MADE_MARKET, id="made"), pytest.param(REAL_MARKET, id="real", marks=NEEDS_REAL)]
)
# of the system tests, which take long: the real one if it is there
the_market = pytest.mark.parametrize("market", [REAL_MARKET if REAL.is_dir() else MADE_MARKET], ids=["recorded"])
each_csv_of_trades = pytest.mark.parametrize(
    "trades",
    [
        pytest.param(MADE / "btc_trades_simulated.csv.gz", id="made"),
        pytest.param(REAL / "coinbase_2023-09-05" / "btc_trades.csv.gz", id="real", marks=NEEDS_REAL),
    ],
)


def recorded_mids(file: Path) -> Iterator[str]:
    """The mid of each bookTicker frame of one coin, as decimal text, by another reading than the replay's own."""
    with gzip.open(file, "rt") as lines:
        for line in lines:
            _, _, frame = line.partition(" ")
            message = json.loads(frame)
            if str(message.get("stream", "")).endswith("@bookTicker"):
                mid = (Decimal(message["data"]["b"]) + Decimal(message["data"]["a"])) / 2
                yield f"{mid:f}".rstrip("0").rstrip(".")
