"""Calls that fail: circuit breaker, retry, deadline, bulkhead, single-flight and fallback, and one policy of them all.

Clock and randomness are passed in. What is named here can be used without the rest of the system.
"""

from typing import TYPE_CHECKING

from cotacoes import load_when_used

if TYPE_CHECKING:
    from cotacoes.patterns.resilience.breaker_config import BreakerState as BreakerState
    from cotacoes.patterns.resilience.breaker_config import CircuitBreakerConfig as CircuitBreakerConfig
    from cotacoes.patterns.resilience.breaker_events import TRANSITIONS as TRANSITIONS
    from cotacoes.patterns.resilience.breaker_events import BreakerSnapshot as BreakerSnapshot
    from cotacoes.patterns.resilience.breaker_events import CallNotPermitted as CallNotPermitted
    from cotacoes.patterns.resilience.breaker_events import CallSettled as CallSettled
    from cotacoes.patterns.resilience.breaker_events import CallVerdict as CallVerdict
    from cotacoes.patterns.resilience.breaker_events import CircuitOpenError as CircuitOpenError
    from cotacoes.patterns.resilience.breaker_events import StateTransition as StateTransition
    from cotacoes.patterns.resilience.breaker_events import TransitionReason as TransitionReason
    from cotacoes.patterns.resilience.bulkhead import Bulkhead as Bulkhead
    from cotacoes.patterns.resilience.bulkhead import BulkheadFullError as BulkheadFullError
    from cotacoes.patterns.resilience.circuit_breaker import CircuitBreaker as CircuitBreaker
    from cotacoes.patterns.resilience.circuit_breaker import Permit as Permit
    from cotacoes.patterns.resilience.classification import OUTCOMES as OUTCOMES
    from cotacoes.patterns.resilience.classification import Classification as Classification
    from cotacoes.patterns.resilience.classification import Outcome as Outcome
    from cotacoes.patterns.resilience.classification import classify as classify
    from cotacoes.patterns.resilience.classification import outcome_of_status as outcome_of_status
    from cotacoes.patterns.resilience.deadline import CallDeadlineError as CallDeadlineError
    from cotacoes.patterns.resilience.deadline import Deadline as Deadline
    from cotacoes.patterns.resilience.deadline import current_deadline as current_deadline
    from cotacoes.patterns.resilience.fallback import LastGood as LastGood
    from cotacoes.patterns.resilience.policy import AttemptTimeoutError as AttemptTimeoutError
    from cotacoes.patterns.resilience.policy import CallResult as CallResult
    from cotacoes.patterns.resilience.policy import FellBack as FellBack
    from cotacoes.patterns.resilience.policy import ResilienceConfig as ResilienceConfig
    from cotacoes.patterns.resilience.policy import ResiliencePolicy as ResiliencePolicy
    from cotacoes.patterns.resilience.policy import ServedFrom as ServedFrom
    from cotacoes.patterns.resilience.retry import AttemptEnded as AttemptEnded
    from cotacoes.patterns.resilience.retry import RetriesStopped as RetriesStopped
    from cotacoes.patterns.resilience.retry import RetryConfig as RetryConfig
    from cotacoes.patterns.resilience.retry import StopReason as StopReason
    from cotacoes.patterns.resilience.retry_budget import RetryBudget as RetryBudget
    from cotacoes.patterns.resilience.single_flight import FlightLostError as FlightLostError
    from cotacoes.patterns.resilience.single_flight import SingleFlight as SingleFlight

if not TYPE_CHECKING:  # a type checker refuses a name that is not here
    __getattr__ = load_when_used(
        __name__,
        {
            "BreakerState": "cotacoes.patterns.resilience.breaker_config",
            "CircuitBreakerConfig": "cotacoes.patterns.resilience.breaker_config",
            "TRANSITIONS": "cotacoes.patterns.resilience.breaker_events",
            "BreakerSnapshot": "cotacoes.patterns.resilience.breaker_events",
            "CallNotPermitted": "cotacoes.patterns.resilience.breaker_events",
            "CallSettled": "cotacoes.patterns.resilience.breaker_events",
            "CallVerdict": "cotacoes.patterns.resilience.breaker_events",
            "CircuitOpenError": "cotacoes.patterns.resilience.breaker_events",
            "StateTransition": "cotacoes.patterns.resilience.breaker_events",
            "TransitionReason": "cotacoes.patterns.resilience.breaker_events",
            "Bulkhead": "cotacoes.patterns.resilience.bulkhead",
            "BulkheadFullError": "cotacoes.patterns.resilience.bulkhead",
            "CircuitBreaker": "cotacoes.patterns.resilience.circuit_breaker",
            "Permit": "cotacoes.patterns.resilience.circuit_breaker",
            "OUTCOMES": "cotacoes.patterns.resilience.classification",
            "Classification": "cotacoes.patterns.resilience.classification",
            "Outcome": "cotacoes.patterns.resilience.classification",
            "classify": "cotacoes.patterns.resilience.classification",
            "outcome_of_status": "cotacoes.patterns.resilience.classification",
            "CallDeadlineError": "cotacoes.patterns.resilience.deadline",
            "Deadline": "cotacoes.patterns.resilience.deadline",
            "current_deadline": "cotacoes.patterns.resilience.deadline",
            "LastGood": "cotacoes.patterns.resilience.fallback",
            "AttemptTimeoutError": "cotacoes.patterns.resilience.policy",
            "CallResult": "cotacoes.patterns.resilience.policy",
            "FellBack": "cotacoes.patterns.resilience.policy",
            "ResilienceConfig": "cotacoes.patterns.resilience.policy",
            "ResiliencePolicy": "cotacoes.patterns.resilience.policy",
            "ServedFrom": "cotacoes.patterns.resilience.policy",
            "AttemptEnded": "cotacoes.patterns.resilience.retry",
            "RetriesStopped": "cotacoes.patterns.resilience.retry",
            "RetryConfig": "cotacoes.patterns.resilience.retry",
            "StopReason": "cotacoes.patterns.resilience.retry",
            "RetryBudget": "cotacoes.patterns.resilience.retry_budget",
            "FlightLostError": "cotacoes.patterns.resilience.single_flight",
            "SingleFlight": "cotacoes.patterns.resilience.single_flight",
        },
    )
