"""`parse`: book ticker frames a second, from the line to the exact mid, beside ccxt's parsing of the same bytes.

Both get each line as it lies in the recording: ours checks the line, decodes the frame and gives the mid in decimal;
ccxt decodes the frame and makes its own ticker of it, in floats, as it is set up by default. In turns, in one process.
"""

from __future__ import annotations

import gzip
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import recorded
from benchmarks.figure import Aim, Effort, Row
from benchmarks.http_ratio import ratios
from benchmarks.peers import ccxt
from cotacoes.external_service.recording_formats import PAIRS, recognise

AIM = Aim(2.0, is_floor=True)


def measure(effort: Effort) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="cotacoes-bench-") as place:
        lines = _lines(recorded.frames(Path(place)))
    readers = {"ours": _ours(lines[0]), "ccxt": ccxt.reader()}
    rates: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(effort.runs):
        for name, read in readers.items():
            started = time.perf_counter()
            for line in lines:
                read(line)
            rates[name].append(len(lines) / (time.perf_counter() - started))
    return [
        Row("parse", "times ccxt", ratios(rates["ours"], rates["ccxt"]), AIM),
        *(Row(f"parse {name}", "frames/s", found) for name, found in rates.items()),
    ]


def _lines(path: Path) -> Sequence[bytes]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        return [line for line in file if b"@bookTicker" in line]


def _ours(first: bytes) -> Callable[[bytes], Any]:
    return recognise(first, "mid", PAIRS)
