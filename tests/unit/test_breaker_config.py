"""The configurations that a circuit breaker refuses, and the values on a bound, which it accepts."""

import math
from typing import Any

import pytest

from cotacoes.patterns.resilience import BreakerState, CircuitBreakerConfig


@pytest.mark.parametrize(
    ("impossible", "named"),
    [
        ({"failure_rate_threshold": 0.0}, "failure_rate_threshold"),
        ({"failure_rate_threshold": 50}, "failure_rate_threshold must be a share"),
        ({"failure_rate_threshold": math.nan}, "failure_rate_threshold"),
        (
            {"failure_rate_threshold": None},
            "nothing would ever open this circuit: set .* or slow_call_duration_threshold$",
        ),
        ({"minimum_number_of_calls": 0}, "minimum_number_of_calls must be a whole number from 1, not 0$"),
        ({"minimum_number_of_calls": 2.5}, "minimum_number_of_calls"),
        ({"sliding_window_type": "calls"}, "sliding_window_type"),
        ({"sliding_window_size": 0}, "sliding_window_size"),
        ({"sliding_window_size": True}, "sliding_window_size"),
        ({"sliding_window_size": 100_001}, "sliding_window_size must be a whole number from 1 to 100000"),
        (
            {"sliding_window_size": 3601, "sliding_window_type": "time"},
            "sliding_window_size must be a whole number from 1 to 3600",
        ),
        ({"consecutive_failures_threshold": 0}, "consecutive_failures_threshold"),
        ({"slow_call_duration_threshold": 0}, "slow_call_duration_threshold"),
        ({"slow_call_duration_threshold": math.inf}, "slow_call_duration_threshold"),
        ({"slow_call_rate_threshold": 1.5}, "slow_call_rate_threshold"),
        ({"wait_duration_in_open": 0}, "wait_duration_in_open"),
        ({"wait_duration_multiplier": 0.5}, "wait_duration_multiplier"),
        ({"wait_duration_multiplier": math.inf, "max_wait_duration_in_open": 99.0}, "wait_duration_multiplier"),
        ({"wait_duration_multiplier": 2.0}, "max_wait_duration_in_open is required if .* is above 1$"),
        ({"max_wait_duration_in_open": 59.0}, "max_wait_duration_in_open must be at least wait_duration_in_open"),
        ({"max_wait_duration_in_open": math.inf}, "max_wait_duration_in_open"),
        ({"wait_duration_jitter": 1.0}, "wait_duration_jitter"),
        ({"wait_duration_jitter": -0.1}, "wait_duration_jitter"),
        ({"permitted_calls_in_half_open": 0}, "permitted_calls_in_half_open"),
        ({"max_concurrent_calls_in_half_open": 11}, "max_concurrent_calls_in_half_open must be .* from 1 to 10"),
        ({"max_concurrent_calls_in_half_open": 0}, "max_concurrent_calls_in_half_open"),
        ({"max_wait_duration_in_half_open": 0}, "max_wait_duration_in_half_open"),
        ({"initial_state": "closed"}, "initial_state"),
    ],
)
def test_an_impossible_configuration_is_refused_by_name(impossible: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named}"):
        CircuitBreakerConfig(**impossible)


@pytest.mark.parametrize(
    "possible",
    [
        {},
        {"failure_rate_threshold": 1.0},
        {"failure_rate_threshold": None, "consecutive_failures_threshold": 1},
        {"failure_rate_threshold": None, "slow_call_duration_threshold": 0.1},
        {"sliding_window_size": 100_000},
        {"sliding_window_size": 3600, "sliding_window_type": "time"},
        {"max_wait_duration_in_open": 60.0},
        {"wait_duration_multiplier": 1.0},
        {"wait_duration_jitter": 0.0},
        {"max_concurrent_calls_in_half_open": 10},
        {"max_wait_duration_in_half_open": None},
    ],
)
def test_a_value_on_the_bound_is_accepted(possible: dict[str, Any]) -> None:
    CircuitBreakerConfig(**possible)


def test_the_defaults_are_those_of_resilience4j_except_the_limit_of_half_open() -> None:
    assert CircuitBreakerConfig() == CircuitBreakerConfig(
        failure_rate_threshold=0.5,
        minimum_number_of_calls=100,
        sliding_window_type="count",
        sliding_window_size=100,
        consecutive_failures_threshold=None,
        slow_call_duration_threshold=None,
        slow_call_rate_threshold=1.0,
        wait_duration_in_open=60.0,
        wait_duration_multiplier=1.0,
        max_wait_duration_in_open=None,
        wait_duration_jitter=0.1,
        permitted_calls_in_half_open=10,
        max_concurrent_calls_in_half_open=None,
        max_wait_duration_in_half_open=60.0,
        initial_state=BreakerState.CLOSED,
    )


@pytest.mark.parametrize(("minimum", "size", "needed"), [(100, 10, 10), (10, 100, 10), (10, 10, 10)])
def test_a_count_window_lowers_the_number_of_calls_needed_to_its_size(minimum: int, size: int, needed: int) -> None:
    config = CircuitBreakerConfig(minimum_number_of_calls=minimum, sliding_window_size=size)
    assert config.calls_needed == needed


def test_a_time_window_does_not_lower_the_number_of_calls_needed() -> None:
    config = CircuitBreakerConfig(minimum_number_of_calls=100, sliding_window_size=10, sliding_window_type="time")
    assert config.calls_needed == 100
