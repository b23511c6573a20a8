"""`python -m benchmarks`: measure the figures, print one table, leave nothing running.

The exit code says whether everything could be measured, not whether the aims are met: that is in the table.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import (
    breaker,
    dead_link,
    fanout,
    fanout_intake,
    fanout_memory,
    fanout_stalled,
    frozen,
    full_report,
    gather,
    hostile,
    http_ratio,
    idle,
    ledger,
    ledger_history,
    ledger_move,
    ledger_reads,
    ledger_rows,
    live,
    log,
    machine,
    memory,
    parsing,
    report,
    start,
    tape,
)
from benchmarks.figure import Effort, Figure, MeasureError, Row
from cotacoes.errors import CotacoesError

FIGURES = {
    "start": Figure(start.measure, full=Effort(runs=5), quick=Effort(runs=1)),
    "idle": Figure(idle.measure, full=Effort(runs=3, seconds=30), quick=Effort(runs=1, seconds=3)),
    "memory": Figure(memory.measure, full=Effort(runs=3, seconds=15), quick=Effort(runs=1, seconds=1)),
    "live": Figure(live.measure, full=Effort(runs=5, seconds=12), quick=Effort(runs=1, seconds=2)),
    "tape": Figure(tape.measure, full=Effort(runs=5, seconds=10), quick=Effort(runs=1, seconds=2)),
    "parse": Figure(parsing.measure, full=Effort(runs=7), quick=Effort(runs=2)),
    "http": Figure(http_ratio.measure, full=Effort(runs=9, seconds=1), quick=Effort(runs=2, seconds=0.3)),
    "ingest": Figure(ledger.measure, full=Effort(runs=9, seconds=5), quick=Effort(runs=1, seconds=0.5)),
    "reads": Figure(ledger_reads.measure, full=Effort(runs=7, seconds=3), quick=Effort(runs=1, seconds=1)),
    "history": Figure(ledger_history.measure, full=Effort(runs=5, seconds=10), quick=Effort(runs=1, seconds=0.1)),
    "log": Figure(log.measure, full=Effort(runs=5, seconds=4), quick=Effort(runs=1, seconds=0.2)),
    "move": Figure(ledger_move.measure, full=Effort(runs=6, seconds=10), quick=Effort(runs=1, seconds=1)),
    "rows": Figure(ledger_rows.measure, full=Effort(runs=3, seconds=10), quick=Effort(runs=1, seconds=0.5)),
    "breaker": Figure(breaker.measure, full=Effort(runs=9, seconds=60), quick=Effort(runs=1, seconds=1)),
    "fanout": Figure(fanout.measure, full=Effort(runs=5, seconds=5), quick=Effort(runs=1, seconds=0.5)),
    "fanout-wide": Figure(fanout.measure_wide, full=Effort(runs=5, seconds=5), quick=Effort(runs=1, seconds=0.5)),
    "fanout-sse": Figure(fanout.measure_events, full=Effort(runs=5, seconds=5), quick=Effort(runs=1, seconds=0.5)),
    "stalled": Figure(fanout_stalled.measure, full=Effort(runs=7, seconds=4), quick=Effort(runs=1, seconds=0.5)),
    "stream-memory": Figure(fanout_memory.measure, full=Effort(runs=3, seconds=3), quick=Effort(runs=1, seconds=0.5)),
    "intake": Figure(fanout_intake.measure, full=Effort(runs=7, seconds=2), quick=Effort(runs=1, seconds=0.2)),
    "dead-link": Figure(dead_link.measure, full=Effort(runs=5), quick=Effort(runs=1)),
    "gather": Figure(gather.measure, full=Effort(runs=9, seconds=1), quick=Effort(runs=1, seconds=0.2)),
    "report": Figure(full_report.measure, full=Effort(runs=5, seconds=10), quick=Effort(runs=1, seconds=0.2)),
    "hostile": Figure(hostile.measure, full=Effort(runs=3, seconds=15), quick=Effort(runs=1, seconds=2)),
    "frozen": Figure(frozen.measure, full=Effort(runs=3, seconds=10), quick=Effort(runs=1, seconds=2)),
}
UNMEASURED_EXIT_CODE = 1
INTERRUPTED_EXIT_CODE = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked for; the exit code."""
    options = _parser().parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # so that it ends like Ctrl-C, through every clean-up
    where, versions = machine.describe_machine(), machine.describe_versions()
    rows: list[Row] = []
    failed = False
    try:
        for name in options.only or FIGURES:
            try:
                rows += _measure(name, is_quick=options.quick)
            except (MeasureError, CotacoesError, OSError) as error:  # the others may go well
                failed = True
                _say(f"{name}: {error}")
    except KeyboardInterrupt:
        return INTERRUPTED_EXIT_CODE
    as_json = report.as_json(where, versions, rows, is_quick=options.quick)
    if options.json == "-":
        sys.stdout.write(as_json)
        return UNMEASURED_EXIT_CODE if failed else 0
    sys.stdout.write(report.as_table(where, versions, rows))
    if options.json is not None:
        Path(options.json).write_text(as_json)
    return UNMEASURED_EXIT_CODE if failed else 0


def _measure(name: str, *, is_quick: bool) -> list[Row]:
    figure = FIGURES[name]
    effort = figure.quick if is_quick else figure.full
    _say(f"{name}: {effort.runs} {'run' if effort.runs == 1 else 'runs'}")
    return figure.measure(effort)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="The figures of the system.")
    parser.add_argument("--only", metavar="NAME", action="append", choices=FIGURES, help="of " + ", ".join(FIGURES))
    parser.add_argument("--quick", action="store_true", help="a few seconds each: that it works, not how fast")
    parser.add_argument("--json", metavar="FILE", help="write it as JSON too; - is stdout, in place of the table")
    return parser


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
