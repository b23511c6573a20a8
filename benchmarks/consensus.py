"""`consensus`: the time of one consensus of six venues in two currencies, beside a naive mean and a naive median.

The naive peers convert the same mids at the same rate, with Decimal as it is set up by default; they check nothing, and
one liar moves the mean. In turns, in one process, and in processor time, since another process may be busy.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from benchmarks.attacks import World
from benchmarks.figure import Aim, Effort, Row
from cotacoes.patterns.consensus import ConsensusPrice, agree

AIM_US = Aim(80.0)
BLOCK = 2_000
NOW_S = 10.0
RATES = {"USDT": Decimal("0.999213579246813579")}


def measure(effort: Effort) -> list[Row]:
    books = [ticker.book for ticker in World(1, 6).tickers(NOW_S)]
    last = agree(books, RATES, NOW_S, last=None)
    assert isinstance(last, ConsensusPrice)
    mids = [(book, RATES.get(book.currency, Decimal(1))) for book in books]
    methods: dict[str, Callable[[], Any]] = {
        "consensus": lambda: agree(books, RATES, NOW_S, last=last),
        "consensus naive mean": lambda: sum((one.bid + one.ask) / 2 * rate for one, rate in mids) / len(mids),
        "consensus naive median": lambda: statistics.median((one.bid + one.ask) / 2 * rate for one, rate in mids),
    }
    micros: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(effort.runs):
        for name, method in methods.items():
            micros[name].append(_micros(method))
    return [Row(name, "µs", values, AIM_US if name == "consensus" else None) for name, values in micros.items()]


def _micros(method: Callable[[], Any]) -> float:
    started = time.process_time()
    for _ in range(BLOCK):
        method()
    return (time.process_time() - started) / BLOCK * 1e6
