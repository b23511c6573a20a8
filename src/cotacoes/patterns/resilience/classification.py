"""Classification: what the end of a call shows about the upstream, and whether to try again.

A call over HTTP ends with one of the outcomes of this table; an error names it in `outcome`, and the wait that the
upstream asked for in `retry_after_s`. The table is the whole decision; a caller with other needs passes its own
function.

    outcome           when                                             verdict   try again?
    ok                an answer that can be used                       success
    refused           a 4xx: the question was wrong, not the upstream  ignored   no
    gone              a healthy upstream no longer has what was asked  success   no
    throttled         429                                              failure   yes, after Retry-After
    unavailable       503, 408                                         failure   yes, after Retry-After
    server_error      any other 5xx                                    failure   yes
    redirected        3xx: that address is not configured              failure   no
    unreachable       no connection                                    failure   yes
    timed_out         no complete answer in the attempt's time; 504    failure   yes
    cut               the answer broke off                             failure   yes
    malformed         a complete answer that is not what was asked     failure   no
    oversized         more bytes than the limit, counted decoded       failure   no
    encoded           encoded although `identity` was asked for        failure   no
    caller_deadline   the caller's own deadline has passed             ignored   no
    cancelled         the caller has left                              ignored   no

*Slow* is not an outcome: it depends on the duration alone (`slow_call_duration_threshold`).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cotacoes.patterns.resilience.breaker_events import CallVerdict
from cotacoes.patterns.resilience.deadline import CallDeadlineError


class Outcome(enum.StrEnum):
    """How a call over HTTP ended."""

    OK = "ok"
    REFUSED = "refused"
    GONE = "gone"
    THROTTLED = "throttled"
    UNAVAILABLE = "unavailable"
    SERVER_ERROR = "server_error"
    REDIRECTED = "redirected"
    UNREACHABLE = "unreachable"
    TIMED_OUT = "timed_out"
    CUT = "cut"
    MALFORMED = "malformed"
    OVERSIZED = "oversized"
    ENCODED = "encoded"
    CALLER_DEADLINE = "caller_deadline"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Classification:
    """What a call showed. `retry_after` is the wait that the upstream asked for, in s; `outcome` is for counting."""

    verdict: CallVerdict
    retryable: bool = False
    retry_after: float | None = None
    outcome: str = Outcome.OK


Classify = Callable[[BaseException], Classification]

OUTCOMES: Mapping[Outcome, tuple[CallVerdict, bool]] = {
    Outcome.OK: (CallVerdict.SUCCESS, False),
    Outcome.REFUSED: (CallVerdict.IGNORED, False),
    Outcome.GONE: (CallVerdict.SUCCESS, False),
    Outcome.THROTTLED: (CallVerdict.FAILURE, True),
    Outcome.UNAVAILABLE: (CallVerdict.FAILURE, True),
    Outcome.SERVER_ERROR: (CallVerdict.FAILURE, True),
    Outcome.REDIRECTED: (CallVerdict.FAILURE, False),
    Outcome.UNREACHABLE: (CallVerdict.FAILURE, True),
    Outcome.TIMED_OUT: (CallVerdict.FAILURE, True),
    Outcome.CUT: (CallVerdict.FAILURE, True),
    Outcome.MALFORMED: (CallVerdict.FAILURE, False),
    Outcome.OVERSIZED: (CallVerdict.FAILURE, False),
    Outcome.ENCODED: (CallVerdict.FAILURE, False),
    Outcome.CALLER_DEADLINE: (CallVerdict.IGNORED, False),
    Outcome.CANCELLED: (CallVerdict.IGNORED, False),
}


def outcome_of_status(status: int) -> Outcome:
    """The outcome of a complete answer, by its status alone."""
    if status == 429:
        return Outcome.THROTTLED
    if status in (503, 408):
        return Outcome.UNAVAILABLE
    if status == 504:
        return Outcome.TIMED_OUT
    if status >= 500:
        return Outcome.SERVER_ERROR
    if status >= 400:
        return Outcome.REFUSED
    if status >= 300:
        return Outcome.REDIRECTED
    return Outcome.OK if status >= 200 else Outcome.MALFORMED


def classify(error: BaseException) -> Classification:
    """Classify an error by its `outcome` if it has one of these, otherwise by its type.

    Cancellation and the caller's deadline show nothing. Any other Exception is a failure, since the upstream has not
    answered; another attempt is worthwhile only if the error comes from the network.
    """
    outcome = _outcome_of(error)
    if outcome is None:
        return Classification(CallVerdict.FAILURE, outcome=type(error).__name__)
    verdict, retryable = OUTCOMES[outcome]
    return Classification(verdict, retryable, getattr(error, "retry_after_s", None), outcome)


def _outcome_of(error: BaseException) -> Outcome | None:
    if not isinstance(error, Exception):  # first: no attribute of an error may hide that the call was cancelled
        return Outcome.CANCELLED
    try:
        return Outcome(error.outcome)  # type: ignore[attr-defined]
    except (AttributeError, ValueError):
        pass  # not one of ours: errors of other libraries may have an attribute of this name
    if isinstance(error, CallDeadlineError):
        return Outcome.CALLER_DEADLINE
    if isinstance(error, TimeoutError):
        return Outcome.TIMED_OUT
    return Outcome.UNREACHABLE if isinstance(error, OSError) else None
