"""The pictures of the patterns' pages are what the code draws, and the code decides what they show."""

import pytest
from docs import make_diagrams
from docs.make_diagrams import breaker, recovery

from cotacoes.patterns.resilience import TRANSITIONS, BreakerState, TransitionReason


@pytest.mark.parametrize("page", make_diagrams.DIAGRAMS)
def test_the_picture_of_a_page_is_what_the_code_draws(page: str) -> None:
    assert make_diagrams.with_diagram(page) == make_diagrams.read(page), "run `make diagram`"


def test_one_more_transition_is_one_more_arrow() -> None:
    more = {**TRANSITIONS, (BreakerState.DISABLED, TransitionReason.WAIT_OVER): BreakerState.OPEN}
    assert breaker.diagram(more) != breaker.diagram()
    assert "    disabled --> open: wait_over\n" in breaker.diagram(more)


def test_a_feed_without_a_hole_asks_the_history_nothing() -> None:
    assert "history:" not in recovery.diagram(lost=())
