"""Upstreams: what a service calls. Each has one policy and one breaker, and is counted, logged and shown.

The patterns report facts. Here they become metrics, log lines (for changes of state only), and the short memory that
`GET /v1/breakers` shows: the last errors and the last transitions of each breaker.

A service that has not answered yet, on any of its routes, is awaited for `WAITING_S`: see
`patterns/resilience/first_answer.py`.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random, SystemRandom
from typing import Any, Literal

from cotacoes.model.breakers import BreakerErrorJson, BreakerJson, BreakerWindowJson, TransitionJson
from cotacoes.model.quote import format_time
from cotacoes.observability.logs import get_logger
from cotacoes.observability.metrics import Metrics, ResilienceMetrics
from cotacoes.patterns.resilience import (
    AttemptEnded,
    BreakerState,
    CallSettled,
    CallVerdict,
    CircuitBreaker,
    CircuitBreakerConfig,
    Classification,
    FellBack,
    Outcome,
    ResilienceConfig,
    ResiliencePolicy,
    RetriesStopped,
    RetryConfig,
    StateTransition,
    classify,
)
from cotacoes.patterns.resilience.breaker_events import BreakerEvent, BreakerSnapshot
from cotacoes.patterns.resilience.first_answer import FirstAnswer
from cotacoes.patterns.resilience.policy import PolicyEvent

# for calls between the services of the system
INTERNAL_BREAKER = CircuitBreakerConfig(
    failure_rate_threshold=0.5,
    minimum_number_of_calls=50,
    consecutive_failures_threshold=5,
    wait_duration_in_open=1.0,  # a restart takes some two seconds
    wait_duration_multiplier=2.0,
    max_wait_duration_in_open=5.0,
    permitted_calls_in_half_open=1,
    max_wait_duration_in_half_open=10.0,
)
ATTEMPT_SHARE = 0.8  # of a call's time: an attempt that hangs must end by its own timeout to be evidence
WAITING_S = 30.0  # on a busy machine the first start of everything took 20 s
ERRORS_MAX = 5
WAIT_S_MAX = 60.0  # upper bound of a Retry-After, also if only an operator closes the circuit
TRANSITIONS_MAX = 20
SETTABLE: Mapping[BreakerState, Callable[[CircuitBreaker], None]] = {
    BreakerState.CLOSED: CircuitBreaker.reset,
    BreakerState.FORCED_OPEN: CircuitBreaker.force_open,
    BreakerState.DISABLED: CircuitBreaker.disable,
    BreakerState.METRICS_ONLY: CircuitBreaker.metrics_only,
}
_LOGGED = {
    BreakerState.CLOSED: "breaker.closed",
    BreakerState.OPEN: "breaker.opened",
    BreakerState.HALF_OPEN: "breaker.half_opened",
    BreakerState.FORCED_OPEN: "breaker.forced_open",
    BreakerState.DISABLED: "breaker.disabled",
    BreakerState.METRICS_ONLY: "breaker.set_aside",
}


@dataclass
class _Upstream:
    policy: ResiliencePolicy
    breaker: CircuitBreaker
    errors: deque[BreakerErrorJson] = field(default_factory=lambda: deque(maxlen=ERRORS_MAX))
    transitions: deque[TransitionJson] = field(default_factory=lambda: deque(maxlen=TRANSITIONS_MAX))
    is_refused: bool = False


class Upstreams:
    """The upstreams of one service. `clock` returns monotonic seconds, `now` the wall time.

    `waiting_s` is how long an upstream may take to start.
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        random: Random,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        waiting_s: float = WAITING_S,
    ) -> None:
        self._metrics = ResilienceMetrics(metrics)
        self._random = random
        self._clock = clock
        self._now = now
        self._waiting_s = waiting_s
        self._upstreams: dict[str, _Upstream] = {}
        self._services: dict[str, FirstAnswer] = {}

    @property
    def names(self) -> list[str]:
        """The names, as `SERVICE.ROUTE`."""
        return list(self._upstreams)

    def add(
        self,
        name: str,
        breaker: CircuitBreakerConfig,
        policy: ResilienceConfig,
        *,
        classify: Callable[[BaseException], Classification] = classify,
        **companions: Any,
    ) -> ResiliencePolicy:
        """Add an upstream and return its policy; `companions` are those of ResiliencePolicy."""
        first_answer = self._first_answer(_service_of(name))
        its_breaker = CircuitBreaker(name, breaker, clock=self._clock, random=self._random, on_event=self._on_breaker)
        its_policy = ResiliencePolicy(
            name,
            policy,
            clock=self._clock,
            random=self._random,
            breaker=its_breaker,
            classify=lambda error: first_answer.classified(error, classify(error)),
            on_event=self._on_policy,
            **companions,
        )
        self._upstreams[name] = _Upstream(its_policy, its_breaker)
        self._show_state(name, its_breaker.state)
        self._metrics.retry_budget.labels(upstream=name).set_function(lambda: its_policy.budget.saved)
        return its_policy

    def set_state(self, name: str, state: BreakerState) -> None:
        """Force, disable or reset a breaker; KeyError for an unknown name or a state that cannot be set."""
        SETTABLE[state](self._upstreams[name].breaker)

    def described(self) -> list[BreakerJson]:
        """The breakers as `GET /v1/breakers` shows them."""
        return [self.describe(name) for name in self._upstreams]

    def describe(self, name: str) -> BreakerJson:
        """The breaker of one upstream; KeyError for an unknown name."""
        upstream = self._upstreams[name]
        config, seen = upstream.breaker.config, upstream.breaker.metrics()
        return BreakerJson(
            name=name,
            state=seen.state.value,
            generation=seen.generation,
            retry_after_s=_finite(seen.retry_after),
            is_awaited=self._first_answer(_service_of(name)).is_awaited,
            next_call=_next_call(seen),
            window=BreakerWindowJson(
                config.sliding_window_type,
                config.sliding_window_size,
                seen.calls,
                seen.failures,
                seen.slow_calls,
                seen.overdue,
                seen.failure_rate,
                seen.slow_call_rate,
            ),
            consecutive_failures=seen.consecutive_failures,
            not_permitted=seen.not_permitted,
            retry_budget=round(upstream.policy.budget.saved, 3),
            last_errors=list(reversed(upstream.errors)),
            transitions=list(reversed(upstream.transitions)),
        )

    def _time(self, at: float) -> str:
        """The wall time of a moment of the clock."""
        return format_time(self._now() - timedelta(seconds=self._clock() - at))

    def _first_answer(self, service: str) -> FirstAnswer:
        if service not in self._services:
            self._services[service] = FirstAnswer(
                self._waiting_s,
                clock=self._clock,
                on_missing=lambda waited_s: get_logger().warning(
                    "service.missing", missing=service, waited_s=round(waited_s, 1)
                ),
            )
        return self._services[service]

    def _on_breaker(self, event: BreakerEvent) -> None:
        upstream = self._upstreams[event.name]
        if isinstance(event, CallSettled):
            if event.verdict is CallVerdict.SUCCESS:
                self._first_answer(_service_of(event.name)).note_answer()
            if event.slow:
                self._metrics.slow_calls.labels(upstream=event.name).inc()
            if event.verdict is CallVerdict.FAILURE and event.error is not None:
                upstream.errors.append(BreakerErrorJson(self._time(event.at), _without_addresses(event.error)))
        elif isinstance(event, StateTransition):
            upstream.transitions.append(
                TransitionJson(self._time(event.at), event.from_state.value, event.to_state.value, event.reason.value)
            )
            self._show_state(event.name, event.to_state)
            self._metrics.breaker_transitions.labels(
                upstream=event.name, to_state=event.to_state.value, reason=event.reason.value
            ).inc()
            self._log(event, upstream.breaker)

    def _show_state(self, name: str, state: BreakerState) -> None:
        for one in BreakerState:
            self._metrics.breaker_state.labels(upstream=name, state=one.value).set(one is state)

    def _log(self, event: StateTransition, breaker: CircuitBreaker) -> None:
        facts: dict[str, Any] = {"upstream": event.name, "reason": event.reason.value}
        if event.to_state is BreakerState.OPEN:
            seen = breaker.metrics()
            facts |= {"failures": seen.failures, "retry_after_s": round(seen.retry_after or 0.0, 1)}
        get_logger().info(_LOGGED[event.to_state], **facts)

    def _on_policy(self, event: PolicyEvent) -> None:
        if isinstance(event, AttemptEnded):
            self._metrics.outbound_calls.labels(upstream=event.name, outcome=event.outcome).inc()
            if event.attempt > 1 and event.outcome != "not_permitted":
                self._metrics.retries.labels(upstream=event.name).inc()
            self._note_refusal(event)
        elif isinstance(event, RetriesStopped):
            self._metrics.retries_stopped.labels(upstream=event.name, reason=event.reason.value).inc()
        elif isinstance(event, FellBack):
            self._metrics.fallbacks.labels(upstream=event.name, reason=event.reason).inc()
            if event.age is not None:
                self._metrics.fallback_age.labels(upstream=event.name).observe(event.age)

    def _note_refusal(self, event: AttemptEnded) -> None:
        """Log that an upstream refuses our calls, since a wrong question opens no breaker."""
        upstream = self._upstreams[event.name]
        is_refused = event.outcome == Outcome.REFUSED
        if is_refused and not upstream.is_refused:
            get_logger().warning("call.refused", upstream=event.name)
        if is_refused or event.outcome == Outcome.OK:
            upstream.is_refused = is_refused


