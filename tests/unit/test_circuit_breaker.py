"""What the scenarios of the conformance suite do not show: complete events, errors, jitter, the text of a refusal."""

import math
import random
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotacoes.patterns.resilience import (
    TRANSITIONS,
    BreakerSnapshot,
    BreakerState,
    CallNotPermitted,
    CallSettled,
    CallVerdict,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitOpenError,
    StateTransition,
    TransitionReason,
)


class Bench:
    """A breaker with a clock of its own; it opens at the third failure in a row."""

    def __init__(self, *, listener: Callable[[Any], None] | None = None, **config: Any) -> None:
        self.now = 100.0
        self.events: list[Any] = []
        given = {"wait_duration_jitter": 0.0, "wait_duration_in_open": 5.0, "consecutive_failures_threshold": 3}
        self.config = CircuitBreakerConfig(**{**given, "permitted_calls_in_half_open": 1, **config})
        self.breaker = CircuitBreaker(
            "source",
            self.config,
            clock=lambda: self.now,
            random=random.Random(1),
            on_event=listener or self.events.append,
        )

    def call(self, verdict: CallVerdict, error: BaseException | None = None) -> bool:
        return self.breaker.acquire().settle(verdict, error)

    def open(self) -> None:
        for _ in range(3):
            self.call(CallVerdict.FAILURE, OSError("no route"))
        assert self.breaker.state is BreakerState.OPEN


def test_a_refusal_names_the_circuit_the_wait_and_the_last_error() -> None:
    bench = Bench()
    bench.open()
    bench.now += 2.0
    with pytest.raises(CircuitOpenError) as refused:
        bench.breaker.acquire()
    error = refused.value
    assert (error.name, error.state) == ("source", BreakerState.OPEN)
    assert error.retry_after == pytest.approx(3.0)
    assert error.last_error == "OSError: no route"
    assert str(error) == "circuit source is open, next probe in 3.0 s; last error: OSError: no route"


def test_a_refusal_of_a_forced_circuit_says_that_it_lasts_until_a_reset() -> None:
    bench = Bench()
    bench.breaker.force_open()
    with pytest.raises(CircuitOpenError, match=r"^circuit source is forced open, until it is reset$") as refused:
        bench.breaker.acquire()
    assert refused.value.retry_after == math.inf


def test_the_wait_of_a_full_half_open_is_never_negative() -> None:
    bench = Bench(max_wait_duration_in_half_open=60.0)
    bench.open()
    bench.now += 5.0
    bench.breaker.acquire()
    bench.now += 61.0
    assert bench.breaker.retry_after() == 0.0


def test_the_last_error_is_a_short_text_without_frames() -> None:
    bench = Bench()
    bench.call(CallVerdict.FAILURE, OSError("x" * 1000))
    last = bench.breaker.metrics().last_error
    assert last is not None
    assert len(last) == 200
    bench.call(CallVerdict.IGNORED, ValueError("ours"))
    assert bench.breaker.metrics().last_error == last


def test_every_change_is_reported_with_reason_and_time_and_is_in_the_table() -> None:
    bench = Bench(max_wait_duration_in_half_open=10.0)
    bench.open()
    bench.now += 5.0
    bench.breaker.acquire()
    bench.now += 12.0
    assert bench.breaker.try_acquire() is None
    bench.now += 3.0
    bench.call(CallVerdict.SUCCESS)
    bench.breaker.disable()
    bench.breaker.reset()
    bench.now += 1.0
    bench.breaker.force_open()
    bench.breaker.metrics_only()
    bench.breaker.reset()
    bench.breaker.open_for(1.0)
    changes = [event for event in bench.events if isinstance(event, StateTransition)]
    assert [(event.from_state.value, event.to_state.value, event.reason.value, event.at) for event in changes] == [
        ("closed", "open", "consecutive_failures", 100.0),
        ("open", "half_open", "wait_over", 105.0),
        ("half_open", "open", "half_open_timed_out", 115.0),  # not 117, when the next caller came
        ("open", "half_open", "wait_over", 120.0),
        ("half_open", "closed", "probes_succeeded", 120.0),
        ("closed", "disabled", "disabled", 120.0),
        ("disabled", "closed", "reset", 120.0),
        ("closed", "forced_open", "forced", 121.0),
        ("forced_open", "metrics_only", "metrics_only", 121.0),
        ("metrics_only", "closed", "reset", 121.0),
        ("closed", "open", "retry_after", 121.0),
    ]
    assert all(TRANSITIONS[event.from_state, event.reason] is event.to_state for event in changes)
    assert {event.name for event in changes} == {"source"}


