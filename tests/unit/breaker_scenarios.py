"""What a circuit breaker does, as data: a configuration, steps, and what must be so after them.

A step is one of

    ok N, fail N, ignored N          so many calls that end at once (N may be left out)
    call S VERDICT                   a call that takes S seconds
    take NAME, refused               a permit is given, or not
    settle NAME VERDICT              its call ends; an ok or a fail counts, an ignored one does not
    late NAME VERDICT                its call ends and changes nothing
    wait S, open_for S, reset, force_open, disable, metrics_only
    state NAME, retry_after S|none|never, generation N, calls N, failures N, slow N, overdue N, not_permitted N

Time begins at 1,000 s; the wait has no jitter unless a scenario gives one. `peer` is "" where interlock-cb does the
same, the reason where it does otherwise (that it does is tested as well), and None where it has no such thing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Scenario:
    """`promise` is what it shows; `steps` are separated by commas."""

    promise: str
    config: dict[str, Any]
    steps: str
    peer: str | None = ""


NO_CAP = "interlock-cb does not lower the minimum to the size of the window: such a circuit never opens"
DECIDES_LATE = "interlock-cb waits for all permitted probes, also when the outcome is certain"
SLOW_AT = "interlock-cb calls a call slow that takes exactly the threshold"
KEEPS_FORCED = "interlock-cb keeps the window's calls when a person changes the state; here each state begins its own"

RATE = {"minimum_number_of_calls": 4, "sliding_window_size": 10}
ROW = {"failure_rate_threshold": None, "consecutive_failures_threshold": 3}
SLOW = {"failure_rate_threshold": None, "slow_call_duration_threshold": 2.0, **RATE}
PROBES = {**RATE, "wait_duration_in_open": 5.0, "permitted_calls_in_half_open": 4}
ONE_PROBE = {**RATE, "wait_duration_in_open": 5.0, "permitted_calls_in_half_open": 1}
GROWING = {**ONE_PROBE, "wait_duration_multiplier": 2.0, "max_wait_duration_in_open": 15.0}
LIMITED = {**GROWING, "max_wait_duration_in_half_open": 10.0}
TIMED = {"minimum_number_of_calls": 4, "sliding_window_type": "time", "sliding_window_size": 10}

SCENARIOS = [
    # closed: the failure rate
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
    Scenario(
        "a threshold of 1 means all of them",
        {**RATE, "failure_rate_threshold": 1.0},
        "ok 1, fail 9, state closed, fail 1, state open",
    ),
    Scenario("ignored calls are no calls", RATE, "ignored 50, state closed, calls 0, fail 3, ignored 9, state closed"),
    # closed: the count window
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
        NO_CAP,
    ),
    Scenario("a window of one", {"minimum_number_of_calls": 1, "sliding_window_size": 1}, "ok 5, fail 1, state open"),
    # closed: the time window
    Scenario("calls leave the time window by age", TIMED, "fail 3, wait 10, calls 0, fail 3, state closed"),
    Scenario("calls stay in the time window till then", TIMED, "fail 3, wait 9, calls 3, fail 1, state open"),
    Scenario("a second is a bucket", TIMED, "fail 1, wait 0.75, fail 1, wait 9, calls 2, wait 0.25, calls 0"),
    Scenario("the minimum is not lowered by a time window", TIMED | {"sliding_window_size": 2}, "fail 3, state closed"),
    Scenario("a long pause empties the time window once", TIMED, "ok 9, wait 100000, calls 0, ok 1, calls 1"),
    Scenario("the time window slides", TIMED, "ok 1, wait 5, ok 1, wait 5, calls 1, wait 5, calls 0"),
    # closed: failures in a row
    Scenario("failures in a row open it", ROW, "fail 2, state closed, fail 1, state open", None),
    Scenario("a success between them begins the row anew", ROW, "fail 2, ok 1, fail 2, state closed", None),
    Scenario("an ignored call between them does not", ROW, "fail 2, ignored 5, fail 1, state open", None),
    Scenario("failures apart do not open it without a rate", ROW, "fail 2, ok 1, fail 2, ok 1, state closed", None),
    Scenario(
        "both rules stand beside each other",
        {**RATE, "consecutive_failures_threshold": 2},
        "ok 8, fail 2, state open",
        None,
    ),
    # closed: slow calls
    Scenario("slow means longer", SLOW, "call 2 ok, call 2 ok, call 2 ok, call 2 ok, state closed, slow 0", SLOW_AT),
    Scenario("slow calls open it", SLOW, "call 3 ok, call 3 ok, call 3 ok, state closed, call 3 ok, state open"),
    Scenario(
        "a slow call that fails is both",
        {**SLOW, "slow_call_rate_threshold": 0.5},
        "ok 3, call 3 fail, slow 1, failures 1, state closed",
        None,
    ),
    Scenario(
        "the share of slow calls is reached at once",
        {**SLOW, "slow_call_rate_threshold": 0.5},
        "ok 2, call 3 ok, state closed, call 3 ok, state open",
    ),
    Scenario("slow ignored calls are no calls", SLOW, "call 9 ignored, call 9 ignored, calls 0, slow 0"),
    Scenario(
        "what hangs opens the circuit before it has ended",
        SLOW,
        "take a, take b, take c, take d, wait 2.25, refused, state open, overdue 4",
        None,
    ),
    Scenario(
        "exactly the threshold is not overdue", SLOW, "take a, take b, take c, take d, wait 2, take e, overdue 0", None
    ),
    Scenario(
        "an overdue call counts once, before and after its end",
        SLOW,
        "ok 3, take a, wait 3, take b, overdue 1, slow 0, settle a ok, overdue 0, slow 1, calls 4",
        None,
    ),
    Scenario(
        "an overdue call that is cancelled counts no more",
        SLOW,
        "ok 3, take a, wait 3, take b, overdue 1, settle a ignored, overdue 0, slow 0, calls 3",
        None,
    ),
    # open
    Scenario("an open circuit refuses", PROBES, "fail 4, state open, refused, refused, retry_after 5"),
    Scenario("the wait runs down", PROBES, "fail 4, wait 3, retry_after 2, refused, wait 1.75, refused, state open"),
    Scenario("time alone changes no state", PROBES, "fail 4, wait 1000, state open, retry_after none", None),
    Scenario("the next one after the wait is a probe", PROBES, "fail 4, wait 5, take a, state half_open"),
    Scenario("refusals are counted", PROBES, "fail 4, refused, refused, refused, not_permitted 3", None),
    Scenario("a call of before that fails late adds nothing", PROBES, "take a, fail 4, late a fail, state open"),
    # half-open
    Scenario("so many probes and no more", PROBES, "fail 4, wait 5, take a, take b, take c, take d, refused"),
    Scenario(
        "at most so many at once",
        {**PROBES, "max_concurrent_calls_in_half_open": 2},
        "fail 4, wait 5, take a, take b, refused, settle a ok, take c, refused",
    ),
    Scenario(
        "an ignored probe gives its place back",
        PROBES,
        "fail 4, wait 5, take a, take b, take c, take d, refused, settle a ignored, take e, refused, state half_open",
    ),
    Scenario(
        "ignored probes decide nothing", ONE_PROBE, "fail 4, wait 5, ignored 20, state half_open, ok 1, state closed"
    ),
    Scenario("the last good probe closes it", ONE_PROBE, "fail 4, wait 5, ok 1, state closed, calls 0"),
    Scenario("one probe that fails opens it", ONE_PROBE, "fail 4, wait 5, fail 1, state open, retry_after 5"),
    Scenario(
        "certain to open: half of four",
        PROBES,
        "fail 4, wait 5, fail 1, state half_open, fail 1, state open",
        DECIDES_LATE,
    ),
    Scenario(
        "certain to close: three of four",
        PROBES,
        "fail 4, wait 5, ok 2, state half_open, ok 1, state closed",
        DECIDES_LATE,
    ),
    Scenario(
        "good and bad probes are weighed",
        {**PROBES, "failure_rate_threshold": 0.75},
        "fail 4, wait 5, fail 2, state half_open, ok 1, state half_open, ok 1, state closed",
    ),
    Scenario(
        "the last probe decides where nothing was certain",
        {**PROBES, "failure_rate_threshold": 0.75},
        "fail 4, wait 5, ok 1, fail 2, state half_open, fail 1, state open",
    ),
    Scenario(
        "without a rate every probe must succeed",
        {**ROW, "wait_duration_in_open": 5.0, "permitted_calls_in_half_open": 2},
        "fail 3, wait 5, ok 1, state half_open, ok 1, state closed, fail 3, wait 5, fail 1, state open",
        None,
    ),
    Scenario(
        "failures in a row open it half-open as well",
        {**PROBES, "failure_rate_threshold": 1.0, "consecutive_failures_threshold": 2},
        "fail 2, wait 5, fail 1, state half_open, fail 1, state open",
        None,
    ),
    Scenario(
        "slow probes open it",
        {**SLOW, "wait_duration_in_open": 5.0, "permitted_calls_in_half_open": 2, "slow_call_rate_threshold": 0.5},
        "call 3 ok, call 3 ok, ok 2, state open, wait 5, call 3 ok, state open",
        DECIDES_LATE,
    ),
    Scenario(
        "a slow probe that hangs opens it before its end",
        {**SLOW, "wait_duration_in_open": 5.0, "permitted_calls_in_half_open": 2, "slow_call_rate_threshold": 0.5},
        "call 3 ok, call 3 ok, ok 2, wait 5, take a, wait 3, refused, state open, late a ok",
        None,
    ),
    Scenario(
        "a result of before the fault closes nothing",
        ONE_PROBE,
        "take a, fail 4, wait 5, take b, late a ok, state half_open, settle b fail, state open",
    ),
    Scenario(
        "a result of before the fault opens nothing",
        ONE_PROBE,
        "take a, fail 4, wait 5, take b, late a fail, state half_open, settle b ok, state closed",
    ),
    Scenario(
        "a probe that comes back after the decision changes nothing",
        PROBES,
        "fail 4, wait 5, take a, ok 3, state closed, late a fail, failures 0, state closed",
        DECIDES_LATE,
    ),
    Scenario(
        "a closed circuit begins with an empty window",
        ONE_PROBE,
        "fail 4, wait 5, ok 1, calls 0, fail 3, state closed, fail 1, state open",
    ),
    Scenario(
        "probes that have ended count among the permitted",
        {**PROBES, "failure_rate_threshold": 0.75},
        "fail 4, wait 5, fail 2, take a, take b, refused",
    ),
    Scenario(
        "slow probes that have ended and such as have not are counted together",
        {
            **PROBES,
            "failure_rate_threshold": 1.0,
            "slow_call_duration_threshold": 2.0,
            "slow_call_rate_threshold": 0.5,
        },
        "fail 4, wait 5, call 3 ok, take a, wait 3, refused, state open",
        None,
    ),
    Scenario(
        "a probe that could still be slow is waited for",
        {
            **PROBES,
            "failure_rate_threshold": 1.0,
            "slow_call_duration_threshold": 2.0,
            "slow_call_rate_threshold": 0.75,
        },
        "fail 4, state open, wait 5, ok 1, state half_open, ok 1, state closed",
        DECIDES_LATE,
    ),
    Scenario(
        "probes do not age out of a time window",
        {**TIMED, "wait_duration_in_open": 5.0, "permitted_calls_in_half_open": 4},
        "fail 4, wait 5, ok 2, wait 30, ok 1, state closed",
        DECIDES_LATE,
    ),
    Scenario(
        "probes have a window of their own size",
        {
            "minimum_number_of_calls": 2,
            "sliding_window_size": 2,
            "wait_duration_in_open": 5.0,
            "permitted_calls_in_half_open": 4,
            "failure_rate_threshold": 0.75,
        },
        "fail 2, wait 5, fail 2, ok 1, state half_open, fail 1, state open",
    ),
    # half-open, its limit
    Scenario(
        "a probe that never comes back does not hold it for ever",
        LIMITED,
        "fail 4, wait 5, take a, wait 9.75, refused, state half_open, wait 0.25, refused, state open",
        None,
    ),
    Scenario(
        "a hung probe has failed: the wait grows from the moment the time was over",
        LIMITED,
        "fail 4, wait 5, take a, wait 12, refused, retry_after 8, wait 8, take b, state half_open, late a ok",
        None,
    ),
    Scenario(
        "that nobody came is no evidence: the wait does not grow",
        {**LIMITED, "permitted_calls_in_half_open": 4},
        "fail 4, wait 5, ok 1, wait 12, refused, retry_after 3",
        None,
    ),
    Scenario(
        "a rare caller is not made to wait for what passed while nobody called",
        {**LIMITED, "permitted_calls_in_half_open": 4},
        "fail 4, wait 5, ok 1, wait 100, ok 1, state half_open, wait 100, ok 1, state half_open",
        None,
    ),
    Scenario(
        "a result after the limit is late",
        LIMITED,
        "fail 4, wait 5, take a, wait 10, late a ok, state open",
        None,
    ),
    Scenario(
        "without a limit it waits",
        {**GROWING, "max_wait_duration_in_half_open": None},
        "fail 4, wait 5, take a, wait 100000, refused, state half_open, settle a ok, state closed",
        "",
    ),
    # the wait
    Scenario(
        "the wait grows with each half-open that fails, up to the most",
        GROWING,
        "fail 4, retry_after 5, wait 5, fail 1, retry_after 10, wait 10, fail 1, retry_after 15, wait 15, fail 1, "
        "retry_after 15",
    ),
    Scenario(
        "a close brings the first wait back",
        GROWING,
        "fail 4, wait 5, fail 1, wait 10, fail 1, retry_after 15, wait 15, ok 1, state closed, fail 4, retry_after 5",
    ),
    Scenario(
        "a reset does too",
        GROWING,
        "fail 4, wait 5, fail 1, retry_after 10, reset, fail 4, retry_after 5",
    ),
    # the callee asks for a rest
    Scenario(
        "it opens for as long as it is asked to", PROBES, "open_for 30, state open, retry_after 30, refused", None
    ),
    Scenario("a longer rest extends the wait", PROBES, "fail 4, open_for 30, retry_after 30, state open", None),
    Scenario("a shorter rest does not cut it", PROBES, "fail 4, open_for 1, retry_after 5", None),
    Scenario("a rest ends a half-open", PROBES, "fail 4, wait 5, take a, open_for 30, state open, late a ok", None),
    Scenario("a rest of nothing is none", PROBES, "open_for 0, state closed", None),
    Scenario("a rest does not change what a person has set", PROBES, "disable, open_for 30, state disabled", None),
    # set by a person
    Scenario("forced open refuses for good", PROBES, "force_open, wait 100000, refused, state forced_open", ""),
    Scenario("forced open is left by a reset", PROBES, "force_open, refused, reset, state closed, ok 1"),
    Scenario("only a person says when", PROBES, "force_open, retry_after never", None),
    Scenario("disabled lets all through", PROBES, "disable, late_all fail 50, state disabled, calls 0", None),
    Scenario("metrics only counts and never opens", PROBES, "metrics_only, fail 50, state metrics_only, failures 10"),
    Scenario("a forced state begins its own count", PROBES, "fail 3, metrics_only, calls 0", KEEPS_FORCED),
    Scenario("what was under way before a person's word is late", PROBES, "take a, disable, late a fail", ""),
    Scenario("a reset forgets what was seen", PROBES, "fail 3, reset, calls 0, fail 3, state closed"),
    Scenario("what was under way before a reset is late", PROBES, "take a, reset, late a fail, failures 0"),
    Scenario(
        "each change begins a generation",
        ONE_PROBE,
        "fail 4, generation 1, wait 5, take a, generation 2, settle a ok, generation 3",
    ),
    # where it begins
    Scenario(
        "it can begin open",
        {**PROBES, "initial_state": "open"},
        "state open, retry_after 5, refused, wait 5, take a",
        None,
    ),
    Scenario(
        "it can begin half-open",
        {**ONE_PROBE, "initial_state": "half_open"},
        "take a, refused, settle a ok, state closed",
        None,
    ),
    Scenario(
        "it can begin disabled",
        {**PROBES, "initial_state": "disabled"},
        "late_all fail 9, state disabled, reset, state closed",
        None,
    ),
]
