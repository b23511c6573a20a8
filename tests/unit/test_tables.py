"""A table fits the terminal, and no value in it is broken: columns if they fit, else a block for each row."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotacoes.cli.output import put_json
from cotacoes.cli.report_lines import held_text, levels_for, sparkline
from cotacoes.cli.tables import table_lines
from cotacoes.model.window import WindowJson
from cotacoes.observability.logs import plain_line

COLUMNS = ("coin", "price", "status", "mean")
ROWS = [("bitcoin", "66654.81 USD", "fresh", "66702.901365"), ("ethereum", "3538.23 USD", "stale", "3541.8")]
COLOUR = re.compile(r"\x1b\[[0-9]*m")


def shown(width: int | None, *, coloured: bool = False) -> list[str]:
    return list(table_lines(COLUMNS, ROWS, width=width, coloured=coloured))


@pytest.mark.parametrize("width", [None, 44, 80])
def test_columns_stand_below_their_names_if_they_fit(width: int | None) -> None:
    assert shown(width) == [
        "coin      price         status  mean",
        "bitcoin   66654.81 USD  fresh   66702.901365",
        "ethereum  3538.23 USD   stale   3541.8",
    ]


def test_columns_move_closer_before_they_are_given_up() -> None:
    assert shown(43)[1] == "bitcoin  66654.81 USD fresh  66702.901365"
    assert len(shown(41)) == 3


def test_rows_that_do_not_fit_become_blocks_of_pairs() -> None:
    assert shown(40) == [
        "bitcoin",
        "  price 66654.81 USD  status fresh",
        "  mean 66702.901365",
        "ethereum",
        "  price 3538.23 USD  status stale",
        "  mean 3541.8",
    ]
    assert shown(19)[:4] == ["bitcoin", "  price", "    66654.81 USD", "  status fresh"]
    assert shown(13)[:4] == ["bitcoin", "  price", "66654.81 USD", "  status"]


cells = st.text(st.sampled_from("0123456789.ab-"), min_size=1, max_size=30)


@given(st.lists(st.tuples(cells, cells, cells, cells), min_size=1, max_size=4), st.integers(1, 100), st.booleans())
def test_no_value_is_broken_and_no_line_is_wider_than_it_must_be(
    rows: list[tuple[str, str, str, str]], width: int, coloured: bool
) -> None:
    lines = [COLOUR.sub("", line) for line in table_lines(COLUMNS, rows, width=width, coloured=coloured)]
    words = [word for line in lines for word in line.split()]
    for row in rows:
        for cell in row:
            assert cell in words
    for line in lines:
        assert len(line) <= width or len(line.split()) == 1
    assert [COLOUR.sub("", line) for line in table_lines(COLUMNS, rows, width=width, coloured=True)] == lines


@pytest.mark.parametrize(("encoding", "shape"), [("utf-8", "▁▄█"), ("latin-1", "148"), ("ascii", "148"), (None, "148")])
def test_a_sparkline_has_the_signs_that_the_encoding_can_write(encoding: str | None, shape: str) -> None:
    assert sparkline(["1", "1.5", "2"], levels=levels_for(encoding)) == shape


@pytest.mark.parametrize(
    ("begins", "text"),
    [("2026-11-30T06:55", "18 min"), ("2026-11-30T00:08", "7 h 5 min"), ("2026-11-28T07:13", "2 d"), (None, "nothing")],
)
def test_the_covered_part_of_a_window_is_shown_in_words(begins: str | None, text: str) -> None:
    ends = None if begins is None else "2026-11-30T07:13:00Z"
    held = WindowJson(
        from_=begins and f"{begins}:00Z", to=ends, minutes=0, holes=0, closed=True, closes=[], complete=False
    )
    assert held_text(held) == text


HOSTILE = {"origin": "\x1b[2J\x9b2J\u202e\x00", "detail": "€ 😀 ▁"}


def test_printed_json_has_no_control_characters_and_the_same_content(capsys: pytest.CaptureFixture[str]) -> None:
    put_json(HOSTILE)
    shown = capsys.readouterr().out
    assert shown.removesuffix("\n").isprintable()
    assert json.loads(shown) == HOSTILE
    assert "€ 😀 ▁" in shown


def test_a_log_in_words_has_no_control_characters() -> None:
    line = plain_line(None, "", {"event": "history.away", "coin": "\x1b[2J", "reason": "no\ntime", "level": "warning"})
    assert line.isprintable()
    assert re.fullmatch(r"\d\d:\d\d:\d\d  history away \(coin �\[2J\): no�time", line)
