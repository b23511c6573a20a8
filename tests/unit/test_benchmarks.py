"""The pure parts of the benchmarks: verdicts, what is read from texts, and the report."""

import itertools
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from benchmarks import (
    feed,
    http_load,
    http_ratio,
    idle,
    ledger,
    ledger_move,
    ledger_reads,
    live,
    live_listener,
    machine,
    made_quotes,
    memory,
    recorded,
    report,
)
from benchmarks.__main__ import FIGURES, main
from benchmarks.figure import Aim, MeasureError, Row, Verdict, percentile

from cotacoes.external_service.recording import LineCounts, Recording
from cotacoes.model.live_message import Heartbeat, encode_heartbeat, encode_quote
from cotacoes.model.quote import Position, Quote

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def test_a_bound_is_within_the_aim_and_a_floor_is_met_from_above() -> None:
    assert [Aim(5.0).verdict(value) for value in (4.9, 5.0, 5.1)] == [Verdict.MET, Verdict.MET, Verdict.MISSED]
    floor = Aim(0.5, is_floor=True)
    assert [floor.verdict(value) for value in (0.49, 0.5, 0.6)] == [Verdict.MISSED, Verdict.MET, Verdict.MET]


def test_the_median_of_the_runs_decides_and_a_detail_has_no_verdict() -> None:
    assert Row("start", "s", [9.0, 2.0, 3.0], Aim(5.0)).verdict is Verdict.MET
    assert Row("start again", "s", [9.0]).verdict is None


@pytest.mark.parametrize(("percent", "value"), [(50, 50), (99, 99), (100, 100), (0, 1)])
def test_a_percentile_is_one_of_the_values(percent: float, value: float) -> None:
    assert percentile(range(100, 0, -1), percent) == value
    assert percentile([7.0], percent) == 7.0


def test_every_figure_has_a_smoke_run_that_is_not_longer_than_the_full_one() -> None:
    for figure in FIGURES.values():
        assert figure.quick.runs <= figure.full.runs
        assert figure.quick.seconds <= figure.full.seconds


def test_processor_time_is_given_in_percent_of_one_core_by_part() -> None:
    shares = idle.cpu_shares({"up": 1.0, "redis": 0.5}, {"up": 1.3, "redis": 0.5}, elapsed_s=10)
    assert shares == pytest.approx({"up": 3.0, "redis": 0.0})


def test_pss_is_read_in_bytes_and_is_missing_if_the_kernel_does_not_give_it() -> None:
    assert (
        memory.read_pss("5581-7ffe ---p 00000000 00:00 0 [rollup]\nRss:  90 kB\nPss:   12 kB\nPss_Anon: 5 kB\n")
        == 12_288
    )
    assert memory.read_pss("Rss:  90 kB\n") is None


def test_the_listener_takes_the_time_of_each_quote_of_a_message_and_none_of_a_heartbeat() -> None:
    arrived_us = 1_795_521_600_005_000  # five milliseconds after noon
    lines = b"\n".join(encode_quote(_quote(seq, NOON + timedelta(milliseconds=seq))) for seq in (1, 2))
    beat = encode_heartbeat(Heartbeat("bitcoin", Position(1, 2), None, NOON))
    times = live_listener.times_on_the_way([(arrived_us, lines), (arrived_us, beat)])
    assert live.ages_ms(times) == [4.0, 3.0]


def test_the_rate_is_that_of_the_times_observed() -> None:
    assert live.rate_of([(0, 9), (20_000, 29_000), (40_000, 49_000)]) == pytest.approx(50)
    assert live.rate_of([(0, 9)]) == 0


def test_a_metric_is_found_by_its_whole_name_and_a_missing_one_is_an_error() -> None:
    text = "# TYPE a_sum counter\na_sum_b 1.0\na_sum 2.5\n"
    assert live.read_metric(text, "a_sum") == 2.5
    with pytest.raises(MeasureError, match="no metric a_count"):
        live.read_metric(text, "a_count")


def test_the_length_of_an_answer_is_read_in_any_case_of_letters() -> None:
    assert http_load.content_length(b"HTTP/1.1 200 OK\r\nContent-Length: 42\r\nx: y") == 42
    with pytest.raises(ValueError, match="invalid literal"):
        http_load.content_length(b"HTTP/1.1 200 OK\r\nx: y")


def test_ratios_are_taken_round_by_round() -> None:
    assert http_ratio.ratios([10.0, 30.0], of=[20.0, 40.0]) == [0.5, 0.75]


def test_versions_and_the_model_of_the_processor_are_read_from_texts() -> None:
    assert machine.read_version("postgres (PostgreSQL) 18.6\n") == "18.6"
    assert machine.read_version("Server v=9.1.2 sha=00000000:0 bits=64") == "9.1.2"
    assert machine.read_version("nothing") == "unknown"
    assert machine.read_cpu_model("model\t\t: 2\nmodel name\t: A Processor\n") == "A Processor"
    assert machine.read_cpu_model("") == ""


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0.000"), (0.5123, "0.512"), (2.345, "2.35"), (45.67, "45.7"), (24126.6, "24127")]
)
def test_a_number_is_shown_with_three_digits_or_all_before_the_point(value: float, text: str) -> None:
    assert report.show_number(value) == text


def test_the_table_names_where_it_was_taken_and_tells_verdicts_of_aims_only() -> None:
    rows = [Row("start", "s", [2.0, 6.0, 3.0], Aim(5.0)), Row("start again", "s", [1.5])]
    assert report.as_table({"cores": "2"}, {"python": "3.11.7"}, rows).splitlines() == [
        "cores 2",
        "python 3.11.7",
        "",
        "figure         unit   aim  median   min   max  runs  verdict",
        "start          s     <= 5    3.00  2.00  6.00     3  met",
        "  start again  s             1.50  1.50  1.50     1",
    ]


