"""What a circuit breaker does, as data: a configuration, steps, and the state after them. Here: closed circuits.

A step is one of

    ok N, fail N, ignored N          so many calls that end at once (N may be left out)
    call S VERDICT                   a call that takes S seconds
    take NAME, refused               a permit is given, or not
    settle NAME VERDICT              its call ends; an ok or a fail counts, an ignored one does not
    late NAME VERDICT                its call ends and changes nothing
    uncounted VERDICT N              so many calls that end at once, are let through and count nowhere
    wait S, open_for S, reset, force_open, disable, metrics_only
    state NAME, retry_after S|none|never, generation N, calls N, failures N, slow N, overdue N, not_permitted N,
    ignored_calls N, late_calls N, failure_rate R|none, slow_call_rate R|none, in_a_row N
    changes N, reason NAME, at S     how many changes of state a listener heard of; of the last one: why, and when

Time begins at 1,000 s, of which `at` does not know; the wait has no jitter unless a scenario gives one. The other
scenarios are in `harness_breaker_scenarios_open.py`, `…_half_open.py` and `…_set.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Same:
    """interlock-cb behaves the same."""


@dataclass(frozen=True)
class Differs:
    """interlock-cb has the features and behaves differently, first at the step `at`."""

    at: str
    why: str


@dataclass(frozen=True)
class Lacks:
    """interlock-cb has no such setting, step or figure."""

    feature: str


@dataclass(frozen=True)
class Scenario:
    """`promise` is what it shows; `steps` are separated by commas; `dice` are what random gives, from 0 to 1."""

    promise: str
    config: dict[str, Any]
    steps: str
    peer: Same | Differs | Lacks = Same()
    dice: tuple[float, ...] = ()


NO_CAP = "it does not lower the minimum to the size of the window: such a circuit never opens"
SLOW_AT = "it calls a call slow that takes exactly the threshold"
SLOW_ENDS = "a call counts as slow when it has ended: what hangs for ever is never seen"
COUNTS_TWICE = "its machine takes a second result of the same call for another call"
RATE_OF_FEW = "it shows a rate of however few calls"
ROW_LACKS = Lacks("consecutive_failures_threshold")
OVERDUE_LACKS = Lacks("overdue")
REASON_LACKS = Lacks("reason")

RATE = {"minimum_number_of_calls": 4, "sliding_window_size": 10}
ALL_FAIL = {**RATE, "failure_rate_threshold": 1.0}
ROW = {"failure_rate_threshold": None, "consecutive_failures_threshold": 3}
SLOW = {**ALL_FAIL, "slow_call_duration_threshold": 2.0}
HALF_SLOW = {**SLOW, "slow_call_rate_threshold": 0.5}
TIMED = {"minimum_number_of_calls": 4, "sliding_window_type": "time", "sliding_window_size": 10}
TIMED_SLOW = {**TIMED, "failure_rate_threshold": 1.0, "slow_call_duration_threshold": 2.0}

FAILURE_RATE = [
    Scenario("a new circuit is closed", RATE, "state closed, retry_after none, generation 0, calls 0"),
    Scenario("good calls leave it closed", RATE, "ok 50, state closed, calls 10, failures 0"),
    Scenario("reached is enough: half of four", RATE, "ok 2, fail 1, state closed, fail 1, state open"),
    Scenario("below the threshold it stays closed", RATE, "ok 3, fail 1, state closed, fail 1, state closed"),
    Scenario("below the minimum no rate is judged", RATE, "fail 3, state closed"),
    Scenario("the minimum itself is enough", RATE, "fail 3, fail 1, state open"),
    Scenario("a success can be the call that reaches the minimum", RATE, "fail 3, ok 1, state open"),
    Scenario(
        "a share is not multiplied: three of thirty are a tenth",
        {"failure_rate_threshold": 0.1, "minimum_number_of_calls": 30, "sliding_window_size": 30},
        "ok 27, fail 2, state closed, fail 1, state open",
    ),
    Scenario("a threshold of 1 means all of them", ALL_FAIL, "ok 1, fail 9, state closed, fail 1, state open"),
    Scenario("ignored calls are no calls", RATE, "ignored 50, state closed, calls 0, fail 3, ignored 9, state closed"),
    Scenario(
        "a call counts once however often it is settled",
        RATE,
        "take a, settle a fail, late a fail, late a ok, late a ignored, calls 1, failures 1",
        Differs("late a fail", COUNTS_TWICE),
    ),
    Scenario(
        "an ignored call stays ignored",
        RATE,
        "take a, settle a ignored, late a fail, calls 0, failures 0",
        Differs("late a fail", COUNTS_TWICE),
    ),
    Scenario(
        "calls count in the order in which they end",
        RATE,
        "take a, take b, fail 2, settle b fail, settle a ok, state open",
    ),
]

WINDOWS = [
    Scenario(
        "old failures leave the count window",
        {**RATE, "minimum_number_of_calls": 10},
        "fail 4, ok 6, failures 4, ok 4, failures 0, fail 4, state closed, fail 1, state open",
    ),
    Scenario("the count window holds no more than its size", RATE, "ok 25, calls 10"),
    Scenario("time does not empty a count window", RATE, "fail 3, wait 100000, fail 1, state open"),
    Scenario(
        "a count window smaller than the minimum lowers it",
        {"minimum_number_of_calls": 100, "sliding_window_size": 4},
        "fail 3, state closed, fail 1, state open",
        Differs("state open", NO_CAP),
    ),
    Scenario("a window of one", {"minimum_number_of_calls": 1, "sliding_window_size": 1}, "ok 5, fail 1, state open"),
    Scenario("calls leave the time window by age", TIMED, "fail 3, wait 10, calls 0, fail 3, state closed"),
    Scenario("calls stay in the time window till then", TIMED, "fail 3, wait 9, calls 3, fail 1, state open"),
    Scenario("a second is a bucket", TIMED, "fail 1, wait 0.75, fail 1, wait 9, calls 2, wait 0.25, calls 0"),
    Scenario("the minimum is not lowered by a time window", TIMED | {"sliding_window_size": 2}, "fail 3, state closed"),
    Scenario("a long pause empties the time window once", TIMED, "ok 9, wait 100000, calls 0, ok 1, calls 1"),
    Scenario("the time window slides", TIMED, "ok 1, wait 5, ok 1, wait 5, calls 1, wait 5, calls 0"),
    Scenario(
        "the rate is of what the time window still holds",
        TIMED,
        "ok 4, wait 5, fail 3, state closed, wait 5, fail 1, state open",
    ),
    Scenario("a time window holds any number of calls", TIMED, "ok 500, wait 9, ok 500, calls 1000, wait 1, calls 500"),
]

IN_A_ROW = [
    Scenario("failures in a row open it", ROW, "fail 2, state closed, fail 1, state open", ROW_LACKS),
    Scenario("a success between them begins the row anew", ROW, "fail 2, ok 1, fail 2, state closed", ROW_LACKS),
    Scenario("an ignored call between them does not", ROW, "fail 2, ignored 5, fail 1, state open", ROW_LACKS),
    Scenario(
        "failures apart do not open it without a rate", ROW, "fail 2, ok 1, fail 2, ok 1, state closed", ROW_LACKS
    ),
    Scenario(
        "both rules apply side by side",
        {**RATE, "consecutive_failures_threshold": 2},
        "ok 8, fail 2, state open",
        ROW_LACKS,
    ),
    Scenario(
        "a row is not broken by the age of its failures",
        {**TIMED, "consecutive_failures_threshold": 3},
        "fail 1, wait 100, fail 1, in_a_row 2, wait 100, fail 1, state open",
        ROW_LACKS,
    ),
    Scenario(
        "a row may be longer than the window",
        {**RATE, "failure_rate_threshold": None, "sliding_window_size": 2, "consecutive_failures_threshold": 4},
        "fail 3, state closed, in_a_row 3, fail 1, state open",
        ROW_LACKS,
    ),
]

SLOW_CALLS = [
    Scenario(
        "slow means longer",
        SLOW,
        "call 2 ok, call 2 ok, call 2 ok, call 2 ok, state closed, slow 0",
        Differs("state closed", SLOW_AT),
    ),
    Scenario("slow calls open it", SLOW, "call 3 ok, call 3 ok, call 3 ok, state closed, call 3 ok, state open"),
    Scenario("a slow call that fails is both", HALF_SLOW, "ok 3, call 3 fail, slow 1, failures 1, state closed"),
    Scenario(
        "the share of slow calls is reached at once",
        HALF_SLOW,
        "ok 2, call 3 ok, state closed, call 3 ok, state open",
    ),
    Scenario("below the minimum no slowness is judged", HALF_SLOW, "call 3 ok, call 3 ok, call 3 ok, state closed"),
    Scenario("slow ignored calls are no calls", SLOW, "call 9 ignored, call 9 ignored, calls 0, slow 0"),
    Scenario("without a threshold nothing is slow", RATE, "call 1000 ok, call 1000 ok, slow 0, state closed"),
    Scenario("slow calls leave the count window", HALF_SLOW, "ok 8, call 3 ok, call 3 ok, slow 2, ok 9, slow 1"),
    Scenario(
        "slow calls leave the time window",
        {**TIMED_SLOW, "minimum_number_of_calls": 9},
        "call 3 ok, call 3 ok, slow 2, wait 6, slow 2, wait 1, slow 1, wait 3, slow 0, calls 0",
    ),
    Scenario(
        "what hangs opens the circuit before it has ended",
        SLOW,
        "take a, take b, take c, take d, wait 2.25, refused, state open, overdue 4",
        Differs("refused", SLOW_ENDS),
    ),
    Scenario(
        "calls under way that are not overdue are no calls",
        SLOW,
        "take a, take b, take c, take d, calls 0, wait 1, take e, calls 0, state closed",
    ),
    Scenario(
        "exactly the threshold is not overdue",
        SLOW,
        "take a, take b, take c, take d, wait 2, take e, overdue 0",
        OVERDUE_LACKS,
    ),
    Scenario(
        "overdue calls are weighed together with those that ended",
        HALF_SLOW,
        "ok 2, call 3 ok, take a, wait 3, refused, state open",
        Differs("refused", SLOW_ENDS),
    ),
    Scenario(
        "an overdue call is weighed when another ends",
        HALF_SLOW,
        "ok 2, take a, take b, wait 3, settle a ok, state open, slow 1, overdue 1",
        Differs("state open", SLOW_ENDS),
    ),
    Scenario(
        "an overdue call is not weighed with slow ones that have left the time window",
        TIMED_SLOW,
        "call 3 ok, call 3 ok, call 3 ok, take a, wait 20, take b, state closed",
    ),
    Scenario(
        "what hangs is not hidden by good calls that have left the time window",
        TIMED_SLOW,
        "ok 20, wait 20, take a, take b, take c, take d, wait 3, refused, state open",
        Differs("refused", SLOW_ENDS),
    ),
    Scenario(
        "an overdue call counts once, before and after its end",
        SLOW,
        "ok 3, take a, wait 3, take b, overdue 1, slow 0, settle a ok, overdue 0, slow 1, calls 4",
        OVERDUE_LACKS,
    ),
    Scenario(
        "an overdue call that is cancelled counts no more",
        SLOW,
        "ok 3, take a, wait 3, take b, overdue 1, settle a ignored, overdue 0, slow 0, calls 3",
        OVERDUE_LACKS,
    ),
    Scenario(
        "each call is overdue in its own time",
        SLOW,
        "take a, wait 1, take b, wait 1.5, overdue 1, wait 1, overdue 2, settle a ok, overdue 1",
        OVERDUE_LACKS,
    ),
    Scenario(
        "a call that ends in time is never overdue",
        SLOW,
        "take a, wait 1, take b, settle a ok, wait 3, overdue 1, slow 0",
        OVERDUE_LACKS,
    ),
]

SEEN = [
    Scenario(
        "no rate is shown of too few",
        ALL_FAIL,
        "fail 3, failure_rate none, ok 1, failure_rate 0.75",
        Differs("failure_rate none", RATE_OF_FEW),
    ),
    Scenario(
        "the rate is of the window",
        ALL_FAIL,
        "ok 5, fail 5, failure_rate 0.5, ok 5, failure_rate 0.5, ok 5, failure_rate 0",
    ),
    Scenario("the share of slow calls is shown", HALF_SLOW, "ok 6, call 3 ok, call 3 ok, slow_call_rate 0.25"),
    Scenario(
        "overdue calls are in the share of slow ones",
        HALF_SLOW,
        "ok 3, take a, wait 3, slow_call_rate 0.25, settle a ok, slow_call_rate 0.25",
        Differs("slow_call_rate 0.25", SLOW_ENDS),
    ),
    Scenario(
        "ignored and late calls are counted apart",
        RATE,
        "ignored 2, take a, reset, late a ok, ignored_calls 2, late_calls 1, calls 0",
        Lacks("ignored_calls"),
    ),
    Scenario("the failure rate is named as the reason", RATE, "fail 4, reason failure_rate, changes 1", REASON_LACKS),
    Scenario(
        "slowness is named as the reason",
        SLOW,
        "call 3 ok, call 3 ok, call 3 ok, call 3 ok, reason slow_call_rate, at 12",
        REASON_LACKS,
    ),
    Scenario(
        "what hangs is named as slow",
        SLOW,
        "take a, take b, take c, take d, wait 3, refused, reason slow_call_rate, at 3",
        Differs("refused", SLOW_ENDS),
    ),
    Scenario("the row is named as the reason", ROW, "wait 2, fail 3, reason consecutive_failures, at 2", ROW_LACKS),
    Scenario(
        "of two reasons the failure rate is named",
        {**SLOW, "consecutive_failures_threshold": 4},
        "call 3 fail, call 3 fail, call 3 fail, call 3 fail, reason failure_rate, changes 1",
        ROW_LACKS,
    ),
]

CLOSED_SCENARIOS = FAILURE_RATE + WINDOWS + IN_A_ROW + SLOW_CALLS + SEEN
