"""The breaker against a plain model: lists instead of rings, all computed anew, the same answers at every step."""

import math
import random
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cotacoes.patterns import CircuitBreaker, CircuitBreakerConfig, Permit, Verdict

SHARES = st.sampled_from([0.1, 0.25, 0.5, 0.75, 1.0])
CONFIGS = st.fixed_dictionaries(
    {
        "failure_rate_threshold": st.none() | SHARES,
        "minimum_number_of_calls": st.integers(1, 6),
        "sliding_window_type": st.sampled_from(["count", "time"]),
        "sliding_window_size": st.integers(1, 6),
        "consecutive_failures_threshold": st.integers(1, 5),
        "slow_call_duration_threshold": st.none() | st.just(2.0),
        "slow_call_rate_threshold": SHARES,
        "wait_duration_in_open": st.just(4.0),
        "wait_duration_multiplier": st.sampled_from([1.0, 2.0]),
        "max_wait_duration_in_open": st.sampled_from([4.0, 10.0]),
        "wait_duration_jitter": st.just(0.0),
        "permitted_calls_in_half_open": st.integers(1, 4),
        "max_concurrent_calls_in_half_open": st.none() | st.just(1),
        "max_wait_duration_in_half_open": st.none() | st.just(6.0),
    }
)


@dataclass
class Call:
    """A call of the model."""

    started: float
    era: int
    is_settled: bool = False


@dataclass
class Model:
    """Everything that ever happened in this era, and rules read off the documentation one by one."""

    config: CircuitBreakerConfig
    now: float = 1000.0
    state: str = "closed"
    era: int = 0
    ended: list[tuple[float, bool, bool]] = field(default_factory=list)  # when, failed, slow
    out: list[Call] = field(default_factory=list)
    wait: float = 4.0
    open_until: float = 0.0
    half_open_since: float = 0.0

    def go(self, state: str) -> None:
        self.state, self.era = state, self.era + 1
        if state != "open":
            self.ended = []
        self.out = []

    def open(self, at: float, *, grows: bool) -> None:
        if grows:
            most = self.config.max_wait_duration_in_open or self.wait
            self.wait = min(self.wait * self.config.wait_duration_multiplier, most)
        self.open_until = at + self.wait
        self.go("open")

    def pass_time(self) -> None:
        limit = self.config.max_wait_duration_in_half_open
        if self.state == "half_open" and limit is not None and self.now >= self.half_open_since + limit:
            self.open(self.half_open_since + limit, grows=bool(self.out))

    def window(self) -> list[tuple[float, bool, bool]]:
        if self.state == "half_open":
            return self.ended
        size = self.config.sliding_window_size
        if self.config.sliding_window_type == "count":
            return self.ended[-size:]
        return [call for call in self.ended if int(call[0]) > int(self.now) - size]

    def overdue(self) -> int:
        slow = self.config.slow_call_duration_threshold
        return 0 if slow is None else sum(self.now - call.started > slow for call in self.out)

    def in_a_row(self) -> int:
        count = 0
        for _, failed, _ in reversed(self.ended):
            if not failed:
                break
            count += 1
        return count

    def judge(self) -> None:
        if self.state == "closed":
            self.judge_closed()
        elif self.state == "half_open":
            self.judge_probes()

    def judge_closed(self) -> None:
        config, window = self.config, self.window()
        failed = sum(call[1] for call in window)
        slow = sum(call[2] for call in window) + self.overdue()
        judged = len(window) + self.overdue()
        is_failing = (
            config.failure_rate_threshold is not None
            and len(window) >= config.calls_needed
            and failed
            and failed / len(window) >= config.failure_rate_threshold
        )
        is_slow = (
            config.slow_call_duration_threshold is not None
            and judged >= config.calls_needed
            and slow
            and slow / judged >= config.slow_call_rate_threshold
        )
        is_in_a_row = self.in_a_row() >= (config.consecutive_failures_threshold or math.inf)
        if is_failing or is_slow or (failed and is_in_a_row):
            self.open(self.now, grows=False)

    def judge_probes(self) -> None:
        """Every way in which the probes that are left could end is tried: certain is what they all agree on."""
        left = self.config.permitted_calls_in_half_open - len(self.ended)
        slow_now = self.overdue()
        verdicts = {
            self.verdict(failed, slow, left)
            for failed in range(left + 1)
            for slow in range(min(slow_now, left), left + 1)
        }
        row = self.in_a_row() >= (self.config.consecutive_failures_threshold or math.inf)
        if row or verdicts == {"open"}:
            self.open(self.now, grows=True)
        elif verdicts == {"closed"}:
            self.wait = self.config.wait_duration_in_open
            self.go("closed")

    def verdict(self, failed: int, slow: int, left: int) -> str:
        config = self.config
        failed += sum(call[1] for call in self.ended)
        slow += sum(call[2] for call in self.ended)
        total = len(self.ended) + left
        is_failing = (
            failed > 0 if config.failure_rate_threshold is None else failed / total >= config.failure_rate_threshold
        )
        is_slow = config.slow_call_duration_threshold is not None and slow / total >= config.slow_call_rate_threshold
        return "open" if is_failing or is_slow else "closed"

    def acquire(self) -> Call | None:
        self.pass_time()
        if self.state == "open":
            if self.now < self.open_until:
                return None
            self.go("half_open")
            self.half_open_since = self.now
        elif self.overdue():
            self.judge()
        if self.state == "open":
            return None
        if self.state == "half_open":
            config = self.config
            at_once = config.max_concurrent_calls_in_half_open or config.permitted_calls_in_half_open
            if len(self.out) >= at_once or len(self.out) + len(self.ended) >= config.permitted_calls_in_half_open:
                return None
        call = Call(self.now, self.era)
        self.out.append(call)
        return call

    def settle(self, call: Call, verdict: Verdict) -> bool:
        if call.is_settled:
            return False
        call.is_settled = True
        self.pass_time()
        if call.era != self.era:
            return False
        self.out.remove(call)
        if verdict is Verdict.IGNORED:
            return False
        slow = self.config.slow_call_duration_threshold
        is_slow = slow is not None and self.now - call.started > slow
        self.ended.append((self.now, verdict is Verdict.FAILURE, is_slow))
        self.judge()
        return True


