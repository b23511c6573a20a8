"""The four patterns and their companions: pure rules, no network, no framework; clock and random are passed in.

What is named here can be used without the rest of the system.
"""

from cotacoes.patterns.breaker_config import CircuitBreakerConfig as CircuitBreakerConfig
from cotacoes.patterns.breaker_config import State as State
from cotacoes.patterns.breaker_events import TRANSITIONS as TRANSITIONS
from cotacoes.patterns.breaker_events import CallNotPermitted as CallNotPermitted
from cotacoes.patterns.breaker_events import CallSettled as CallSettled
from cotacoes.patterns.breaker_events import CircuitOpenError as CircuitOpenError
from cotacoes.patterns.breaker_events import Reason as Reason
from cotacoes.patterns.breaker_events import Snapshot as Snapshot
from cotacoes.patterns.breaker_events import StateTransition as StateTransition
from cotacoes.patterns.breaker_events import Verdict as Verdict
from cotacoes.patterns.bulkhead import Bulkhead as Bulkhead
from cotacoes.patterns.bulkhead import BulkheadFullError as BulkheadFullError
from cotacoes.patterns.circuit_breaker import CircuitBreaker as CircuitBreaker
from cotacoes.patterns.circuit_breaker import Permit as Permit
from cotacoes.patterns.classification import OUTCOMES as OUTCOMES
from cotacoes.patterns.classification import Classification as Classification
from cotacoes.patterns.classification import Outcome as Outcome
from cotacoes.patterns.classification import classify as classify
from cotacoes.patterns.classification import outcome_of_status as outcome_of_status
from cotacoes.patterns.deadline import CallDeadlineError as CallDeadlineError
from cotacoes.patterns.deadline import Deadline as Deadline
from cotacoes.patterns.deadline import current_deadline as current_deadline
from cotacoes.patterns.fallback import LastGood as LastGood
from cotacoes.patterns.gather_result import Branch as Branch
from cotacoes.patterns.gather_result import GatherResult as GatherResult
from cotacoes.patterns.gather_result import IncompleteError as IncompleteError
from cotacoes.patterns.gather_result import Status as Status
from cotacoes.patterns.resilience import AttemptTimeoutError as AttemptTimeoutError
from cotacoes.patterns.resilience import CallResult as CallResult
from cotacoes.patterns.resilience import FellBack as FellBack
from cotacoes.patterns.resilience import ResilienceConfig as ResilienceConfig
from cotacoes.patterns.resilience import ResiliencePolicy as ResiliencePolicy
from cotacoes.patterns.resilience import Source as Source
from cotacoes.patterns.retry import AttemptEnded as AttemptEnded
from cotacoes.patterns.retry import RetriesStopped as RetriesStopped
from cotacoes.patterns.retry import RetryConfig as RetryConfig
from cotacoes.patterns.retry import StopReason as StopReason
from cotacoes.patterns.retry_budget import RetryBudget as RetryBudget
from cotacoes.patterns.single_flight import FlightLostError as FlightLostError
from cotacoes.patterns.single_flight import SingleFlight as SingleFlight
