"""The circuit breaker's promises, by its table; time is a number that the test sets."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotacoes.patterns.circuit_breaker import (
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitOpenError,
    State,
    StateChanged,
    Verdict,
)


class Bench:
    """A breaker with a clock at hand."""

    def __init__(self, **config: float) -> None:
        self.now = 100.0
        self.events: list[StateChanged] = []
        self.config = CircuitBreakerConfig(**{"wait_duration_jitter": 0.0, **config})  # type: ignore[arg-type]
        self.breaker = CircuitBreaker(
            "source",
            self.config,
            clock=lambda: self.now,
            random=random.Random(1),
            on_event=self.events.append,
        )

    def call(self, verdict: Verdict) -> None:
        self.breaker.acquire().settle(verdict)

    def open(self) -> None:
        for _ in range(self.config.consecutive_failures_threshold):
            self.call(Verdict.FAILURE)

    def open_and_wait(self) -> None:
        self.open()
        self.now += self.config.wait_duration_in_open


def test_failures_in_a_row_open_it_and_a_success_between_them_does_not() -> None:
    bench = Bench(consecutive_failures_threshold=3)
    for verdict in [Verdict.FAILURE, Verdict.FAILURE, Verdict.SUCCESS, Verdict.FAILURE, Verdict.FAILURE]:
        bench.call(verdict)
    assert bench.breaker.state is State.CLOSED
    bench.call(Verdict.FAILURE)
    assert bench.breaker.state is State.OPEN


def test_an_open_circuit_lets_nothing_through_and_says_for_how_long() -> None:
    bench = Bench(wait_duration_in_open=3.0)
    bench.open()
    bench.now += 1.0
    with pytest.raises(CircuitOpenError) as refused:
        bench.breaker.acquire()
    assert refused.value.retry_after == pytest.approx(2.0)
    assert bench.breaker.try_acquire() is None


@given(st.integers(1, 5), st.integers(1, 60))
def test_half_open_lets_through_exactly_its_number_of_probes(permitted: int, callers: int) -> None:
    bench = Bench(permitted_calls_in_half_open=permitted)
    bench.open_and_wait()
    permits = [permit for permit in (bench.breaker.try_acquire() for _ in range(callers)) if permit is not None]
    assert len(permits) == min(permitted, callers)


def test_it_closes_when_all_probes_succeed_and_opens_when_one_fails() -> None:
    bench = Bench(permitted_calls_in_half_open=2)
    bench.open_and_wait()
    bench.call(Verdict.SUCCESS)
    assert bench.breaker.state is State.HALF_OPEN
    bench.call(Verdict.SUCCESS)
    assert bench.breaker.state is State.CLOSED
    bench.open_and_wait()
    bench.call(Verdict.FAILURE)
    assert bench.breaker.state is State.OPEN


def test_a_late_result_of_an_older_era_changes_nothing() -> None:
    bench = Bench(permitted_calls_in_half_open=1)
    late = bench.breaker.acquire()
    bench.open_and_wait()
    probe = bench.breaker.acquire()
    assert late.settle(Verdict.FAILURE) is False
    assert bench.breaker.state is State.HALF_OPEN
    assert probe.settle(Verdict.SUCCESS) is True
    assert bench.breaker.state is State.CLOSED


def test_settling_twice_counts_once() -> None:
    bench = Bench(consecutive_failures_threshold=2)
    permit = bench.breaker.acquire()
    assert permit.settle(Verdict.FAILURE) is True
    assert permit.settle(Verdict.FAILURE) is False
    assert bench.breaker.state is State.CLOSED


def test_a_cancelled_probe_gives_its_slot_back_and_is_no_evidence() -> None:
    bench = Bench(permitted_calls_in_half_open=1)
    bench.open_and_wait()
    for _ in range(50):
        bench.call(Verdict.IGNORED)
    assert bench.breaker.state is State.HALF_OPEN
    bench.call(Verdict.SUCCESS)
    assert bench.breaker.state is State.CLOSED


def test_a_probe_that_never_returns_can_not_wedge_it() -> None:
    bench = Bench(permitted_calls_in_half_open=1, max_wait_duration_in_half_open=5.0)
    bench.open_and_wait()
    hung = bench.breaker.acquire()
    bench.now += 5.0
    assert bench.breaker.try_acquire() is None
    assert bench.breaker.state is State.OPEN
    bench.now += bench.config.wait_duration_in_open
    bench.call(Verdict.SUCCESS)
    assert bench.breaker.state is State.CLOSED
    assert hung.settle(Verdict.FAILURE) is False


def test_the_source_can_ask_for_a_rest() -> None:
    bench = Bench()
    bench.breaker.open_for(30.0)
    assert bench.breaker.retry_after() == pytest.approx(30.0)


def test_each_change_of_state_is_told_once_with_the_count_of_failures() -> None:
    bench = Bench(consecutive_failures_threshold=2, permitted_calls_in_half_open=1)
    bench.open_and_wait()
    bench.call(Verdict.SUCCESS)
    assert [(event.before, event.after) for event in bench.events] == [
        (State.CLOSED, State.OPEN),
        (State.OPEN, State.HALF_OPEN),
        (State.HALF_OPEN, State.CLOSED),
    ]
    assert bench.events[0].failures == 2


@pytest.mark.parametrize(
    "impossible",
    [
        {"consecutive_failures_threshold": 0},
        {"wait_duration_in_open": 0},
        {"wait_duration_jitter": 1},
        {"permitted_calls_in_half_open": 0},
        {"max_wait_duration_in_half_open": -1},
    ],
)
def test_an_impossible_configuration_is_refused_by_name(impossible: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(impossible))):
        CircuitBreakerConfig(**impossible)  # type: ignore[arg-type]
