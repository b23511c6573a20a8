"""The page about the circuit breaker: its diagram is the table, its code runs, its files are there."""

import re
from pathlib import Path

import pytest
from docs import make_diagram

from cotacoes.patterns.resilience import TRANSITIONS, Reason, State

PAGE = make_diagram.PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_diagram_is_drawn_from_the_table() -> None:
    assert make_diagram.with_diagram(PAGE) == PAGE, "run `make diagram`"


def test_a_transition_more_is_an_arrow_more() -> None:
    more = {**TRANSITIONS, (State.DISABLED, Reason.WAIT_OVER): State.OPEN}
    assert make_diagram.diagram(more) != make_diagram.diagram()
    assert "    disabled --> open: wait_over\n" in make_diagram.diagram(more)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_examples_run(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(BLOCKS[number], f"{make_diagram.PAGE}, block {number}", "exec"), {})


def test_every_file_that_the_page_names_is_there() -> None:
    names = re.findall(r"^\| `([^|]*?)` \|", PAGE.split("\n## ")[0], re.MULTILINE)
    files = [name for cell in names for name in cell.split("`, `")]
    patterns = Path(make_diagram.__file__).parents[1] / "src" / "cotacoes" / "patterns" / "resilience"
    assert len(files) > 8
    assert [name for name in files if not (patterns / name).is_file()] == []
