"""The page about the consensus: its code runs and prints what the page shows, its figures are measured."""

import math
import re
from itertools import zip_longest
from pathlib import Path

import pytest
from docs import make_diagrams

from cotacoes.patterns.consensus import PRICE_LIMITS, ConsensusState, VenueReason

FILE = Path(__file__).parents[2] / "docs" / "explanation" / "consensus.md"
PAGE = FILE.read_text(encoding="utf-8")


def test_the_example_prints_what_the_page_shows(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"^```(python|text)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert [kind for kind, _ in blocks] == ["python", "text"]
    exec(compile(blocks[0][1], str(FILE), "exec"), {})
    assert capsys.readouterr().out == blocks[1][1]


def test_every_state_and_every_reason_is_explained() -> None:
    cells = re.findall(r"^\| (`[^|]*`) \|", PAGE.split("\n## What is shown\n")[1].split("\n## ")[0], re.MULTILINE)
    named = [name.strip("`") for cell in cells for name in cell.split(", ")]
    assert named == [*(state.value for state in ConsensusState), *(reason.value for reason in VenueReason)]


def test_the_formula_names_the_limits_of_the_code() -> None:
    formula = PAGE.split("\n## The formula\n")[1].split("\n\n**")[0]
    for name in ("spread_max_bps", "pair_band_bps", "band_min_bps", "band_max_bps"):
        assert f"{getattr(PRICE_LIMITS, name)}" in formula, name


@pytest.mark.slow
def test_the_table_of_attacks_is_what_is_measured() -> None:
    """Within a percent, since the mathematics of another platform may round a random number differently."""
    shown, measured = (make_diagrams.TABLE.findall(text)[0].split() for text in (PAGE, make_diagrams.with_table()))
    for word, now in zip_longest(shown, measured, fillvalue=""):
        both = [re.fullmatch(r"[0-9]+\.[0-9]", text) is not None for text in (word, now)]
        assert math.isclose(float(word), float(now), rel_tol=0.01, abs_tol=0.2) if all(both) else word == now
