"""Calls that fail: circuit breaker, retry, deadline, bulkhead, single-flight and fallback, and one policy of them all.

Clock and randomness are passed in. What is named here can be used without the rest of the system.
"""

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