def test_every_call_is_reported_with_its_duration_and_whether_it_counted() -> None:
    bench = Bench(slow_call_duration_threshold=1.0)
    slow = bench.breaker.acquire()
    late = bench.breaker.acquire()
    bench.now += 1.5
    slow.settle(CallVerdict.FAILURE, OSError("no route"))
    bench.call(CallVerdict.IGNORED)
    bench.breaker.reset()
    late.settle(CallVerdict.SUCCESS)
    bench.breaker.force_open()
    assert bench.breaker.try_acquire() is None
    assert [event for event in bench.events if not isinstance(event, StateTransition)] == [
        CallSettled("source", CallVerdict.FAILURE, True, True, 1.5, 101.5, "OSError: no route"),
        CallSettled("source", CallVerdict.IGNORED, False, False, 0.0, 101.5, None),
        CallSettled("source", CallVerdict.SUCCESS, True, False, 1.5, 101.5, None),
        CallNotPermitted("source", BreakerState.FORCED_OPEN, 101.5),
    ]
    seen = bench.breaker.metrics()
    assert (seen.ignored, seen.late, seen.not_permitted) == (1, 1, 1)


def test_a_snapshot_has_the_evidence_and_no_rate_of_too_few_calls() -> None:
    bench = Bench(slow_call_duration_threshold=1.0, minimum_number_of_calls=4, consecutive_failures_threshold=9)
    kept = [bench.breaker.acquire() for _ in range(4)]
    for _ in range(2):
        bench.call(CallVerdict.IGNORED)
    bench.call(CallVerdict.FAILURE, OSError("no route"))
    few = bench.breaker.metrics()
    assert (few.failure_rate, few.slow_call_rate) == (None, None)
    bench.call(CallVerdict.SUCCESS)
    bench.call(CallVerdict.SUCCESS)
    bench.call(CallVerdict.FAILURE)
    bench.breaker.metrics_only()
    for permit in kept[:2]:
        permit.settle(CallVerdict.SUCCESS)
    slow = bench.breaker.acquire()
    for verdict in (CallVerdict.FAILURE, CallVerdict.FAILURE, CallVerdict.SUCCESS, CallVerdict.FAILURE):
        bench.call(verdict)
    bench.now += 2.0
    assert bench.breaker.metrics() == BreakerSnapshot(
        state=BreakerState.METRICS_ONLY,
        generation=2,
        calls=4,
        failures=3,
        slow_calls=0,
        overdue=1,
        failure_rate=0.75,
        slow_call_rate=0.2,
        consecutive_failures=1,
        not_permitted=0,
        ignored=2,
        late=2,
        last_error="OSError: no route",
        retry_after=None,
    )
    slow.settle(CallVerdict.SUCCESS)
    assert bench.breaker.metrics().slow_call_rate == 0.2


def test_an_open_circuit_keeps_its_evidence_for_inspection() -> None:
    bench = Bench(slow_call_duration_threshold=1.0)
    bench.breaker.acquire()
    bench.open()
    bench.now += 2.0
    seen = bench.breaker.metrics()
    assert (seen.failures, seen.overdue, seen.consecutive_failures) == (3, 0, 3)
    bench.breaker.force_open()
    assert bench.breaker.metrics().overdue == 0


def test_a_wait_that_ends_between_two_readings_of_the_clock_is_no_wait() -> None:
    now = iter([0.0, 0.0, 0.0, 0.0, 4.9, 5.1])
    config = CircuitBreakerConfig(consecutive_failures_threshold=1, wait_duration_in_open=5.0, wait_duration_jitter=0.0)
    breaker = CircuitBreaker("x", config, clock=lambda: next(now), random=random.Random(1))
    breaker.acquire().settle(CallVerdict.FAILURE)
    with pytest.raises(CircuitOpenError) as refused:
        breaker.acquire()
    assert refused.value.retry_after == 0.0


