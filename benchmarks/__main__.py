"""`python -m benchmarks`: measure the figures, print one table, leave nothing running.

`--keep` writes each figure's result into `benchmarks/results/NAME.json`, which git keeps. `--compare` holds what was
measured, or read from a `--fresh` file, against those results.

The exit code says whether everything could be measured, and after `--compare` whether nothing became worse. Whether the
aims are met is in the table.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import (
    attacks,
    breaker,
    consensus,
    dead_link,
    fanout,
    fanout_intake,
    fanout_memory,
    fanout_stalled,
    feed,
    feed_faults,
    feed_peers,
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
    page,
    parsing,
    report,
    start,
    tape,
    venue_frames,
)
from benchmarks.comparison import Result, compare
from benchmarks.figure import Effort, Figure, MeasureError, Row
from cotacoes.errors import CotacoesError

FIGURES = {
    "start": Figure(start.measure, full=Effort(runs=5), quick=Effort(runs=1)),
    "idle": Figure(idle.measure, full=Effort(runs=3, seconds=30), quick=Effort(runs=1, seconds=3)),
    "memory": Figure(memory.measure, full=Effort(runs=3, seconds=15), quick=Effort(runs=1, seconds=1)),
    "live": Figure(live.measure, full=Effort(runs=5, seconds=12), quick=Effort(runs=1, seconds=2)),
    "tape": Figure(tape.measure, full=Effort(runs=5, seconds=10), quick=Effort(runs=1, seconds=2)),
    "parse": Figure(parsing.measure, full=Effort(runs=7), quick=Effort(runs=2)),
    "frames": Figure(venue_frames.measure, full=Effort(runs=7), quick=Effort(runs=2)),
    "http": Figure(http_ratio.measure, full=Effort(runs=9, seconds=1), quick=Effort(runs=2, seconds=0.3)),
    "ingest": Figure(ledger.measure, full=Effort(runs=9, seconds=5), quick=Effort(runs=1, seconds=0.5)),
    "reads": Figure(ledger_reads.measure, full=Effort(runs=7, seconds=3), quick=Effort(runs=1, seconds=1)),
    "history": Figure(ledger_history.measure, full=Effort(runs=5, seconds=10), quick=Effort(runs=1, seconds=0.1)),
    "log": Figure(log.measure, full=Effort(runs=5, seconds=4), quick=Effort(runs=1, seconds=0.2)),
    "move": Figure(ledger_move.measure, full=Effort(runs=6, seconds=10), quick=Effort(runs=1, seconds=1)),
    "rows": Figure(ledger_rows.measure, full=Effort(runs=3, seconds=10), quick=Effort(runs=1, seconds=0.5)),
    "breaker": Figure(breaker.measure, full=Effort(runs=9, seconds=60), quick=Effort(runs=1, seconds=1)),
    "feed": Figure(feed.measure, full=Effort(runs=5, seconds=20), quick=Effort(runs=1, seconds=2)),
    "feed-peers": Figure(feed_peers.measure, full=Effort(runs=3, seconds=10), quick=Effort(runs=1, seconds=3)),
    "feed-faults": Figure(feed_faults.measure, full=Effort(runs=3, seconds=30), quick=Effort(runs=1, seconds=12)),
    "consensus": Figure(consensus.measure, full=Effort(runs=9), quick=Effort(runs=1)),
    "attacks": Figure(attacks.measure, full=Effort(runs=attacks.WORLDS), quick=Effort(runs=2)),
    "fanout": Figure(fanout.measure, full=Effort(runs=5, seconds=5), quick=Effort(runs=1, seconds=0.5)),
    "fanout-wide": Figure(fanout.measure_wide, full=Effort(runs=5, seconds=5), quick=Effort(runs=1, seconds=0.5)),
    "fanout-sse": Figure(fanout.measure_events, full=Effort(runs=5, seconds=5), quick=Effort(runs=1, seconds=0.5)),
    "page": Figure(page.measure, full=Effort(runs=3, seconds=20), quick=Effort(runs=1, seconds=3)),
    "stalled": Figure(fanout_stalled.measure, full=Effort(runs=7, seconds=4), quick=Effort(runs=1, seconds=0.5)),
    "stream-memory": Figure(fanout_memory.measure, full=Effort(runs=3, seconds=3), quick=Effort(runs=1, seconds=0.5)),
    "intake": Figure(fanout_intake.measure, full=Effort(runs=7, seconds=2), quick=Effort(runs=1, seconds=0.2)),
    "dead-link": Figure(dead_link.measure, full=Effort(runs=5), quick=Effort(runs=1)),
    "gather": Figure(gather.measure, full=Effort(runs=9, seconds=1), quick=Effort(runs=1, seconds=0.2)),
    "report": Figure(full_report.measure, full=Effort(runs=5, seconds=10), quick=Effort(runs=1, seconds=0.2)),
    "hostile": Figure(hostile.measure, full=Effort(runs=3, seconds=15), quick=Effort(runs=1, seconds=2)),
    "frozen": Figure(frozen.measure, full=Effort(runs=3, seconds=10), quick=Effort(runs=1, seconds=2)),
}
RESULTS = Path(__file__).parent / "results"
FAILED_EXIT_CODE = 1  # something could not be measured, or became worse
INTERRUPTED_EXIT_CODE = 130


def main(arguments: Sequence[str] | None = None, *, results: Path = RESULTS) -> int:
    """Measure what is asked for; the exit code."""
    options = _parser().parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # so that it ends like Ctrl-C, through every clean-up
    failed = False
    if options.fresh is not None:
        fresh: Result = json.loads(Path(options.fresh).read_text())
    else:
        try:
            fresh, failed = _measure_all(options, results)
        except KeyboardInterrupt:
            return INTERRUPTED_EXIT_CODE
    is_worse = options.compare and _is_worse(fresh, results)
    return FAILED_EXIT_CODE if failed or is_worse else 0


def _measure_all(options: argparse.Namespace, results: Path) -> tuple[Result, bool]:
    """What was measured, and whether something could not be; printed, and kept if that is asked for."""
    where, versions = machine.describe_machine(), machine.describe_versions()
    rows: list[Row] = []
    failed = False
    for name in options.only or FIGURES:
        at_its_start = machine.describe_machine()  # the load differs from figure to figure
        try:
            found = _measure(name, is_quick=options.quick)
        except (MeasureError, CotacoesError, OSError) as error:  # the others may go well
            failed = True
            _say(f"{name}: {error}")
            continue
        rows += found
        if options.keep:
            results.mkdir(exist_ok=True)
            text = report.as_json(at_its_start, versions, found, is_quick=options.quick)
            (results / f"{name}.json").write_text(text)
    as_json = report.as_json(where, versions, rows, is_quick=options.quick)
    sys.stdout.write(as_json if options.json == "-" else report.as_table(where, versions, rows))
    if options.json not in (None, "-"):
        Path(options.json).write_text(as_json)
    return json.loads(as_json), failed


def _is_worse(fresh: Result, results: Path) -> bool:
    """Whether a figure became worse than its kept result; each is printed."""
    findings = compare([json.loads(file.read_text()) for file in sorted(results.glob("*.json"))], fresh)
    for finding in findings:
        _say(f"{'WORSE' if finding.is_worse else '     '} {finding.name}: {finding.text}")
    return any(finding.is_worse for finding in findings)


def _measure(name: str, *, is_quick: bool) -> list[Row]:
    figure = FIGURES[name]
    effort = figure.quick if is_quick else figure.full
    _say(f"{name}: {effort.runs} {'run' if effort.runs == 1 else 'runs'}")
    return figure.measure(effort)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="The figures of the system.")
    parser.add_argument("--only", metavar="NAME", action="append", choices=FIGURES, help="of " + ", ".join(FIGURES))
    parser.add_argument("--json", metavar="FILE", help="write it as JSON too; - is stdout, in place of the table")
    parser.add_argument(
        "--compare", action="store_true", help="fail if a figure became 20 %% worse than its kept result"
    )
    parser.add_argument("--fresh", metavar="FILE", help="measure nothing, compare what an earlier --json wrote")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--quick", action="store_true", help="a few seconds each: that it works, not how fast")
    kinds.add_argument("--keep", action="store_true", help="write the results into benchmarks/results, for git")
    return parser


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
