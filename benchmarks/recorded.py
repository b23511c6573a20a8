"""The recorded market that the figures play: a real one where it lies beside the checkout, else one made here."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

REAL = Path(__file__).parents[2] / "shared" / "data" / "binance_spot_2024-08-08"
FRAMES = 28_000  # as many as the real one has of Bitcoin
REPEATS = 0.9  # of real book tickers nine of ten repeat bid and ask
FIRST_NS = 1_723_161_254_000_000_000
STEP_NS = 12_000_000


def frames(place: Path) -> Path:
    """A file of raw Binance frames; a made one is written into `place`."""
    if REAL.is_dir():
        return REAL / "btcusdt_20240808.gz"
    path = place / "made.frames"
    with path.open("wb") as file:
        file.writelines(_made())
    return path


def _made() -> Iterator[bytes]:
    dice = random.Random(1)
    cents = 6_183_763
    for number in range(FRAMES):
        if dice.random() > REPEATS:
            cents += dice.randrange(-200, 201)
        bid, ask = (f"{amount // 100}.{amount % 100:02d}000000" for amount in (cents, cents + 1))
        data = {"u": number, "s": "BTCUSDT", "b": bid, "B": "1.23456000", "a": ask, "A": "2.34567000"}
        frame = json.dumps({"stream": "btcusdt@bookTicker", "data": data}, separators=(",", ":"))
        yield f"{FIRST_NS + number * STEP_NS} {frame}\n".encode()