class BreakerMachine(RuleBasedStateMachine):
    """Random configurations, and random steps on both."""

    @initialize(config=CONFIGS)
    def begin(self, config: dict[str, Any]) -> None:
        self.model = Model(CircuitBreakerConfig(**config))
        self.breaker = CircuitBreaker("model", self.model.config, clock=lambda: self.model.now, random=random.Random(1))
        self.calls: list[tuple[Permit, Call]] = []

    @rule()
    def take(self) -> None:
        permit, call = self.breaker.try_acquire(), self.model.acquire()
        assert (permit is None) == (call is None)
        if permit is not None and call is not None:
            self.calls.append((permit, call))

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), verdict=st.sampled_from([Verdict.SUCCESS, Verdict.FAILURE, Verdict.FAILURE, Verdict.IGNORED]))
    def settle(self, data: st.DataObject, verdict: Verdict) -> None:
        permit, call = self.calls[data.draw(st.integers(0, len(self.calls) - 1))]
        assert permit.settle(verdict) == self.model.settle(call, verdict)

    @rule(verdict=st.sampled_from([Verdict.SUCCESS, Verdict.FAILURE]))
    def call_at_once(self, verdict: Verdict) -> None:
        permit, call = self.breaker.try_acquire(), self.model.acquire()
        assert (permit is None) == (call is None)
        if permit is not None and call is not None:
            assert permit.settle(verdict) == self.model.settle(call, verdict)

    @rule(quarters=st.sampled_from([1, 4, 8, 9, 16, 24, 40]))
    def wait(self, quarters: int) -> None:
        self.model.now += quarters / 4

    @rule(seconds=st.sampled_from([1.0, 7.0]))
    def rest(self, seconds: float) -> None:
        self.breaker.open_for(seconds)
        until = self.model.now + seconds
        if self.model.state == "open":
            self.model.open_until = max(self.model.open_until, until)
        else:
            self.model.go("open")
            self.model.open_until = until

    @rule()
    def reset(self) -> None:
        self.breaker.reset()
        self.model.wait = self.model.config.wait_duration_in_open
        self.model.go("closed")

    @invariant()
    def they_agree(self) -> None:
        if not hasattr(self, "model"):
            return
        seen, model = self.breaker.metrics(), self.model
        assert (seen.state.value, seen.generation) == (model.state, model.era)
        if model.state == "open":
            left = model.open_until - model.now
            assert seen.retry_after == (left if left > 0 else None)
        else:
            window = model.window()
            assert seen.calls == len(window)
            assert seen.failures == sum(call[1] for call in window)
            assert seen.slow_calls == sum(call[2] for call in window)
            assert seen.overdue == model.overdue()


BreakerMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestBreaker = BreakerMachine.TestCase
