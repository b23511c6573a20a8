"""`start`: from starting `up` on an installed tree to the first quote that client_subscriber shows.

On fresh data, so that two databases are made on the way; and again on the same data, as on every day after the first.
Settings are the defaults: one request of five to the source fails on purpose.
"""

from __future__ import annotations

from benchmarks.figure import Aim, Effort, Row
from benchmarks.system import data_folder, started

AIM = Aim(5.0)


def measure(effort: Effort) -> list[Row]:
    first: list[float] = []
    again: list[float] = []
    for _ in range(effort.runs):
        with data_folder() as data:
            for seconds in (first, again):
                with started(data) as system:
                    seconds.append(system.wait_first_quote())
    return [Row("start", "s", first, AIM), Row("start again", "s", again)]
