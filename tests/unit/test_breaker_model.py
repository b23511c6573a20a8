"""The breaker against a plain model, step by step; and against itself, inspected after each step or never."""

import math
import random
from typing import Any

import pytest
from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.unit.fake_circuit_breaker import BY_A_PERSON, Call, Model

from cotacoes.patterns.resilience import (
    BreakerState,
    CallVerdict,
    CircuitBreaker,
    CircuitBreakerConfig,
    Permit,
    StateTransition,
)

SHARES = st.sampled_from([0.1, 0.25, 0.5, 0.75, 1.0])
CONFIGS = st.fixed_dictionaries(
    {
        "failure_rate_threshold": st.none() | SHARES,
        "minimum_number_of_calls": st.integers(1, 6),
        "sliding_window_type": st.sampled_from(["count", "time"]),
        "sliding_window_size": st.integers(1, 6),
        "consecutive_failures_threshold": st.none() | st.integers(1, 5),
        "slow_call_duration_threshold": st.none() | st.just(2.0),
        "slow_call_rate_threshold": SHARES,
        "wait_duration_in_open": st.just(4.0),
        "wait_duration_multiplier": st.just(2.0),
        "max_wait_duration_in_open": st.sampled_from([10.0, 15.0, 4.0]),
        "wait_duration_jitter": st.sampled_from([0.0, 0.5]),
        "permitted_calls_in_half_open": st.integers(1, 4),
        "max_concurrent_calls_in_half_open": st.none() | st.just(1),
        "max_wait_duration_in_half_open": st.sampled_from([6.0, 6.0, None]),
        "initial_state": st.just(BreakerState.CLOSED) | st.just(BreakerState.CLOSED) | st.sampled_from(BreakerState),
    }
)
RULES = ("failure_rate_threshold", "consecutive_failures_threshold", "slow_call_duration_threshold")
VERDICTS = st.sampled_from([CallVerdict.SUCCESS, CallVerdict.FAILURE, CallVerdict.FAILURE, CallVerdict.IGNORED])
ERRORS = st.none() | st.builds(OSError, st.sampled_from(["no route", "reset"]))


class Subject:
    """A breaker that takes the same steps as the model."""

    def __init__(self, model: Model, seed: int) -> None:
        self.changes: list[tuple[str, str, float]] = []
        self.permits: list[Permit] = []
        self.breaker = CircuitBreaker(
            "subject", model.config, clock=lambda: model.now, random=random.Random(seed), on_event=self.hear
        )

    def hear(self, event: Any) -> None:
        if isinstance(event, StateTransition):
            self.changes.append((event.from_state.value, event.to_state.value, event.at))

    def take(self) -> bool:
        permit = self.breaker.try_acquire()
        if permit is not None:
            self.permits.append(permit)
        return permit is not None