def new_upstreams(metrics: Metrics) -> Upstreams:
    """Upstreams using the real clocks and system randomness."""
    return Upstreams(metrics, random=SystemRandom(), clock=time.monotonic, now=lambda: datetime.now(UTC))


def internal_policy(deadline_s: float, attempts: int = 1) -> ResilienceConfig:
    """The policy of one service towards another: `deadline_s` for the whole call, most of it for its attempts."""
    return ResilienceConfig(
        deadline=deadline_s,
        attempt_timeout=deadline_s * ATTEMPT_SHARE / attempts,
        retry=RetryConfig(max_attempts=attempts),
    )


def _service_of(name: str) -> str:
    return name.partition(".")[0]


def _next_call(seen: BreakerSnapshot) -> Literal["made", "probe", "refused"]:
    """What happens to the next call."""
    if seen.state is BreakerState.FORCED_OPEN or seen.retry_after is not None:
        return "refused"
    return "probe" if seen.state in (BreakerState.OPEN, BreakerState.HALF_OPEN) else "made"


def _without_addresses(error: str) -> str:
    """The class and the text of an error, without what an operating system or a library added after a colon."""
    kind, _, text = error.partition(": ")
    return f"{kind}: {text.partition(':')[0]}" if text else kind


def _finite(seconds: float | None) -> float | None:
    return None if seconds is None or seconds == math.inf else round(seconds, 3)
