"""A figure that became worse than its kept result is found, and one that only varies is not."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from benchmarks.__main__ import FAILED_EXIT_CODE, FIGURES, RESULTS, main
from benchmarks.comparison import Finding, compare
from benchmarks.figure import Aim, Row
from benchmarks.report import as_json

HERE, ELSEWHERE = {"cpu": "one"}, {"cpu": "another"}
LATENCY, RATE = Aim(5.0), Aim(100.0, is_floor=True)


def result(*rows: Row, machine: dict[str, str] = HERE) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(as_json(machine, {"python": "3.11.7"}, rows, is_quick=False))
    return decoded


def only(findings: Sequence[Finding]) -> Finding:
    (finding,) = findings
    return finding


@pytest.mark.parametrize(
    ("aim", "now", "is_worse"),
    [
        *((LATENCY, now, is_worse) for now, is_worse in ((0.1, False), (2.39, False), (2.41, True))),
        *((RATE, now, is_worse) for now, is_worse in ((1.59, True), (1.61, False), (9.0, False))),
    ],
)
def test_a_median_that_is_more_than_a_fifth_worse_is_found(aim: Aim, now: float, is_worse: bool) -> None:
    kept = result(Row("start", "s", [2.0, 1.0, 9.0], aim))
    finding = only(compare([kept], result(Row("start", "s", [now], aim))))
    assert finding.is_worse is is_worse


def test_the_finding_names_the_figure_with_both_medians_and_the_change() -> None:
    kept, fresh = result(Row("start", "s", [2.0], LATENCY)), result(Row("start", "s", [3.0], LATENCY))
    assert only(compare([kept], fresh)).name == "start"
    assert only(compare([kept], fresh)).text == "2.00 before, 3.00 now (s), 50% worse"
    assert only(compare([fresh], kept)).text == "3.00 before, 2.00 now (s), 33% better"


def test_rows_without_an_aim_are_not_compared() -> None:
    assert compare([result(Row("detail", "s", [1.0]))], result(Row("detail", "s", [9.0]))) == []


def test_a_figure_without_a_kept_result_is_not_worse() -> None:
    finding = only(compare([], result(Row("start", "s", [9.0], LATENCY))))
    assert (finding.text, finding.is_worse) == ("no kept result", False)


def test_results_of_two_machines_are_compared_by_ratios_alone() -> None:
    for unit, is_worse in (("of bare ASGI", True), ("times ccxt", True), ("requests/s", False)):
        kept = result(Row("http", unit, [2.0], RATE))
        finding = only(compare([kept], result(Row("http", unit, [1.0], RATE), machine=ELSEWHERE)))
        assert finding.is_worse is is_worse
        assert finding.text.endswith("on another machine") is not is_worse


def test_the_command_fails_for_a_worse_figure_and_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, fresh = tmp_path / "results", tmp_path / "fresh.json"
    results.mkdir()
    (results / "start.json").write_text(json.dumps(result(Row("start", "s", [2.0], LATENCY))))
    for seconds, code in ((2.0, 0), (4.0, FAILED_EXIT_CODE)):
        fresh.write_text(json.dumps(result(Row("start", "s", [seconds], LATENCY))))
        assert main(["--compare", "--fresh", str(fresh)], results=results) == code
    assert "WORSE start: 2.00 before, 4.00 now (s), 100% worse" in capsys.readouterr().err


def test_a_quick_run_is_never_kept(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--quick", "--keep"])
    assert "not allowed with" in capsys.readouterr().err


def test_every_kept_result_is_of_a_figure_and_says_where_it_was_measured() -> None:
    for file in RESULTS.glob("*.json"):
        kept = json.loads(file.read_text())
        assert file.stem in FIGURES
        assert kept["quick"] is False
        assert {"cpu", "cores", "time", "load before"} <= kept["machine"].keys()
        assert {"python", "cotacoes", "postgres"} <= kept["versions"].keys()