class BreakerMachine(RuleBasedStateMachine):
    """Random configurations, and random steps on the model and on two breakers."""

    @initialize(config=CONFIGS, seed=st.integers(0, 99))
    def begin(self, config: dict[str, Any], seed: int) -> None:
        assume(any(config[name] is not None for name in RULES))
        self.model = Model(CircuitBreakerConfig(**config), seed)
        self.looked_at = Subject(self.model, seed)
        self.subjects = [self.looked_at, Subject(self.model, seed)]
        self.calls: list[Call] = []

    @rule()
    def take(self) -> None:
        call = self.model.acquire()
        if call is not None:
            self.calls.append(call)
        assert [subject.take() for subject in self.subjects] == [call is not None] * len(self.subjects)

    def end(self, number: int, verdict: CallVerdict, error: Exception | None) -> None:
        counted = self.model.settle(self.calls[number], verdict, error)
        assert [subject.permits[number].settle(verdict, error) for subject in self.subjects] == [counted] * len(
            self.subjects
        )

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), verdict=VERDICTS, error=ERRORS)
    def settle(self, data: st.DataObject, verdict: CallVerdict, error: Exception | None) -> None:
        self.end(data.draw(st.integers(0, len(self.calls) - 1)), verdict, error)

    @precondition(lambda self: self.calls)
    @rule(verdict=VERDICTS)
    def settle_the_last(self, verdict: CallVerdict) -> None:
        self.end(-1, verdict, None)

    @rule(verdict=st.sampled_from([CallVerdict.SUCCESS, CallVerdict.FAILURE]))
    def call_at_once(self, verdict: CallVerdict) -> None:
        begun = len(self.calls)
        self.take()
        if len(self.calls) > begun:
            self.end(-1, verdict, None)

    @rule(quarters=st.sampled_from([1, 4, 8, 9, 16, 24, 40]))
    def wait(self, quarters: int) -> None:
        self.model.now += quarters / 4

    @precondition(lambda self: self.model.state == "closed")
    @rule()
    def fail_often(self) -> None:
        for _ in range(6):
            self.call_at_once(CallVerdict.FAILURE)

    @precondition(lambda self: self.model.state == "open")
    @rule(sooner=st.sampled_from([0.0, 0.0, 0.25]), verdict=st.none() | VERDICTS)
    def wait_it_out(self, sooner: float, verdict: CallVerdict | None) -> None:
        self.model.now = max(self.model.now, self.model.open_until - sooner)
        self.take()
        if self.model.state == "half_open" and verdict is not None:
            self.end(-1, verdict, None)

    @precondition(lambda self: self.model.state == "half_open" and self.model.half_open_ends() < math.inf)
    @rule(sooner=st.sampled_from([0.0, 0.25]))
    def let_it_time_out(self, sooner: float) -> None:
        self.model.now = max(self.model.now, self.model.half_open_ends() - sooner)
        self.take()

    @precondition(lambda self: self.model.state in {"open", "half_open"})
    @rule(verdict=st.sampled_from([CallVerdict.SUCCESS, CallVerdict.FAILURE]))
    def probe(self, verdict: CallVerdict) -> None:
        """Run probes until the outcome is decided, since random steps rarely get that far."""
        if self.model.state == "open":
            self.model.now = max(self.model.now, self.model.open_until)
        for _ in range(self.model.config.permitted_calls_in_half_open):
            self.call_at_once(verdict)

    @rule(seconds=st.sampled_from([0.5, 7.0]))
    def rest(self, seconds: float) -> None:
        self.model.rest(seconds)
        for subject in self.subjects:
            subject.breaker.open_for(seconds)

    @precondition(lambda self: self.model.era % 4 == 3 or self.model.state not in {"closed", "open", "half_open"})
    @rule(word=st.just("reset") | st.sampled_from([*BY_A_PERSON]))
    def say(self, word: str) -> None:
        self.model.say(word)
        for subject in self.subjects:
            getattr(subject.breaker, word)()

    @invariant()
    def they_agree(self) -> None:
        if not hasattr(self, "model"):
            return
        model, seen = self.model, self.looked_at.breaker.metrics()
        for subject in self.subjects:
            assert subject.changes == model.changes
            assert (subject.breaker.state.value, subject.breaker.generation) == (model.state, model.era)
            assert subject.breaker.retry_after() == model.retry_after()
        assert (seen.state.value, seen.generation, seen.retry_after) == (model.state, model.era, model.retry_after())
        assert (seen.not_permitted, seen.ignored, seen.late) == (model.not_permitted, model.ignored, model.late)
        assert (seen.last_error, seen.consecutive_failures) == (model.last_error, model.in_a_row())
        window = model.window()
        assert seen.calls == len(window)
        assert seen.failures == sum(call.failed for call in window)
        assert seen.slow_calls == sum(call.slow for call in window)
        assert seen.failure_rate == model.failure_rate()
        if model.state not in {"open", "forced_open"}:  # these no longer follow the calls from before
            assert (seen.overdue, seen.slow_call_rate) == (model.overdue(), model.slow_call_rate())


BreakerMachine.TestCase.settings = settings(max_examples=250, stateful_step_count=40, deadline=None)
TestBreaker = pytest.mark.slow(BreakerMachine.TestCase)