def test_the_json_holds_the_value_of_every_run() -> None:
    rows = [Row("http", "of bare ASGI", [0.4, 0.6, 0.3], Aim(0.5, is_floor=True))]
    result = json.loads(report.as_json({"cores": "2"}, {"python": "3.11.7"}, rows, is_quick=True))
    assert result["quick"] is True
    assert result["rows"] == [
        {
            "name": "http",
            "unit": "of bare ASGI",
            "aim": ">= 0.5",
            "median": 0.4,
            "min": 0.3,
            "max": 0.6,
            "runs": 3,
            "values": [0.4, 0.6, 0.3],
            "verdict": "missed",
        }
    ]


def _quote(seq: int, observed_at: datetime) -> Quote:
    return Quote("bitcoin", "USD", Decimal("67012.34"), 1, seq, observed_at, observed_at, "sim")


def test_the_made_recording_is_one_that_we_read_with_most_frames_repeating(tmp_path: Path) -> None:
    path = tmp_path / "frames"
    path.write_bytes(b"".join(recorded._made()))
    prices = [one.price for one in Recording([path]).prices(LineCounts())]
    assert len(prices) == recorded.FRAMES
    assert 0.05 * len(prices) < len(set(prices)) < 0.2 * len(prices)


def test_a_metric_with_labels_has_a_value_for_each_set_of_them() -> None:
    text = 'x_total{coin="a"} 5.0\nx_total{coin="b"} 7.0\nx_totals 1.0\n# x_total 3\n'
    assert live.read_metrics(text, "x_total") == [5.0, 7.0]
    with pytest.raises(MeasureError):
        live.read_metric(text, "x_total")


def test_quotes_are_made_again_alike_and_as_a_writer_records_them() -> None:
    quotes = made_quotes.make_quotes(1_000, day=3, prev=Position(1, 2))
    assert quotes == made_quotes.make_quotes(1_000, day=3, prev=Position(1, 2))
    assert [quote.seq for quote in quotes] == list(range(1, 1_001))
    assert quotes[0].prev == Position(1, 2)
    assert all(later.at >= quote.at for quote, later in itertools.pairwise(quotes))
    assert quotes[-1].at - quotes[0].at == pytest.approx(timedelta(seconds=999 / 50), abs=timedelta(seconds=0.02))
    assert quotes[-1].position < made_quotes.make_quotes(1, day=4)[0].position


def test_one_batch_in_twenty_is_sent_again() -> None:
    quotes = made_quotes.make_quotes(4_000)
    sent = list(made_quotes.doubled(quotes, 100))
    assert len(sent) == 42
    assert [quote for batch in made_quotes.batches(quotes, 100) for quote in batch] == quotes
    assert sum(again == batch for batch, again in itertools.pairwise(sent)) == 2


def test_the_function_without_candles_is_made_from_the_migration_and_not_from_another_text() -> None:
    plain = ledger.without_candles(ledger.migration_text())
    assert plain.startswith("CREATE OR REPLACE FUNCTION store_run(")
    assert "INSERT INTO day" in plain
    assert "UPDATE fence" in plain
    assert "candle" not in plain
    with pytest.raises(MeasureError, match="another shape"):
        ledger.without_candles("CREATE FUNCTION store_run(\n$$;\n")


def test_times_and_rates_are_read_from_what_programs_say() -> None:
    assert ledger.copy_seconds("Timing is on.\nCOPY 5\nTime: 1234.500 ms (00:01.235)") == 1.2345
    assert ledger_reads.transactions_per_s("latency average = 1 ms\ntps = 7345.25 (without initial …)\n") == 7345.25
    left = "left: shard1 refers writers and readers to shard2"
    output = f"closed: the fence\n{left}, after 12.3 ms with a closed fence\nplaced: x\n"
    assert ledger_move.closed_ms(output) == 12.3
    for read in (ledger.copy_seconds, ledger_reads.transactions_per_s, ledger_move.closed_ms):
        with pytest.raises(MeasureError):
            read(f"{left}\n")


def test_latencies_are_those_of_the_quotes_published_in_the_time_and_too_few_are_an_error() -> None:
    latencies = ledger_move.Latencies()
    latencies.found = [(number / live.RATE, float(number)) for number in range(200)]
    assert latencies.between(1.0, 2.0) == [float(number) for number in range(50, 100)]
    with pytest.raises(MeasureError, match="quotes/s were published"):
        latencies.between(3.0, 5.0)


def test_a_step_of_a_price_has_arrived_with_its_price_or_a_later_one() -> None:
    steps = [("bitcoin", "1.0", 1_000_000), ("bitcoin", "1.5", 5_000_000), ("bitcoin", "2.0", 7_000_000)]
    arrivals = {"bitcoin": [("1.0", 2_000_000), ("1.2", 6_000_000), ("2.0", 9_000_000), ("1.9", 9_500_000)]}
    assert feed.delays_ms(steps, arrivals) == [4.0, 2.0]  # the first step was before the first arrival
    assert feed.delays_ms([*steps, ("bitcoin", "3.0", 8_000_000)], arrivals) == [4.0, 2.0]  # it never arrived
    assert feed.delays_ms(steps, {"ethereum": []}) == []


def test_the_options_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "--compare" in capsys.readouterr().out
