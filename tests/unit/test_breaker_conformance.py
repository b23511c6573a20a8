"""The conformance suite: every scenario on our breaker, and on interlock-cb where it has the features."""

import random
from collections.abc import Callable
from typing import Any, Protocol

import pytest
from tests.unit.breaker_scenarios import SCENARIOS, Scenario

from cotacoes.patterns import CircuitBreaker, CircuitBreakerConfig, Permit, State, Verdict

VERDICTS = {"ok": Verdict.SUCCESS, "fail": Verdict.FAILURE, "ignored": Verdict.IGNORED}
NEVER = float("inf")


class Subject(Protocol):
    """A breaker that the steps are done to; `take` gives a permit or None, `settle` says whether it counted."""

    now: float

    def take(self) -> Any: ...
    def settle(self, permit: Any, verdict: str) -> bool: ...
    def say(self, word: str, *arguments: float) -> None: ...
    def look(self, what: str) -> Any: ...


class Ours:
    def __init__(self, config: dict[str, Any]) -> None:
        self.now = 1000.0
        given = {"wait_duration_jitter": 0.0, **config}
        given["initial_state"] = State(given.get("initial_state", "closed"))
        self.breaker = CircuitBreaker(
            "subject", CircuitBreakerConfig(**given), clock=lambda: self.now, random=random.Random(1)
        )

    def take(self) -> Permit | None:
        return self.breaker.try_acquire()

    def settle(self, permit: Permit, verdict: str) -> bool:
        return permit.settle(VERDICTS[verdict])

    def say(self, word: str, *arguments: float) -> None:
        getattr(self.breaker, word)(*arguments)

    def look(self, what: str) -> Any:
        seen = self.breaker.metrics()
        shown = {"slow": seen.slow_calls, "state": seen.state.value}
        return shown[what] if what in shown else getattr(seen, what)


class Theirs:
    """interlock-cb's state machine, fed as its own call layer feeds it."""

    def __init__(self, config: dict[str, Any]) -> None:
        from interlock._state_machine import StateMachine
        from interlock.config import Config
        from interlock.outcome import Outcome
        from interlock.window import WindowType

        self.now = 1000.0
        self.outcomes = Outcome
        ours = CircuitBreakerConfig(**config)
        self.slow_after = ours.slow_call_duration_threshold or 1e9
        self.machine = StateMachine(
            config=Config(
                failure_rate_threshold=ours.failure_rate_threshold or 1.0,
                minimum_number_of_calls=ours.minimum_number_of_calls,
                slow_call_duration_threshold=self.slow_after,
                slow_call_rate_threshold=ours.slow_call_rate_threshold,
                permitted_calls_in_half_open=ours.permitted_calls_in_half_open,
                max_concurrent_probes=ours.max_concurrent_calls_in_half_open or ours.permitted_calls_in_half_open,
                wait_duration_in_open=ours.wait_duration_in_open,
                wait_duration_backoff_multiplier=ours.wait_duration_multiplier,
                wait_duration_in_open_max=ours.max_wait_duration_in_open,
                window_type=WindowType.COUNT_BASED if ours.sliding_window_type == "count" else WindowType.TIME_BASED,
                window_size=ours.sliding_window_size,
            ),
            clock=self,
        )
        self.first_generation = self.machine.generation

    def monotonic(self) -> float:
        return self.now

    def take(self) -> tuple[int, float] | None:
        is_permitted = self.machine.acquire()
        return (self.machine.generation, self.now) if is_permitted else None

    def settle(self, permit: tuple[int, float], verdict: str) -> bool:
        generation, started = permit
        counts = generation == self.machine.generation
        if verdict == "ignored":
            self.machine.release_probe(generation=generation)
            return False
        is_slow = self.now - started >= self.slow_after
        names = {("ok", False): "SUCCESS", ("fail", False): "FAILURE", ("ok", True): "SLOW_SUCCESS"}
        outcome = self.outcomes[names.get((verdict, is_slow), "SLOW_FAILURE")]
        self.machine.record(outcome, generation=generation)
        return counts

    def say(self, word: str, *arguments: float) -> None:
        getattr(self.machine, word)(*arguments)

    def look(self, what: str) -> Any:
        window = self.machine.snapshot()
        shown: dict[str, Callable[[], Any]] = {
            "state": lambda: self.machine.state.value,
            "retry_after": self.machine.retry_after,
            "generation": lambda: self.machine.generation - self.first_generation,
            "calls": lambda: window.total_calls,
            "failures": lambda: window.failed_calls,
            "slow": lambda: window.slow_calls,
        }
        return shown[what]()


def play(scenario: Scenario, subject: Subject) -> None:
    """Do the steps; AssertionError, with the step, where something is otherwise."""
    permits: dict[str, Any] = {}
    for step in scenario.steps.split(","):
        word, *rest = step.split()
        done = f"at {step.strip()!r} of {scenario.steps!r}"
        if word in VERDICTS:
            for _ in range(int(rest[0]) if rest else 1):
                permit = subject.take()
                assert permit is not None, done
                assert subject.settle(permit, word) is (word != "ignored"), done
        elif word == "late_all":
            for _ in range(int(rest[1])):
                permit = subject.take()
                assert permit is not None, done
                assert subject.settle(permit, rest[0]) is False, done
        elif word == "call":
            permit = subject.take()
            assert permit is not None, done
            subject.now += float(rest[0])
            assert subject.settle(permit, rest[1]) is (rest[1] != "ignored"), done
        elif word == "take":
            permits[rest[0]] = subject.take()
            assert permits[rest[0]] is not None, done
        elif word == "refused":
            assert subject.take() is None, done
        elif word == "settle":
            assert subject.settle(permits[rest[0]], rest[1]) is (rest[1] != "ignored"), done
        elif word == "late":
            assert subject.settle(permits[rest[0]], rest[1]) is False, done
        elif word == "wait":
            subject.now += float(rest[0])
        elif word in {"open_for", "reset", "force_open", "disable", "metrics_only"}:
            subject.say(word, *map(float, rest))
        else:
            expected: Any = {"none": None, "never": NEVER}.get(rest[0], rest[0])
            if word != "state" and isinstance(expected, str):
                expected = pytest.approx(float(expected))
            assert subject.look(word) == expected, done


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.promise)
def test_our_breaker(scenario: Scenario) -> None:
    play(scenario, Ours(scenario.config))


@pytest.mark.parametrize("scenario", [s for s in SCENARIOS if s.peer == ""], ids=lambda scenario: scenario.promise)
def test_interlock_cb_does_the_same(scenario: Scenario) -> None:
    pytest.importorskip("interlock", reason="interlock-cb is not installed")
    play(scenario, Theirs(scenario.config))


@pytest.mark.parametrize("scenario", [s for s in SCENARIOS if s.peer], ids=lambda scenario: scenario.promise)
def test_interlock_cb_differs_as_explained(scenario: Scenario) -> None:
    pytest.importorskip("interlock", reason="interlock-cb is not installed")
    with pytest.raises(AssertionError):
        play(scenario, Theirs(scenario.config))


def test_there_are_at_least_sixty_and_none_twice() -> None:
    promises = [scenario.promise for scenario in SCENARIOS]
    assert len(set(promises)) == len(promises) >= 60
    assert sum(scenario.peer is not None for scenario in SCENARIOS) >= 40
