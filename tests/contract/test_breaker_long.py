"""The breaker against its model over a soak: other seeds, longer stories."""

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from tests.unit.test_breaker_model import BreakerMachine

RUN_DEADLINE_S = 600


@pytest.mark.soak
@pytest.mark.timeout(RUN_DEADLINE_S)
def test_the_breaker_and_its_model_agree_over_long_runs() -> None:
    run_state_machine_as_test(
        BreakerMachine, settings=settings(max_examples=5000, stateful_step_count=80, deadline=None)
    )
