"""Calls that can fail: circuit breaker, retry, deadline, bulkhead, single-flight, fallback, and a policy of them all.

Clock and randomness are arguments. What is named here can be used without the rest of the system.
"""

from typing import TYPE_CHECKING

from cotacoes import load_when_used

if TYPE_CHECKING:
    from cotacoes.patterns.resilience.breaker_config import BreakerState, CircuitBreakerConfig
    from cotacoes.patterns.resilience.breaker_events import (
        TRANSITIONS,
        BreakerSnapshot,
        CallNotPermitted,
        CallSettled,
        CallVerdict,
        CircuitOpenError,
        StateTransition,
        TransitionReason,
    )
    from cotacoes.patterns.resilience.bulkhead import Bulkhead, BulkheadFullError
    from cotacoes.patterns.resilience.circuit_breaker import CircuitBreaker, Permit
    from cotacoes.patterns.resilience.classification import (
        OUTCOMES,
        Classification,
        Outcome,
        classify,
        outcome_of_status,
    )
    from cotacoes.patterns.resilience.deadline import CallDeadlineError, Deadline, current_deadline
    from cotacoes.patterns.resilience.fallback import LastGood
    from cotacoes.patterns.resilience.policy import (
        AttemptTimeoutError,
        CallResult,
        FellBack,
        ResilienceConfig,
        ResiliencePolicy,
        ServedFrom,
    )
    from cotacoes.patterns.resilience.retry import AttemptEnded, RetriesStopped, RetryConfig, StopReason
    from cotacoes.patterns.resilience.retry_budget import RetryBudget
    from cotacoes.patterns.resilience.single_flight import FlightLostError, SingleFlight

_NAMES = {
    "breaker_config": ["BreakerState", "CircuitBreakerConfig"],
    "breaker_events": [
        "TRANSITIONS",
        "BreakerSnapshot",
        "CallNotPermitted",
        "CallSettled",
        "CallVerdict",
        "CircuitOpenError",
        "StateTransition",
        "TransitionReason",
    ],
    "bulkhead": ["Bulkhead", "BulkheadFullError"],
    "circuit_breaker": ["CircuitBreaker", "Permit"],
    "classification": ["OUTCOMES", "Classification", "Outcome", "classify", "outcome_of_status"],
    "deadline": ["CallDeadlineError", "Deadline", "current_deadline"],
    "fallback": ["LastGood"],
    "policy": ["AttemptTimeoutError", "CallResult", "FellBack", "ResilienceConfig", "ResiliencePolicy", "ServedFrom"],
    "retry": ["AttemptEnded", "RetriesStopped", "RetryConfig", "StopReason"],
    "retry_budget": ["RetryBudget"],
    "single_flight": ["FlightLostError", "SingleFlight"],
}

if not TYPE_CHECKING:  # a type checker refuses a name that is not here
    __getattr__ = load_when_used(
        __name__, {name: f"{__name__}.{module}" for module, names in _NAMES.items() for name in names}
    )