def test_a_listener_sees_a_consistent_breaker_and_may_use_it() -> None:
    seen: list[tuple[BreakerState, float | None, bool]] = []

    def listen(event: Any) -> None:
        if isinstance(event, StateTransition):
            breaker = bench.breaker
            seen.append((breaker.state, breaker.retry_after(), breaker.try_acquire() is None))

    bench = Bench(listener=listen)
    bench.open()
    assert seen == [(BreakerState.OPEN, 5.0, True)]


def test_a_failing_listener_loses_no_probe() -> None:
    def fail(event: Any) -> None:
        if isinstance(event, StateTransition) and event.to_state is BreakerState.HALF_OPEN:
            raise RuntimeError("a listener's bug")

    bench = Bench(listener=fail)
    bench.open()
    bench.now += 5.0
    with pytest.raises(RuntimeError):
        bench.breaker.try_acquire()
    assert bench.call(CallVerdict.SUCCESS)
    assert bench.breaker.state is BreakerState.CLOSED


def test_a_failing_listener_prevents_no_judgement() -> None:
    def fail(event: Any) -> None:
        if isinstance(event, CallSettled):
            raise RuntimeError("a listener's bug")

    bench = Bench(listener=fail, consecutive_failures_threshold=1, max_wait_duration_in_half_open=None)
    for verdict, state in ((CallVerdict.FAILURE, BreakerState.OPEN), (CallVerdict.SUCCESS, BreakerState.CLOSED)):
        with pytest.raises(RuntimeError):
            bench.call(verdict)
        assert bench.breaker.state is state
        bench.now += 5.0


@given(st.integers(0, 2**32), st.floats(0.0, 0.9))
def test_a_wait_is_spread_by_exactly_its_jitter(seed: int, jitter: float) -> None:
    config = CircuitBreakerConfig(consecutive_failures_threshold=1, wait_duration_jitter=jitter)
    breaker = CircuitBreaker("x", config, clock=lambda: 0.0, random=random.Random(seed))
    breaker.acquire().settle(CallVerdict.FAILURE)
    wait = breaker.retry_after()
    assert wait is not None
    assert 60.0 * (1 - jitter) - 1e-9 <= wait <= 60.0 * (1 + jitter) + 1e-9


@pytest.mark.parametrize("seconds", [-1.0, math.inf, math.nan])
def test_open_for_refuses_a_wait_that_makes_no_sense(seconds: float) -> None:
    with pytest.raises(ValueError, match="open_for"):
        Bench().breaker.open_for(seconds)


def test_a_breaker_takes_little_memory() -> None:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        dice = random.Random(1)
        kept = []
        for number in range(50):
            breaker = CircuitBreaker(str(number), CircuitBreakerConfig(), clock=lambda: 0.0, random=dice)
            for _ in range(200):
                breaker.acquire().settle(CallVerdict.SUCCESS)
            kept.append(breaker)
        assert (tracemalloc.get_traced_memory()[0] - before) / len(kept) < 8192
    finally:
        tracemalloc.stop()


def test_a_permit_that_is_never_settled_keeps_nothing_alive() -> None:
    """Calls that never settle are held until they are overdue, and not longer."""
    bench = Bench(slow_call_duration_threshold=1.0, minimum_number_of_calls=100)
    bench.breaker.metrics_only()
    for _ in range(1000):
        bench.breaker.acquire()
    bench.now += 2.0
    bench.breaker.acquire()
    assert bench.breaker.metrics().overdue == 1000
    assert len(bench.breaker._seen._under_way) == 1


def test_a_permit_carries_its_generation() -> None:
    bench = Bench()
    permit = bench.breaker.acquire()
    assert permit.generation == bench.breaker.generation == 0
    bench.breaker.reset()
    assert bench.breaker.generation == 1


def test_each_reason_is_in_the_table() -> None:
    assert {reason for _, reason in TRANSITIONS} == set(TransitionReason)
