"""interlock-cb's state machine behind our words, so that the conformance suite can be played on it.

It is fed as its own call layer feeds it, and nothing of ours is made up for it: what it cannot express is refused by
name. The machine stands in a private module of its package, whose public class reads a duration off its own clock.
"""

from __future__ import annotations

import math
from typing import Any

from cotacoes.patterns.resilience import BreakerState, CircuitBreakerConfig

RENAMED = {  # ours to theirs, if the meaning is the same
    "failure_rate_threshold": "failure_rate_threshold",
    "minimum_number_of_calls": "minimum_number_of_calls",
    "sliding_window_size": "window_size",
    "slow_call_rate_threshold": "slow_call_rate_threshold",
    "permitted_calls_in_half_open": "permitted_calls_in_half_open",
    "wait_duration_in_open": "wait_duration_in_open",
    "wait_duration_multiplier": "wait_duration_backoff_multiplier",
    "max_wait_duration_in_open": "wait_duration_in_open_max",
}
SHOWN = {
    "calls": "total_calls",
    "failures": "failed_calls",
    "slow": "slow_calls",
    "failure_rate": "failure_rate",
    "slow_call_rate": "slow_call_rate",
}


class LackingError(Exception):
    """interlock-cb has no such thing."""

    def __init__(self, feature: str) -> None:
        super().__init__(feature)
        self.feature = feature


def refuse_what_is_lacking(config: CircuitBreakerConfig) -> None:
    lacking = {
        "consecutive_failures_threshold": config.consecutive_failures_threshold is not None,
        "failure_rate_threshold": config.failure_rate_threshold is None,
        "wait_duration_jitter": config.wait_duration_jitter > 0,
        "initial_state": config.initial_state in {BreakerState.OPEN, BreakerState.HALF_OPEN},
    }
    for feature, is_asked_for in lacking.items():
        if is_asked_for:
            raise LackingError(feature)


class Interlock:
    def __init__(self, given: dict[str, Any], now: float) -> None:
        from interlock._state_machine import StateMachine
        from interlock.config import Config
        from interlock.outcome import Outcome
        from interlock.state import State as TheirState
        from interlock.window import WindowType

        self.now = now
        initial = given.get("initial_state", "closed")
        ours = CircuitBreakerConfig(**{"wait_duration_jitter": 0.0, **given, "initial_state": BreakerState(initial)})
        refuse_what_is_lacking(ours)
        self.outcomes = Outcome
        self.slow_after = ours.slow_call_duration_threshold or math.inf
        is_count = ours.sliding_window_type == "count"
        config = Config(
            window_type=WindowType.COUNT_BASED if is_count else WindowType.TIME_BASED,
            slow_call_duration_threshold=self.slow_after,
            max_concurrent_probes=ours.max_concurrent_calls_in_half_open or ours.permitted_calls_in_half_open,
            **{theirs: getattr(ours, name) for name, theirs in RENAMED.items()},
        )
        self.machine = StateMachine(config=config, clock=self, initial_state=TheirState(initial))
        self.first_generation = self.machine.generation

    def monotonic(self) -> float:
        """Their name for a clock."""
        return self.now

    def take(self) -> tuple[int, float] | None:
        return (self.machine.generation, self.now) if self.machine.acquire() else None

    def settle(self, permit: tuple[int, float], verdict: str) -> bool:
        generation, started = permit
        if verdict == "ignored":
            self.machine.release_probe(generation=generation)
            return False
        counts: bool = generation == self.machine.generation and self.machine.state.value != "disabled"
        is_slow = self.now - started >= self.slow_after
        words = ("SLOW_" if is_slow else "") + ("FAILURE" if verdict == "fail" else "SUCCESS")
        self.machine.record(self.outcomes[words], generation=generation)
        return counts

    def say(self, word: str, *arguments: float) -> None:
        if not hasattr(self.machine, word):
            raise LackingError(word)
        getattr(self.machine, word)(*arguments)

    def look(self, what: str) -> Any:
        if what == "state":
            return self.machine.state.value
        if what == "generation":
            return self.machine.generation - self.first_generation
        if what == "retry_after":
            return self.machine.retry_after()
        if what not in SHOWN:
            raise LackingError(what)
        return getattr(self.machine.snapshot(), SHOWN[what])
